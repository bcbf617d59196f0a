"""Which points a value of `layers` stands for, and which a network has by default."""

from __future__ import annotations

import re

from torch import nn

from sweep.base.errors import UserError
from sweep.models.axes import point_layout
from sweep.models.block_modules import inside
from sweep.models.evidence import Evidence
from sweep.models.layout import Layout
from sweep.models.points import Point, blocks, convolutions, stages

_RULES = {"conv": ("conv", convolutions), "blocks": ("block", blocks), "stages": ("stage", stages)}
_SHOWN = 6


def chosen(evidence: Evidence, layers: str | None) -> list[Point]:
    """Points in the order they run; empty if the network has none of the kind.

    Parameters
    ----------
    layers : one of :data:`sweep.config.LAYERS`, or a regular expression on whole module paths; None: the default of
        the network, see :func:`default`.
    """
    if layers is None:
        layers = default(evidence)
    if layers == "modules":
        return inside(evidence, blocks(evidence))
    if layers not in _RULES:
        return [Point(name) for name in _matching(evidence, layers)]
    part, rule = _RULES[layers]
    return [Point(name, part) for name in rule(evidence)]


def default(evidence: Evidence) -> str:
    """The kind of points a network has by default.

    "blocks" where activations multiply activations in some block (attention), or where a block has no convolution:
    transformers, hybrids, mixers; else "conv", the layers of [H24]. Where axes of these cannot be told apart, the next
    kind whose axes all can: blocks for convolutions, stages for blocks.
    """
    found = blocks(evidence)
    modules = dict(evidence.model.named_modules())
    attends = any(evidence.one.seen[name].attends for name in found)
    convolved = all(any(isinstance(m, nn.Conv2d) for m in modules[name].modules()) for name in found)
    order = ("conv", "blocks", "stages") if convolved and not attends else ("blocks", "stages")
    return next((kind for kind in order if _is_clear(evidence, kind)), order[0])


def _is_clear(evidence: Evidence, kind: str) -> bool:
    try:
        points = chosen(evidence, kind)
    except UserError:
        return False
    return bool(points) and all(isinstance(point_layout(evidence, point), Layout) for point in points)


def _matching(evidence: Evidence, pattern: str) -> list[str]:
    paths = [name for name, _ in evidence.model.named_modules() if name]
    found = {name for name in paths if re.fullmatch(pattern, name)}
    if not found:
        rule = [point.name for point in chosen(evidence, None)]
        raise UserError(
            f"layers pattern {pattern!r} matches no module; the rule takes {', '.join(rule[:_SHOWN])} …; "
            f"the network's first modules are {', '.join(paths[: 2 * _SHOWN])}"
        )
    return [name for name in evidence.one.seen if name in found] or sorted(found)
