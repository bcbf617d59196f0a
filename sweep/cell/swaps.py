"""What is measured of a course: every task after each, and extractors and tunnels of different moments together.

E1 is the extractor after the first task, T2 the tunnel after the second: of the layers up to a split, and of those
behind it ([M23], [H24], protocol §11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from sweep.base.seeds import derive_seed
from sweep.cell.lessons import Learned, Lesson
from sweep.config import FineTuning
from sweep.models import Shortened
from sweep.study import PlannedCourse, content_key
from sweep.train import look, obtain_weights, refitted_top1, train_missing


@dataclass(frozen=True)
class Place:
    """A split: the last layer of the extractor, and the word of the config that it stands for."""

    layer: int
    said: str
    fine_tuned: bool = True


def matrix_rows(learned: Learned) -> Iterator[dict[str, Any]]:
    """Every task after each moment, 0 is before the first task; a task still to come has its untrained classifier."""
    for moment, body in enumerate(learned.bodies):
        for number, lesson in enumerate(learned.lessons, 1):
            trained = number <= moment
            network = learned.network(lesson, body, trained=trained)
            yield {
                "kind": "matrix",
                "after_task": moment,
                "classifier": "trained" if trained else "untrained",
                **_measured(learned, number, network, refit=True),
            }


def swap_rows(learned: Learned, place: Place, later: int) -> Iterator[dict[str, Any]]:
    """Extractors and tunnels of the moments after task 1 and after a later one, each with each, on both tasks."""
    for extractor in (1, later):
        for tunnel in (1, later):
            body = learned.body(extractor, tunnel, place.layer)
            for number in (1, later):
                network = learned.network(learned.lessons[number - 1], body)
                yield {
                    **_combination(learned, place, later, extractor, tunnel, fine_tuned=False),
                    "classifier": "trained",
                    **_measured(learned, number, network, refit=place.fine_tuned),
                }


def tuned_rows(
    learned: Learned, planned: PlannedCourse, tuning: FineTuning, place: Place, later: int
) -> Iterator[dict[str, Any]]:
    """The later extractor, with the first task's tunnel and without any, trained further on the first task."""
    first = learned.lessons[0]
    backbone = replace(first.backbone, recipe=tuning)
    for tunnel in (1, None):
        row = _combination(learned, place, later, later, tunnel, fine_tuned=True)
        points = [place.layer, learned.about.layers[place.layer - 1].label, backbone.layers_pattern]
        key = content_key("weights", of=planned.tuning, row=row["combination"], moment=later, split=points)

        def started(network: nn.Module, tunnel: int | None = tunnel, key: str = key) -> nn.Module:
            """The parts, put together; a network without a tunnel has a classifier of its own."""
            body = learned.body(later, tunnel or later, place.layer)
            network.load_state_dict({**body, **first.after})
            return network if tunnel else _shortened(learned, network, place.layer, first, key)

        images = {"task": first.task.label, "combination": row["combination"], "split": place.layer}
        shop = replace(first.shop, run=key, start=started, images=images)
        train_missing([backbone], shop)
        network = obtain_weights(backbone, shop).model
        yield {**row, "classifier": "trained", **_measured(learned, 1, network)}


def _shortened(learned: Learned, network: nn.Module, layer: int, lesson: Lesson, key: str) -> nn.Module:
    """A network without its tunnel; the initial weights of its classifier derive from the key."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("classifier", key))
        side = lesson.backbone.resolution
        return Shortened(network, learned.about, layer, classes=lesson.images.classes, resolution=side)


def _combination(
    learned: Learned, place: Place, later: int, extractor: int, tunnel: int | None, *, fine_tuned: bool
) -> dict[str, Any]:
    """Columns that say what was put together."""
    parts = f"E{extractor}" + (f"+T{tunnel}" if tunnel else "")
    return {
        "kind": "combination",
        "combination": f"{parts} fine-tuned" if fine_tuned else parts,
        "extractor_after": extractor,
        "tunnel_after": tunnel,
        "later_task": later,
        "fine_tuned": fine_tuned,
        "split_by": place.said,
        "split_layer": place.layer,
        "split_layer_name": learned.about.layers[place.layer - 1].label,
        "tunnel_layers": len(learned.about.layers) - place.layer,
    }


def _measured(learned: Learned, number: int, network: nn.Module, *, refit: bool = False) -> dict[str, Any]:
    """How good a network is at a task; with ``refit`` also with the task's classifier alone trained anew."""
    lesson, glasses = learned.lessons[number - 1], learned.glasses
    images = lesson.images
    head = network.head if isinstance(network, Shortened) else network.get_submodule(learned.about.head)
    test = look(network, head, images.test_NHWC, glasses)
    correct_N = test.correct(images.test_labels_N)
    row: dict[str, Any] = {
        "task": number,
        "task_dataset": lesson.task.dataset,
        "classes": images.classes,
        "n_train": len(images.train_labels_N),
        "n_test": len(images.test_labels_N),
        "top1": float(correct_N.mean()),
        "correct": np.packbits(correct_N).tobytes(),
    }
    if refit:
        train = look(network, head, images.train_NHWC, glasses)
        row["head_refit_top1"] = refitted_top1(train, test, images, glasses.device)
    return row
