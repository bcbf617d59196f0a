"""The points inside a pre-norm transformer block, by class and by the order in which its modules run."""

from __future__ import annotations

from torch import nn

from sweep.base.errors import UserError
from sweep.models.evidence import Evidence
from sweep.models.points import NORMS, Point

PARTS = ("norm 1", "attention", "residual 1", "norm 2", "FC1", "activation", "FC2", "residual 2")
_SILENT = (nn.Dropout, nn.Identity)


def inside(evidence: Evidence, blocks: list[str]) -> list[Point]:
    """Eight points of every block, :data:`PARTS`.

    Residual 1 is the sum of the block's input and its attention: what goes into the second norm, in a block whose
    norms stand before attention and MLP. Residual 2 is the block's output.

    Raises
    ------
    UserError
        If a block is built otherwise.
    """
    return [point for block in blocks for point in _block(evidence, block)]


def _block(evidence: Evidence, block: str) -> list[Point]:
    modules, seen = dict(evidence.model.named_modules()), evidence.one.seen
    children = [name for name in seen if name.rpartition(".")[0] == block]
    norms = [name for name in children if isinstance(modules[name], NORMS)]
    attention = [name for name in children if seen[name].attends]
    if len(norms) != 2 or len(attention) != 1:
        raise _other(block, f"{len(norms)} norms and {len(attention)} attention modules run in it, not 2 and 1")
    order = [children.index(name) for name in (norms[0], attention[0], norms[1])]
    if order != sorted(order) or seen[norms[1]].inputs[:1] != seen[block].inputs[:1]:
        raise _other(block, "its norms do not stand before attention and MLP")
    after = [name for name in seen if name.startswith(f"{block}.") and _runs_after(evidence, name, norms[1])]
    linear = [name for name in after if isinstance(modules[name], nn.Linear)]
    if len(linear) != 2:
        raise _other(block, f"{len(linear)} linear layers run after its second norm, not 2")
    between = after[after.index(linear[0]) + 1 : after.index(linear[1])]
    active = [name for name in between if _is_activation(modules[name])]
    if len(active) != 1:
        raise _other(block, f"{len(active)} activations run between its linear layers, not 1")
    names = (norms[0], attention[0], norms[1], norms[1], linear[0], active[0], linear[1], block)
    return [Point(name, part, input=part == "residual 1") for name, part in zip(names, PARTS, strict=True)]


def _runs_after(evidence: Evidence, name: str, norm: str) -> bool:
    order = list(evidence.one.seen)
    return order.index(name) > order.index(norm)


def _is_activation(module: nn.Module) -> bool:
    """A leaf without weights that does something."""
    leaf = not list(module.children()) and not list(module.parameters())
    return leaf and not isinstance(module, _SILENT)


def _other(block: str, why: str) -> UserError:
    return UserError(
        f"layers: modules needs blocks with norms before attention and MLP; {block} is built otherwise: {why}. "
        "Take layers: blocks, or name modules by a pattern"
    )
