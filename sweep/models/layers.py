"""Layer points of a network: which outputs are probed, what their axes are, how they become embeddings.

[H24] A.4, protocol §2 and §5. An output whose axes cannot be shown is refused; nothing is averaged over an axis that
was not shown to be places or tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from timm.models import create_model
from torch import Tensor, nn

from sweep.base.errors import UserError
from sweep.models import pooling as pools
from sweep.models.axes import point_layout
from sweep.models.choose import chosen
from sweep.models.evidence import BATCHES, Evidence, Make, Seen, Shape, gather, on_meta, tensors, watch
from sweep.models.layout import Layout, Unclear
from sweep.models.points import CLASS_BLOCKS, NORMS, Point, blocks

Kind = Literal["conv", "tokens", "vector"]
DEFAULT = "default"  # pooling
_SMALLEST = 64  # px, at which axes are told apart at least: maps of deep networks vanish in smaller images


@dataclass(frozen=True)
class ProbedLayer:
    """A layer whose pooled output is probed.

    Attributes
    ----------
    name : module path in the network.
    layout : what the axes of its output are.
    pooling : what makes an embedding of it, see :func:`sweep.models.pooling.pool`.
    width : numbers in the embedding, at the resolution it was asked for.
    side : of a map that is channels first, px; 0 for all else.
    point : "conv", "block", "stage", "pattern", or the part of a block ("norm 1", "attention", …).
    input : whether it is what goes into the module, not what comes out.
    norm : path of the network's own norm that comes before the pooling; None: no norm.
    """

    name: str
    layout: Layout
    pooling: str
    width: int
    side: int = 0
    point: str = "pattern"
    input: bool = False
    norm: str | None = None

    @property
    def label(self) -> str:
        """Its name in the table, different for all layers of a network."""
        return f"{self.name} (input)" if self.input else self.name

    @property
    def channels(self) -> int:
        """Of the map, the tokens or the vector."""
        return self.layout.channels

    @property
    def prefix_tokens(self) -> int:
        """Leading tokens that are no patches (class token, registers)."""
        return self.layout.prefix_tokens

    @property
    def kind(self) -> Kind:
        """A map channels first, tokens (or a map channels last), or a vector: places have no part in it."""
        if self.layout.axes in ("BCHW", "BC11"):
            return "conv"
        return "tokens" if set(self.layout.axes) & set("HT") else "vector"

    def embed(self, value: object, modules: Mapping[str, nn.Module]) -> Tensor:
        """What the module gave (or was given) as an embedding (B, D).

        Raises
        ------
        UserError
            If the output is not what was shown of the architecture.
        """
        output = tensors(value)[self.layout.tensor]
        # not called: a norm that is a layer itself has a hook, which is for its own output
        normed = modules[self.norm].forward(output) if self.norm else output
        try:
            return pools.pool(normed.float(), self.layout, self.pooling)
        except ValueError as error:
            raise UserError(f"layer {self.label}: {error}") from error


def probed_layers(
    model: nn.Module,
    *,
    resolution: int,
    pattern: str | None = None,
    pooling: str = DEFAULT,
    norm: str = "none",
) -> list[ProbedLayer]:
    """Layers to probe in the order they run, with the widths they have at a resolution.

    Parameters
    ----------
    model : any network that takes (B, 3, resolution, resolution). Its shapes are looked at on the meta device, at two
        resolutions; one that takes a single resolution must come from :func:`sweep.models.build_backbone` or timm,
        which can build it for another.
    pattern : "conv", "blocks", "stages", "modules", or a regular expression on whole module paths; None: the default
        of the network, see :func:`sweep.models.points.default`.
    pooling : one of :data:`sweep.config.Pooling`; "default": "2x2" for maps, "mean" for tokens.
    norm : "none", or "model": the network's last norm before the pooling.

    Raises
    ------
    UserError
        If nothing is there to probe, or the axes of an output cannot be told apart.
    """
    make = _maker(model)
    evidence = gather(make, _side(model, resolution), asked=resolution)
    return find_layers(evidence, make, resolution=resolution, layers=pattern, pooling=pooling, norm=norm)


def _maker(model: nn.Module) -> Make:
    """What builds the network for a resolution, on the meta device."""
    made = getattr(model, "made_for", None)
    if made is not None:
        return made
    config = getattr(model, "pretrained_cfg", None) or {}
    if config.get("fixed_input_size") and config.get("architecture"):
        name = str(config["architecture"])
        return lambda side: on_meta(create_model(name, num_classes=2, img_size=side))
    copy = on_meta(model)
    return lambda _side: copy


def _side(model: nn.Module, resolution: int) -> int:
    """Resolution at which axes are told apart: that of timm's weights, if they are timm's."""
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    return int(size[-1]) if size else usual_side(resolution)


def usual_side(resolution: int) -> int:
    """The resolution that is asked for, or a multiple that leaves deep maps more than a place."""
    while resolution < _SMALLEST:
        resolution *= 2
    return resolution


def find_layers(
    evidence: Evidence,
    make: Make,
    *,
    resolution: int,
    layers: str | None = None,
    pooling: str = DEFAULT,
    norm: str = "none",
) -> list[ProbedLayer]:
    """Layers to probe from what was seen of a network, see :func:`probed_layers`."""
    if evidence.one.error is not None and not evidence.one.seen:
        raise UserError(f"the network takes no image of {evidence.one.resolution} px: {evidence.one.error}")
    points = chosen(evidence, layers)
    if not points:
        raise UserError("no layer to probe: neither blocks nor convolutions; name layers by a pattern")
    here = evidence.one
    if resolution != here.resolution:
        here = watch(make(resolution), BATCHES[0], resolution)
    if here.error is not None:
        raise UserError(f"the network takes no image of {resolution} px: {here.error}")
    before = _norm(evidence, points) if norm == "model" else None
    return [_layer(evidence, point, here.seen[point.name], pooling, before) for point in _ran(points, here.seen)]


def _ran(points: Sequence[Point], seen: dict[str, Seen]) -> Sequence[Point]:
    if missing := [point.name for point in points if point.name not in seen]:
        raise UserError(f"layer {missing[0]}: it does not run by itself, so it has no output")
    return points


def _layer(evidence: Evidence, point: Point, here: Seen, pooling: str, norm: str | None) -> ProbedLayer:
    label = f"{point.name} (input)" if point.input else point.name
    found = point_layout(evidence, point)
    if isinstance(found, Unclear):
        raise UserError(
            f"layer {label}: its axes cannot be told apart, so it cannot be pooled: {found.why}. Take layers: stages, "
            "or name other modules by a pattern"
        )
    renews = isinstance(evidence.model.get_submodule(point.name), CLASS_BLOCKS)
    way = pools.usual(found, renews_class_only=renews)
    if pooling != DEFAULT and way not in ("none", "class"):
        way = pooling
    if why := pools.problem(found, way):
        raise UserError(f"layer {label}: pooling {way}: {why}")
    if norm is not None and (why := _unfit(evidence, norm, point, found)):
        raise UserError(f"layer {label}: norm: model: {why}")
    shape = (here.inputs if point.input else here.outputs)[found.tensor]
    width, side = _sizes(shape, found, way)
    return ProbedLayer(point.name, found, way, width, side, point.part, point.input, norm)


def _sizes(shape: Shape, found: Layout, way: str) -> tuple[int, int]:
    """Width of the embedding, and side of a map that is channels first."""
    places = [length for length, letter in zip(shape, found.axes, strict=True) if letter in "HW"]
    first = found.axes in ("BCHW", "BC11")
    if way == "2x2":
        count = places[0] * places[1] if max(places) <= 2 else 4
    else:
        count = 2 if way == "class+mean" else 1
    return found.channels * count, shape[2] if first else 0


# ---------------------------------------------------------------------------------------------- the network's norm


def _norm(evidence: Evidence, points: Sequence[Point]) -> str:
    """Path of the norm that the network has after its last block and before it pools."""
    seen, modules = evidence.one.seen, dict(evidence.model.named_modules())
    last = (blocks(evidence) or [points[-1].name])[-1]
    order = list(seen)
    for name in order[order.index(last) + 1 :]:
        if isinstance(modules[name], NORMS) and set(seen[name].inputs) & set(seen[last].outputs):
            return name
    raise UserError("norm: model: this network has no norm between its last block and its pooling")


def _unfit(evidence: Evidence, norm: str, point: Point, found: Layout) -> str | None:
    """Why the network's norm cannot stand before the pooling of a layer."""
    own = point_layout(evidence, Point(norm))
    if isinstance(own, Unclear):
        return own.why
    if (own.axes, own.channels) != (found.axes, found.channels):
        return f"{norm} is for {own.axes} with C {own.channels}, the layer is {found.axes} with C {found.channels}"
    return None
