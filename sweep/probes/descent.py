"""Minimisation of penalised losses of several layers at once: L-BFGS in a given metric, its memory kept from penalty
to penalty.

Steps are taken by the rule of Hager and Zhang (2005), which also works where the loss differs by less than rounding.
Layers that are done leave the passes over the images on CPU; on a GPU nothing waits for it but a look at every eighth
iteration at whether all are done.

Shapes: L layers, C classes, F coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.probes.inverse import Inverse
from sweep.probes.remembered import STEPS, Memory
from sweep.probes.softmax import Softmax, Value

_ITERATIONS = 1000
_LOOK = {"cpu": 1, "cuda": 8}  # iterations between looks at whether all have finished
_LONG = 12  # iterations after which a better metric is asked for
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
    """A value with its penalty.

    Attributes
    ----------
    objective_L : loss with the penalty.
    weights_L : penalty · ‖W‖.
    gradient_LCF : of the objective.
    norm_L : of it.
    """

    value: Value
    objective_L: Tensor
    weights_L: Tensor
    gradient_LCF: Tensor
    norm_L: Tensor


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
        self._inverse, self._penalty_L = inverse, penalty_L
        self._at = self._point(start)
        self._turned_LCF = self._turned(self._at.gradient_LCF)
        layers, device = len(penalty_L), penalty_L.device
        self._done_L = torch.zeros(layers, dtype=torch.bool, device=device) if done_L is None else done_L.clone()
        self._rejected_L, self._passes_L = (torch.zeros(layers, dtype=torch.int64, device=device) for _ in range(2))
        self._size_L = torch.ones(layers, dtype=torch.float64, device=device)
        self._going: Going = None

    def _point(self, value: Value) -> _Point:
        weighted_LCF = value.theta_LCF * self._penalty_L1F
        twice_L = (value.theta_LCF * weighted_LCF).sum((1, 2), dtype=torch.float64)
        gradient_LCF = weighted_LCF.add_(value.slope_LCF)
        weights_L = (twice_L * self._penalty_L).sqrt_()
        norm_L = torch.linalg.vector_norm(gradient_LCF, dim=(1, 2))
        return _Point(value, value.loss_L + 0.5 * twice_L, weights_L, gradient_LCF, norm_L)

    def _turned(self, gradient_LCF: Tensor) -> Tensor:
        return self._inverse(gradient_LCF.unsqueeze(1)).squeeze(1)

    def _converged(self) -> Tensor:
        return self._at.norm_L <= (self._tolerance * self._at.weights_L).clamp_min_(_FLOOR)

    def run(self, hopeless: Hopeless | None) -> Minimum:
        """Iterate until every layer is done; ``hopeless`` says which weights are not worth going on with."""
        look = _LOOK[self._penalty_L.device.type]
        down_LCF = self._memory.descent(self._at.gradient_LCF, self._turned_LCF)
        for iteration in range(_ITERATIONS):
            self._done_L |= self._converged() | (self._rejected_L > _REJECTED)
            if hopeless is not None and iteration % _WATCH == _WATCH - 1:
                self._done_L |= hopeless(self._at.value.theta_LCF, self._look())
            if iteration % look == 0 and self._look() == []:
                break
            if iteration == _LONG and self._inverse.refine(self._softmax, self._at.value, self._going):
                self._memory.rebase(torch.zeros_like(self._penalty_L))
                self._turned_LCF = self._turned(self._at.gradient_LCF)
                down_LCF = self._memory.descent(self._at.gradient_LCF, self._turned_LCF)
            down_LCF = self._step(down_LCF)
        return Minimum(self._at.value, self._at.norm_L, self._converged(), self._passes_L)

    def _look(self) -> Going:
        """See which layers are not done: on CPU each, on a GPU whether there are any."""
        if self._done_L.is_cpu:
            going = [layer for layer, done in enumerate(self._done_L.tolist()) if not done]
            self._going = None if len(going) == len(self._done_L) else going
            return self._going
        return [] if bool(self._done_L.all()) else None

    def _step(self, down_LCF: Tensor) -> Tensor:
        """Try a step along a direction; the next direction, or the same where it was too long."""
        size_L11 = torch.where(self._done_L, 0, self._size_L).float().view(-1, 1, 1)
        step_LCF = down_LCF * size_L11
        trial = self._point(self._softmax.value(self._at.value.theta_LCF + step_LCF, self._going))
        self._passes_L += ~self._done_L
        taken_L = self._judged(down_LCF, trial)
        if taken_L.is_cpu and not bool(taken_L.any()):
            return down_LCF
        taken_L11 = taken_L.view(-1, 1, 1)
        before_LCF, turned_LCF = self._at.gradient_LCF, self._turned_LCF
        self._at = _chosen(taken_L, trial, self._at)
        after = self._at.gradient_LCF, self._turned(self._at.gradient_LCF)
        self._turned_LCF = after[1]
        next_LCF = self._memory.advance(taken_L, step_LCF, after[0] - before_LCF, after[1] - turned_LCF, after)
        return torch.where(taken_L11, next_LCF, down_LCF)

    def _judged(self, down_LCF: Tensor, trial: _Point) -> Tensor:
        """Whether each layer takes its step, (L,); where it does not, the next one is shorter."""
        before_L, after_L = (
            (down_LCF * point.gradient_LCF).sum((1, 2), dtype=torch.float64) for point in (self._at, trial)
        )
        old_L, new_L = self._at.objective_L, trial.objective_L
        enough_L = new_L <= old_L + _SUFFICIENT * self._size_L * before_L
        level_L = (after_L <= -_SLOPE * before_L) & (new_L <= old_L + _ROUNDING * old_L.abs())
        taken_L = (enough_L | level_L) & ~self._done_L
        # along a line the slope is about straight: where it crosses zero
        shorter_L = self._size_L * (before_L / (before_L - after_L)).nan_to_num(0.1).clamp(0.1, 0.6)
        self._size_L = torch.where(taken_L, 1, shorter_L)
        self._rejected_L = torch.where(taken_L, 0, self._rejected_L + 1)
        return taken_L


def chosen(first_L: Tensor, one: Value, other: Value) -> Value:
    """Of each layer the one where ``first_L``, else the other."""
    if first_L.is_cpu and bool(first_L.all()):
        return one
    wide = first_L.view(-1, 1, 1)
    return Value(
        torch.where(wide, one.theta_LCF, other.theta_LCF),
        torch.where(first_L, one.loss_L, other.loss_L),
        torch.where(wide, one.slope_LCF, other.slope_LCF),
        torch.where(first_L, one.curvature_L, other.curvature_L),
    )


def _chosen(first_L: Tensor, one: _Point, other: _Point) -> _Point:
    """The same of points."""
    if first_L.is_cpu and bool(first_L.all()):
        return one
    return _Point(
        chosen(first_L, one.value, other.value),
        torch.where(first_L, one.objective_L, other.objective_L),
        torch.where(first_L, one.weights_L, other.weights_L),
        torch.where(first_L.view(-1, 1, 1), one.gradient_LCF, other.gradient_LCF),
        torch.where(first_L, one.norm_L, other.norm_L),
    )
