"""Rows of the probe table, from what was embedded and fitted."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from sweep.base.measure import Measured, device_name
from sweep.cell.task import CellTask
from sweep.config import AUTO, CONVERGED, NO_PENALTY_KEYS, PENALTIES, Probe
from sweep.data import Images
from sweep.embed import Embeddings, Statistics
from sweep.models import ProbedLayer
from sweep.probes import ProbeResult, replicate_seeds
from sweep.study import Backbone, Planned
from sweep.train import Weights


@dataclass(frozen=True)
class Embedded:
    """Embeddings of one curve, and the parameters that the network has up to each layer."""

    layers: list[ProbedLayer]
    parameters: list[int]
    train: Embeddings
    test: Embeddings
    cost: Measured


@dataclass(frozen=True)
class Fitted:
    """Probes of one curve, statistics of each layer (None where embeddings are not finite), and those of plug-ins."""

    results: list[ProbeResult]
    statistics: list[Statistics | None]
    registered: list[dict[str, float | None]]
    seed: int
    cost: Measured


def make_rows(
    task: CellTask,
    planned: Planned,
    weights: Weights,
    images: Images,
    embedded: Embedded,
    fitted: Fitted,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Rows of the probe table, one per probe: by layer, recipe and seed; see :data:`sweep.table.SCHEMA`."""
    curve = planned.curve
    shared = {
        "curve_key": planned.key,
        "embedding_key": planned.embedding,
        "weights_key": planned.weights,
        "fit_on": "own" if curve.shifted is None else "id",
        **_dataset_columns(images),
        **_backbone_and_cost(curve.backbone, weights, embedded, fitted),
        "extraction_precision": task.settings.extraction,
        **task.provenance,
        "device": device_name(device),
        "host": socket.gethostname(),
        "finished_at": datetime.now(UTC),
    }
    seeds = replicate_seeds(fitted.seed, curve.probe_seeds)
    exact = curve.probe.solver in PENALTIES  # nothing is drawn
    rows = []
    for result in fitted.results:
        described = fitted.statistics[result.layer]
        rows.append(
            shared
            | _layer_columns(result.layer + 1, embedded)
            | (asdict(described) if described else {})
            | fitted.registered[result.layer]
            | _probe_columns(curve.probes[result.recipe], result)
            | {
                "probe_seed": None if exact else seeds[result.seed_index],
                "probe_seed_index": result.seed_index,
                "chosen": result.chosen,
            }
            | _accuracies(result)
        )
    return rows


def _probe_columns(probe: Probe, result: ProbeResult) -> dict[str, Any]:
    """Recipe of one probe; what its solver does not know is null, what it chose is its choice."""
    columns = {f"probe_{key}": value for key, value in probe.model_dump(exclude={"penalties", "check"}).items()}
    if probe.epochs == AUTO:
        columns["probe_epochs"] = None
    if probe.solver == CONVERGED:
        columns["probe_weight_decay"] = result.penalty
    unknown = NO_PENALTY_KEYS if probe.solver in PENALTIES else ()
    return columns | {f"probe_{key}": None for key in unknown}


def _layer_columns(number: int, embedded: Embedded) -> dict[str, Any]:
    layer, last = embedded.layers[number - 1], len(embedded.layers)
    rounding = embedded.train.rounding[number - 1]
    return {
        "layer": number,
        "layer_name": layer.label,
        "layer_point": layer.point,
        "layer_pooling": layer.pooling,
        "layer_width": layer.width,
        "float16_loss": rounding and rounding.median,
        "float16_loss_worst": rounding and rounding.worst,
        "layer_parameters": embedded.parameters[number - 1],
        "position": (number - 1) / (last - 1) if last > 1 else 1.0,
        "is_penultimate": number == last,
    }


def _dataset_columns(images: Images) -> dict[str, Any]:
    return {
        "dataset_fingerprint": images.fingerprint,
        "classes": images.classes,
        "chance": 1 / images.classes,
        "n_train": len(images.train_labels_N),
        "n_heldout": int(images.heldout_N.sum()),
        "n_test": len(images.test_labels_N),
        "skipped_images": list(images.skipped),
    }


def _backbone_and_cost(backbone: Backbone, weights: Weights, embedded: Embedded, fitted: Fitted) -> dict[str, Any]:
    facts = weights.facts
    unseen = backbone.recipe is not None and backbone.recipe.train_on == "fit"  # else it was trained on these images
    return {
        "trained_images": facts.trained_on,
        "backbone_heldout_top1": facts.heldout_top1 if unseen else None,
        "backbone_test_top1": facts.test_top1,
        "head_refit_top1": weights.head_refit_top1,
        "backbone_epoch": facts.epoch,
        "pretrain_seconds": facts.seconds,
        "pretrain_peak_bytes": facts.peak_bytes,
        "embed_seconds": embedded.cost.seconds,
        "embed_peak_bytes": embedded.cost.peak_bytes,
        "probe_seconds": fitted.cost.seconds,
        "probe_peak_bytes": fitted.cost.peak_bytes,
    }


def _accuracies(result: ProbeResult) -> dict[str, Any]:
    if result.problem is not None:
        return {"problem": result.problem}
    names = (
        "top1 top1_last top1_best top5 heldout_top1 train_top1 test_loss heldout_loss train_loss "
        "epoch_chosen epoch_best correct heldout_correct crossfit_top1 crossfit_loss converged gradient_norm "
        "epochs_run penalty_at_end"
    )
    row = {name: getattr(result, name) for name in names.split()}
    if result.check_top1 is not None:
        row |= {"check_top1": result.check_top1, "check_gain": result.check_top1 - result.top1}
    row |= {"top1_epochs": result.top1_E, "heldout_top1_epochs": result.heldout_top1_E}
    row["crossfit_correct"] = result.crossfit_correct or None
    return row | {"penalties": result.penalties or None, "penalty_losses": result.heldout_losses or None}
