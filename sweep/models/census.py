"""Every architecture that timm lists: what is probed, with which axes, or why not; held against what timm says.

``python -m sweep.models census`` builds each without memory, which takes some minutes for all, and writes
``census.json``: one line a model. A test builds a part of them anew.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from sweep.base.errors import UserError
from sweep.models.axes import point_layout
from sweep.models.build import build_backbone, evidence_of
from sweep.models.choose import chosen, default
from sweep.models.evidence import BATCHES, Evidence, tensors
from sweep.models.first_rule import was_right
from sweep.models.layers import ProbedLayer, find_layers
from sweep.models.layout import Layout
from sweep.models.points import Point, feature_info
from sweep.models.pooling import rows
from sweep.models.shapes import Shapes

FILE = Path(__file__).with_name("census.json")
_USUAL = 224  # px, where timm has no weights and so no resolution


def side_of(name: str) -> int:
    """Resolution of timm's weights of an architecture, px."""
    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None else _USUAL


def entry(name: str, *, compare_up_to: int = 0) -> dict[str, Any]:
    """What the census says of one architecture.

    Parameters
    ----------
    compare_up_to : parameters up to which numbers are compared with timm's, see :func:`equal`.

    Returns
    -------
    dict with
        ``layers`` : kind of the default points ("blocks", "conv", "stages");
        ``points`` : runs of neighbours that are alike: "number × axes channels prefix pooling";
        ``ends`` : paths of the first and the last point;
        ``sides`` : of the image, and of the last point's map, px;
        ``kept`` : whether version 0.1 embedded it alike;
        ``wrong`` : points whose channels timm or the weights state otherwise; absent if there is none;
        ``timm`` : of timm's ``forward_intermediates`` how many have the channels and places of a block or stage
        here, "12/12"; absent where timm gives none without weights;
        ``equal`` : how many are, number for number, the output of such a point (:func:`equal`), where it was computed;
        or ``refused`` : why nothing is probed by default, and ``other``: kinds of points that can be.
    """
    side = side_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constructors: what they warn of is not probed
        evidence = evidence_of(name, resolution=side)
    kind = default(evidence)
    try:
        layers = find_layers(evidence, lambda _side: evidence.model, resolution=evidence.one.resolution)
    except UserError as error:
        return {"refused": str(error), "other": [k for k in ("conv", "blocks", "stages") if _possible(evidence, k)]}
    found = {
        "layers": kind,
        "points": runs(layers),
        "ends": [layers[0].label, layers[-1].label],
        "sides": [evidence.one.resolution, layers[-1].side],
        "kept": was_right(evidence.model, layers),
        "wrong": contradictions(evidence, layers),
        "timm": _agreement(evidence),
        "equal": equal(name) if _size(evidence.model) <= compare_up_to else None,
    }
    return {key: value for key, value in found.items() if value not in ([], None)}


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _possible(evidence: Evidence, kind: str) -> bool:
    try:
        find_layers(evidence, lambda _side: evidence.model, resolution=evidence.one.resolution, layers=kind)
    except UserError:
        return False
    return True


def runs(layers: Sequence[ProbedLayer]) -> str:
    """Layers that are alike and follow each other, in short: "12 × BTC 768 +1 mean"."""
    found: list[tuple[str, int]] = []
    for layer in layers:
        prefix = f" +{layer.prefix_tokens}" if layer.prefix_tokens else ""
        what = f"{layer.layout.axes} {layer.channels}{prefix} {layer.pooling}"
        if found and found[-1][0] == what:
            found[-1] = (what, found[-1][1] + 1)
        else:
            found.append((what, 1))
    return ", ".join(f"{count} × {what}" for what, count in _patterned(found))


def _patterned(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Long alternations (bottlenecks: 64, 64, 256) as how many there are of each, in the order they first come."""
    if len(found) <= 12:
        return found
    total: Counter[str] = Counter()
    for what, count in found:
        total[what] += count
    return list(total.items())


# ---------------------------------------------------------------------------------------------- the truth


@dataclass(frozen=True)
class _Stated:
    """Channels that somebody else states of a module's output."""

    who: str
    channels: frozenset[int]


def contradictions(evidence: Evidence, layers: Iterable[ProbedLayer]) -> list[str]:
    """Layers whose channels are not what timm's ``feature_info`` or the weights' own shapes say, in words."""
    info = {str(each["module"]): int(each["num_chs"]) for each in feature_info(evidence.model)}
    found = []
    for layer in layers:
        for stated in _statements(evidence, layer, info):
            if layer.channels not in stated.channels:
                found.append(f"{layer.label}: C {layer.channels}, {stated.who} {sorted(stated.channels)}")
    return found


def _statements(evidence: Evidence, layer: ProbedLayer, info: dict[str, int]) -> Iterable[_Stated]:
    if layer.name in info and not layer.input:
        yield _Stated("feature_info", frozenset({info[layer.name]}))
    if weights := _of_weights(evidence.model.get_submodule(layer.name)):
        yield _Stated("weights", weights)


def _of_weights(module: nn.Module) -> frozenset[int]:
    """Channels that the linear layers and convolutions of a module put out, by the shapes of their weights."""
    found: set[int] = set()
    for each in module.modules():
        if isinstance(each, nn.Linear):
            found.add(each.out_features)
        elif isinstance(each, nn.Conv2d):
            found.add(each.out_channels)
    return frozenset(found)


def _agreement(evidence: Evidence) -> str | None:
    """How many of timm's intermediates have the channels and the number of places of one of our blocks or stages."""
    model: Any = evidence.model
    if not hasattr(model, "forward_intermediates"):
        return None
    images = torch.zeros(BATCHES[0], 3, *(evidence.one.resolution,) * 2, device="meta")
    try:
        with Shapes(), torch.inference_mode():
            theirs = [tuple(each.shape) for each in model.forward_intermediates(images, intermediates_only=True)]
    except Exception:  # some read values, which are none without memory
        return None
    ours = set()
    for point, found in _stream(evidence).items():
        shape = evidence.one.seen[point.name].outputs[found.tensor]
        places = math.prod([n for n, letter in zip(shape, found.axes, strict=True) if letter not in "BC"])
        ours.add((found.channels, places - found.prefix_tokens))
    agree = sum((shape[1], math.prod(shape[2:])) in ours for shape in theirs)
    return f"{agree}/{len(theirs)}"


def equal(name: str, *, seed: int = 0) -> str | None:
    """How many of timm's own intermediates are, number for number, the output of one of our blocks or stages.

    With random weights and two random images, on the CPU. timm gives (B, C, H, W) maps of the patches, without prefix
    tokens; ours are brought there by their layouts. None: timm gives no intermediates of this network.
    """
    side = side_of(name)
    model: Any = build_backbone(name, classes=2, resolution=side, seed=seed).eval()
    if not hasattr(model, "forward_intermediates"):
        return None
    images_BCHW = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
    outputs: dict[str, Tensor] = {}
    for point, layout in _stream(evidence_of(name, resolution=side)).items():
        model.get_submodule(point.name).register_forward_hook(_keeper(point.name, layout, outputs))
    with torch.inference_mode():
        theirs = model.forward_intermediates(images_BCHW, intermediates_only=True)
    found = sum(any(_same(ours, map_BCHW) for ours in outputs.values()) for map_BCHW in theirs)
    return f"{found}/{len(theirs)}"


def _stream(evidence: Evidence) -> dict[Point, Layout]:
    """Blocks and stages whose axes are clear."""
    points = {Point(point.name) for kind in ("blocks", "stages") for point in _points(evidence, kind)}
    found = {point: point_layout(evidence, point) for point in points}
    return {point: layout for point, layout in found.items() if isinstance(layout, Layout)}


def _points(evidence: Evidence, kind: str) -> list[Point]:
    try:
        return chosen(evidence, kind)
    except UserError:
        return []


def _keeper(name: str, layout: Layout, outputs: dict[str, Tensor]) -> Any:
    def keep(_module: nn.Module, _inputs: object, output: Any) -> None:
        """Patches or places as (B, C, places); a copy, because some networks go on in place."""
        rows_BTC = rows(tensors(output)[layout.tensor], layout)
        outputs[name] = rows_BTC[:, layout.prefix_tokens :].transpose(1, 2).clone()

    return keep


def _same(ours_BCT: Tensor, theirs_BCHW: Tensor) -> bool:
    flat = theirs_BCHW.flatten(2)
    return ours_BCT.shape == flat.shape and torch.equal(ours_BCT, flat)


# ---------------------------------------------------------------------------------------------- the file


def read(file: Path = FILE) -> dict[str, dict[str, Any]]:
    """The census: name → entry; empty if there is no file."""
    return json.loads(file.read_text(encoding="utf-8"))["models"] if file.exists() else {}


def version(file: Path = FILE) -> str | None:
    """Version of timm that the census was made with; None if there is none."""
    return json.loads(file.read_text(encoding="utf-8"))["timm_version"] if file.exists() else None


def text(models: dict[str, dict[str, Any]]) -> str:
    """As it stands in the file: one model a line."""
    lines = ",\n".join(f"  {json.dumps(name)}: {_short(models[name])}" for name in sorted(models))
    return f'{{"timm_version": {json.dumps(timm.__version__)},\n"models": {{\n{lines}\n}}}}\n'


def _short(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def differences(known: dict[str, dict[str, Any]], names: Iterable[str]) -> list[str]:
    """Architectures of which the census says something else than their networks now show, in words."""
    found = []
    for name in names:
        stored = {key: value for key, value in known.get(name, {}).items() if key != "equal"}
        if (now := entry(name)) != stored:
            found.append(f"{name}: {now}, the file has {stored}")
    return found


def third(known: dict[str, dict[str, Any]]) -> list[str]:
    """Of each of timm's model files the third of the architectures with the fewest points: it takes every file's code.

    Building a network costs by its modules; any third would take twice the time.
    """
    found: dict[str, None] = {}
    for file in timm.list_modules():
        names = [name for name in timm.list_models(module=file) if name in known]
        ordered = sorted(names, key=lambda name: (_points_in(known[name]), name))
        found |= dict.fromkeys(ordered[: math.ceil(len(ordered) / 3)])
    return list(found)


def _points_in(entry: dict[str, Any]) -> float:
    """How many points an entry has; one that is refused by default comes last."""
    runs_of = entry.get("points")
    return sum(int(run.split(" × ")[0]) for run in runs_of.split(", ")) if runs_of else math.inf


def part(names: Sequence[str], which: int, parts: int) -> list[str]:
    """Every so-manieth name, from the ``which``-th on."""
    return list(names)[which % parts :: parts]
