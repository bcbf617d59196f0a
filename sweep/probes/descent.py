"""Minimisation of penalised losses of several layers at once: L-BFGS in a given metric, its memory kept from penalty
to penalty.

Steps are taken by the rule of Hager and Zhang (2005), which also works where the loss differs by less than rounding.
Layers that are done leave the passes over the images on CPU; on a GPU nothing waits for it but a look at every eighth
iteration at whether all are done.

Shapes: L layers, C classes, F coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from sweep.probes.inverse import Inverse
from sweep.probes.remembered import STEPS, Memory
from sweep.probes.small import Small, library, small
from sweep.probes.softmax import Softmax, Value

_ITERATIONS = 1000
_LOOK = {"cpu": 1, "cuda": 8}  # iterations between looks at whether all have finished
_LONG = 3  # iterations, beyond the passes that a better metric costs, after which it is asked for
_WATCH = 4  # iterations between looks at held-out images
_SUFFICIENT, _SLOPE = 1e-4, 0.8  # of Armijo's rule; how much of the slope may be left beyond the minimum of a line
_ROUNDING = 1e-6  # share of the loss below which float32 sees no difference
_FLOOR = 1e-6  # gradient norm below which float32 sees no gradient
_REJECTED = 15  # steps in a row after which there is none to be found
Going = Sequence[int] | None  # layers that are not done; None for all, and where the host does not know
Hopeless = Callable[[Tensor, Going], Tensor]


@dataclass(frozen=True)
class Minimum:
    """Where a descent ended.

    Attributes
    ----------
    gradient_L : norm of the gradient, with that of the penalty.
    converged_L : whether it is as small as was asked.
    passes_L : over the images.
    """

    value: Value
    gradient_L: Tensor
    converged_L: Tensor
    passes_L: Tensor


def state_bytes(classes: int, numbers: int) -> int:
    """Memory of the descent of one layer, float32: what is remembered, and some ten points, gradients and steps."""
    return 4 * classes * numbers * (3 * (STEPS + 1) + 10)


def minimise(
    softmax: Softmax,
    start: Value,
    memory: Memory,
    inverse: Inverse,
    penalty_L: Tensor,
    *,
    tolerance: float,
    done_L: Tensor | None = None,
    hopeless: Hopeless | None = None,
) -> Minimum:
    """Minimise loss + ½ penalty ‖W‖², the bias not penalised, from a start.

    Parameters
    ----------
    memory : of descents before this one; it learns.
    inverse : set to ``penalty_L``.
    tolerance : converged is where ‖gradient‖ ≤ tolerance · penalty · ‖W‖. The loss grows by at least
        ½ penalty ‖ΔW‖² around its minimum, so that no weights are further from it than that share of their norm.
    done_L : layers that stay where they are.
    hopeless : theta (L, C, F), and which layers are asked for → (L,) those that need not go on; every fourth iteration.
    """
    return _Descent(softmax, start, memory, inverse, penalty_L, tolerance, done_L).run(hopeless)


@dataclass(frozen=True)
class _Point:
    """Probes somewhere, with their penalty.

    Attributes
    ----------
    gradient_LCF : of the objective, the loss with the penalty.
    numbers_5L : float64; rows are the objective, the loss, its curvature, penalty · ‖W‖, the gradient's norm.
    """

    theta_LCF: Tensor
    gradient_LCF: Tensor
    numbers_5L: Small

    @property
    def objective_L(self) -> Small:
        return self.numbers_5L[0]

    @property
    def weights_L(self) -> Small:
        return self.numbers_5L[3]

    @property
    def norm_L(self) -> Small:
        return self.numbers_5L[4]


class _Descent:
    """The state of all layers; those that are done stay where they are."""

    def __init__(
        self,
        softmax: Softmax,
        start: Value,
        memory: Memory,
        inverse: Inverse,
        penalty_L: Tensor,
        tolerance: float,
        done_L: Tensor | None,
    ) -> None:
        self._softmax, self._memory, self._tolerance = softmax, memory, tolerance
        self._penalty_L1F = penalty_L.float().view(-1, 1, 1) * inverse.penalised_L1F
        self._inverse, self._penalty_L, self._device = inverse, small(penalty_L), penalty_L.device
        self._at = self._point(start)
        self._turned_LCF = self._turned(self._at.gradient_LCF)
        done_L = torch.zeros_like(penalty_L, dtype=torch.bool) if done_L is None else done_L.clone()
        self._done_L = small(done_L)
        self._rejected_L, self._passes_L = (small(torch.zeros_like(done_L, dtype=torch.int64)) for _ in range(2))
        self._size_L = small(torch.ones_like(penalty_L, dtype=torch.float64))
        self._going: Going = None

    def _point(self, value: Value) -> _Point:
        weighted_LCF = value.theta_LCF * self._penalty_L1F
        twice_L = small((value.theta_LCF * weighted_LCF).sum((1, 2), dtype=torch.float64))
        gradient_LCF = weighted_LCF.add_(value.slope_LCF)
        norm_L = small(torch.linalg.vector_norm(gradient_LCF, dim=(1, 2)).double())
        loss_L, weights_L = small(value.loss_L), (twice_L * self._penalty_L) ** 0.5
        numbers = [loss_L + 0.5 * twice_L, loss_L, small(value.curvature_L), weights_L, norm_L]
        return _Point(value.theta_LCF, gradient_LCF, library(loss_L).stack(numbers))

    def _value(self) -> Value:
        """Without the penalty, where the layers are."""
        at, (_, loss_L, curvature_L, *_) = self._at, self._at.numbers_5L
        slope_LCF = at.gradient_LCF - at.theta_LCF * self._penalty_L1F
        return Value(at.theta_LCF, torch.as_tensor(loss_L), slope_LCF, torch.as_tensor(curvature_L))

    def _turned(self, gradient_LCF: Tensor) -> Tensor:
        return self._inverse(gradient_LCF.unsqueeze(1)).squeeze(1)

    def _converged(self) -> Small:
        return self._at.norm_L <= (self._tolerance * self._at.weights_L).clip(_FLOOR)

    def run(self, hopeless: Hopeless | None) -> Minimum:
        """Iterate until every layer is done; ``hopeless`` says which weights are not worth going on with."""
        with np.errstate(all="ignore"):  # what is not finite is refused, see _judged
            self._iterate(hopeless)
            ends = self._at.norm_L, self._converged(), self._passes_L
        return Minimum(self._value(), *(torch.as_tensor(end_L) for end_L in ends))

    def _iterate(self, hopeless: Hopeless | None) -> None:
        down_LCF = self._memory.descent(self._at.gradient_LCF, self._turned_LCF)
        long = _LONG + self._inverse.refinement_passes(self._softmax)
        for iteration in range(_ITERATIONS):
            self._done_L |= self._converged() | (self._rejected_L > _REJECTED)
            if hopeless is not None and iteration % _WATCH == _WATCH - 1:
                self._done_L |= small(hopeless(self._at.theta_LCF, self._look()))
            if iteration % _LOOK[self._device.type] == 0 and self._look() == []:
                break
            if iteration == long and self._inverse.refine(self._softmax, self._at.theta_LCF, self._going):
                self._memory.rebase(torch.as_tensor(self._penalty_L) * 0)
                self._turned_LCF = self._turned(self._at.gradient_LCF)
                down_LCF = self._memory.descent(self._at.gradient_LCF, self._turned_LCF)
            down_LCF = self._step(down_LCF)

    def _look(self) -> Going:
        """See which layers are not done: on CPU each, on a GPU whether there are any."""
        if self._device.type != "cpu":
            return [] if bool(self._done_L.all()) else None
        going = [layer for layer, done in enumerate(self._done_L.tolist()) if not done]
        self._going = None if len(going) == len(self._done_L) else going
        return self._going

    def _step(self, down_LCF: Tensor) -> Tensor:
        """Try a step along a direction; the next direction, or the same where it was too long."""
        size_L = library(self._size_L).where(self._done_L, 0.0, self._size_L)
        step_LCF = down_LCF * torch.as_tensor(size_L).float().view(-1, 1, 1)
        trial = self._point(self._softmax.value(self._at.theta_LCF + step_LCF, self._going))
        self._passes_L += ~self._done_L
        taken_L = self._judged(down_LCF, trial)
        if not isinstance(taken_L, Tensor) and not taken_L.any():
            return down_LCF
        before_LCF, turned_LCF = self._at.gradient_LCF, self._turned_LCF
        self._at = _chosen(taken_L, trial, self._at)
        after = self._at.gradient_LCF, self._turned(self._at.gradient_LCF)
        self._turned_LCF = after[1]
        next_LCF = self._memory.advance(taken_L, step_LCF, after[0] - before_LCF, after[1] - turned_LCF, after)
        return _of(taken_L, next_LCF, down_LCF)

    def _judged(self, down_LCF: Tensor, trial: _Point) -> Small:
        """Whether each layer takes its step, (L,); where it does not, the next one is shorter."""
        before_L, after_L = (
            small((down_LCF * point.gradient_LCF).sum((1, 2), dtype=torch.float64)) for point in (self._at, trial)
        )
        old_L, new_L = self._at.objective_L, trial.objective_L
        enough_L = new_L <= old_L + _SUFFICIENT * self._size_L * before_L
        level_L = (after_L <= -_SLOPE * before_L) & (new_L <= old_L + _ROUNDING * abs(old_L))
        taken_L = (enough_L | level_L) & ~self._done_L
        # along a line the slope is about straight: where it crosses zero
        of = library(taken_L)
        crossing_L = before_L / (before_L - after_L)
        crossing_L = of.where(crossing_L > 0.1, of.where(crossing_L < 0.6, crossing_L, 0.6), 0.1)  # also of what is NaN
        self._size_L = of.where(taken_L, 1.0, self._size_L * crossing_L)
        self._rejected_L = of.where(taken_L, 0, self._rejected_L + 1)
        return taken_L


def _of(first_L: Small, one: Tensor, other: Tensor) -> Tensor:
    """Of each layer the one where ``first_L``, else the other."""
    if not isinstance(first_L, Tensor) and first_L.all():
        return one
    return torch.where(torch.as_tensor(first_L).view(-1, *[1] * (one.ndim - 1)), one, other)


def chosen(first_L: Small, one: Value, other: Value) -> Value:
    """The same of values."""
    pairs = ((getattr(one, field.name), getattr(other, field.name)) for field in fields(Value))
    return Value(*(_of(first_L, *pair) for pair in pairs))


def _chosen(first_L: Small, one: _Point, other: _Point) -> _Point:
    """The same of points."""
    if not isinstance(first_L, Tensor) and first_L.all():
        return one
    return _Point(
        _of(first_L, one.theta_LCF, other.theta_LCF),
        _of(first_L, one.gradient_LCF, other.gradient_LCF),
        library(first_L).where(first_L, one.numbers_5L, other.numbers_5L),
    )
