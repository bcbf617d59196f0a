"""The penalty of each layer's probe, chosen on held-out images along a path from strong to weak.

The choice goes by held-out cross-entropy: a smooth score, which orders penalties where top-1 of few images ties. Along
the path it falls and rises again; where it has clearly risen the path ends, also in the middle of a fit. Where the
lowest is at an end of the path, the path goes on.

Shapes: L layers, C classes, F coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sweep.probes.descent import Going, Minimum, chosen, minimise
from sweep.probes.inverse import Inverse
from sweep.probes.remembered import Memory
from sweep.probes.small import small
from sweep.probes.softmax import Softmax, Value

_LOOSE = 0.1  # tolerance while the penalty is still open; the chosen one is fitted on
_CLEARLY = 1.05  # share of the lowest held-out loss from which on a penalty is ruled out
_FACTOR, _MORE = 10.0, 3  # between penalties beyond an end, and how many there are at most


class Path:
    """Descents of some layers from penalty to penalty, each layer as far as its held-out images ask for.

    Parameters
    ----------
    selection, heldout : images that fit, and that choose.
    start : value of ``selection`` to start from.

    Attributes
    ----------
    value, penalty_L, loss_L : at the best penalty so far, and its held-out loss, nats.
    tried : held-out loss (L,) at each penalty; NaN for a layer that was not fitted there to the end.
    """

    def __init__(self, selection: Softmax, heldout: Softmax, inverse: Inverse, start: Value) -> None:
        self._selection, self._heldout, self._inverse = selection, heldout, inverse
        self._memory = Memory(start.theta_LCF, inverse)
        self._here, self._here_penalty_L = start, torch.zeros_like(start.loss_L)
        self.value, self.penalty_L = start, torch.zeros_like(start.loss_L)
        self.loss_L = torch.full_like(start.loss_L, math.inf)
        self.tried: dict[float, Tensor] = {}

    def choose(self, penalties: Sequence[float]) -> Tensor:
        """Walk along the penalties; whether the lowest loss of a layer is at an end of all that were tried, (L,).

        Parameters
        ----------
        penalties : one is taken as it is.
        """
        ordered = sorted(penalties, reverse=True)
        if len(ordered) == 1:
            self.penalty_L = torch.full_like(self.penalty_L, ordered[0])
            return torch.zeros_like(self.penalty_L, dtype=torch.bool)
        done_L = torch.zeros_like(self.penalty_L, dtype=torch.bool)
        for penalty in ordered:
            done_L = done_L | self._visit(penalty, done_L)
            if bool(done_L.all()):
                break
        for end, factor in ((ordered[-1], 1 / _FACTOR), (ordered[0], _FACTOR)):
            if factor > 1:
                self._here = self.value
            for _ in range(_MORE):
                at_end_L = self.penalty_L == end
                if not bool(at_end_L.any()):
                    break
                end *= factor
                self._visit(end, ~at_end_L)
        return (self.penalty_L == min(self.tried)) | (self.penalty_L == max(self.tried))

    def _visit(self, penalty: float, done_L: Tensor) -> Tensor:
        """Fit with a penalty the layers that are not done; those that held-out images have ruled it out for."""
        at_L = torch.full_like(self.penalty_L, penalty)
        found = self._minimise(self._selection, self._here, at_L, _LOOSE, done_L)
        going = None if done_L.is_cuda else (~done_L).nonzero().flatten().tolist()
        loss_L = self._heldout.cross_entropy(found.value.theta_LCF, going)
        out_L = loss_L > _CLEARLY * self.loss_L
        better_L = (loss_L < self.loss_L) & ~done_L
        self.tried[penalty] = torch.where(done_L | out_L, math.nan, loss_L)
        self._here = found.value
        self.value = chosen(small(better_L), found.value, self.value)
        self.penalty_L = torch.where(better_L, at_L, self.penalty_L)
        self.loss_L = torch.where(better_L, loss_L, self.loss_L)
        return out_L

    def of(self, layer: int) -> list[tuple[float, float]]:
        """Penalties that a layer was fitted with, the strongest first, and the held-out loss of each."""
        losses = ((penalty, float(loss_L[layer])) for penalty, loss_L in self.tried.items())
        return sorted(((penalty, loss) for penalty, loss in losses if not math.isnan(loss)), reverse=True)

    def settle(self, images: Softmax, value: Value, tolerance: float) -> Minimum:
        """The fit at each layer's chosen penalty, on any images of these layers."""
        return self._minimise(images, value, self.penalty_L, tolerance, None)

    def _minimise(
        self, images: Softmax, value: Value, penalty_L: Tensor, tolerance: float, done_L: Tensor | None
    ) -> Minimum:
        here_L = penalty_L if done_L is None else torch.where(done_L, self._here_penalty_L, penalty_L)
        self._inverse.set(images, value, penalty_L)
        self._memory.rebase(here_L - self._here_penalty_L)
        self._here_penalty_L = here_L
        return minimise(
            images,
            value,
            self._memory,
            self._inverse,
            penalty_L,
            tolerance=tolerance,
            done_L=done_L,
            hopeless=None if done_L is None else self._hopeless,
        )

    def _hopeless(self, theta_LCF: Tensor, going: Going) -> Tensor:
        return self._heldout.cross_entropy(theta_LCF, going) > _CLEARLY * self.loss_L
