"""The axes of a point's tensor: its shapes in two passes, and what classes and the network state."""

from __future__ import annotations

from timm.models.coat import CoaT
from timm.models.crossvit import CrossVit
from timm.models.pit import PoolingVisionTransformer
from timm.models.volo import VOLO
from torch import nn

from sweep.models.evidence import Evidence, Seen
from sweep.models.layout import Layout, Stated, Unclear, layout
from sweep.models.points import Point

# Networks whose class token stands first although they do not count it ([timm]; a test looks for it there)
_FIRST = (PoolingVisionTransformer, CrossVit, VOLO, CoaT)


def point_layout(evidence: Evidence, point: Point) -> Layout | Unclear:
    """Axes of a point's tensor."""
    module = evidence.model.get_submodule(point.name)
    one, two = evidence.one.seen.get(point.name), evidence.two.seen.get(point.name)
    if point.input:
        one, two = (Seen(each.outputs, each.inputs, each.calls) if each else None for each in (one, two))
    stated = Stated(
        convolution=isinstance(module, nn.Conv2d) and not point.input,
        prefix_tokens=_stated_prefix(evidence.model, point.name),
        first=isinstance(evidence.model, _FIRST),
    )
    found = layout(one, two, stated)
    if isinstance(found, Unclear) and evidence.two.error:
        return Unclear(f"{found.why} (no image of twice the side: {evidence.two.error})")
    return found


def _stated_prefix(model: nn.Module, name: str) -> int | None:
    """Class tokens and registers that the network, or the part of it that a module is in, says it has."""
    while name:
        name = name.rpartition(".")[0]
        stated = getattr(model.get_submodule(name), "num_prefix_tokens", None)
        if isinstance(stated, int):
            return stated
    return None
