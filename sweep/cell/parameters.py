"""How many parameters a network has spent by each of its probed layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sweep.models import ProbedLayer


def parameters_so_far(model: nn.Module, layers: Sequence[ProbedLayer]) -> list[int]:
    """Parameters up to and with each layer's module, in the order in which the network lists its modules (L,).

    What goes into a module comes before the module's own; shared parameters count where they stand first.
    """
    seen: set[int] = set()
    before, count = {}, 0
    for name, module in model.named_modules():  # a module comes before all that is in it
        before[name] = count
        own = {id(parameter): parameter.numel() for parameter in module.parameters(recurse=False)}
        count += sum(size for key, size in own.items() if key not in seen)
        seen |= own.keys()
    names = list(before)
    starts = [*before.values(), count]
    after = {}
    for layer in layers:
        inside = [at for at, name in enumerate(names) if name == layer.name or name.startswith(f"{layer.name}.")]
        after[layer.name] = starts[inside[-1] + 1]
    return [before[layer.name] if layer.input else after[layer.name] for layer in layers]
