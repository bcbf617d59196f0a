"""What the best layer costs: operations and time of the network up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sweep.answer.names import Model
from sweep.answer.ranking import Answer
from sweep.cell import layers_of_backbone
from sweep.driver import Sweep
from sweep.models import build_backbone, cut_flops, cut_milliseconds
from sweep.study import Backbone

_BATCH = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class Price:
    """Of one image: floating-point operations (two per multiply-add), and ms on a device."""

    flops: float
    milliseconds: float
    device: str


def prices(found: Sequence[Answer], sweep: Sweep) -> dict[Model, Price]:
    """Of each answer's model up to its best layer."""
    backbones = {planned.key: planned.curve.backbone for planned in sweep.planned}
    gpu = torch.cuda.is_available()
    asked = sweep.config.resources.threads
    threads = asked if isinstance(asked, int) else sweep.threads or 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {each.model: _price(each, backbones[each.curve_key], threads, gpu=gpu) for each in found}
    finally:
        torch.set_num_threads(before)


def _price(answer: Answer, backbone: Backbone, threads: int, *, gpu: bool) -> Price:
    """What the weights are makes no difference."""
    kind = "cuda" if gpu else "cpu"
    layer = next(each for each in layers_of_backbone(backbone) if each.label == answer.layer_name)
    network = build_backbone(backbone.architecture, classes=backbone.head, resolution=backbone.resolution)
    flops = cut_flops(network, layer, backbone.resolution)
    passed = cut_milliseconds(network, layer, backbone.resolution, batch=_BATCH[kind], device=kind)
    where = torch.cuda.get_device_name() if gpu else f"CPU, {threads} thread{'s' * (threads > 1)}"
    return Price(flops, passed, f"{where}, batches of {_BATCH[kind]}")
