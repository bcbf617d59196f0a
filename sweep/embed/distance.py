"""How far the weights of each probed layer have moved from where they started ([M23])."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from sweep.base.errors import UserError
from sweep.models import ProbedLayer


class Moved(NamedTuple):
    """How far the weights of a layer have moved.

    Attributes
    ----------
    relative : ‖W − W₀‖ / ‖W₀‖. Wide layers start from smaller weights, so that the same steps are larger by it.
    change : ‖W − W₀‖ / √n of n weights, the root mean square change of a weight.
    """

    relative: float
    change: float


def weight_distances(model: nn.Module, initial: nn.Module, layers: Sequence[ProbedLayer]) -> list[Moved | None]:
    """Distance of each layer's own weights from their initial values (L,).

    Own are the matrices and kernels inside the probed module, all together; biases and the scales of norms are no part.
    None for a layer without any: an activation, a norm, a sum of two streams.

    Parameters
    ----------
    model, initial : the same network, trained and not.

    Raises
    ------
    UserError
        If the two are not the same network.
    """
    now, then = dict(model.named_parameters()), dict(initial.named_parameters())
    if {name: value.shape for name, value in now.items()} != {name: value.shape for name, value in then.items()}:
        raise UserError("the weights to compare are not of one network: their parameters differ")
    found: list[Moved | None] = []
    for layer in layers:
        own = [
            name
            for name, value in now.items()
            if not layer.input and value.dim() >= 2 and (name.startswith(f"{layer.name}.") or not layer.name)
        ]
        moved, length, count = 0.0, 0.0, 0
        for name in own:
            start, end = then[name].detach().double(), now[name].detach().to(then[name].device).double()
            moved += float((end - start).square().sum())
            length += float(start.square().sum())
            count += start.numel()
        found.append(Moved(math.sqrt(moved / length), math.sqrt(moved / count)) if length > 0 else None)
    return found
