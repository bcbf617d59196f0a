"""Minimisation of penalised losses of several layers at once: L-BFGS in a given metric, its memory kept from penalty
to penalty.

A change of the penalty changes what is remembered of the curvature in closed form, so that the next penalty starts
with what the last one learned. The recursion is in its compact form (Byrd, Nocedal and Schnabel 1994), which reads the
remembered steps twice per iteration whatever their number; the steps are taken by the rule of Hager and Zhang (2005),
which also works where differences of the loss are below rounding. Nothing waits for a GPU but a look at every eighth
iteration at whether all have finished.

Shapes: L layers, C classes, F coordinates, M remembered steps, P = C · F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.probes.inverse import Inverse
from sweep.probes.softmax import Softmax, Value

_MEMORY = 16
_ITERATIONS = 1000
_LOOK = {"cpu": 1, "cuda": 8}  # iterations between looks at whether all have finished
_LONG = 12  # iterations after which a better metric is asked for
_WATCH = 4  # iterations between looks at held-out images
_SUFFICIENT, _SLOPE = 1e-4, 0.8  # of Armijo's rule; how much of the slope may be left beyond the minimum of a line
_ROUNDING = 1e-6  # share of the loss below which float32 sees no difference
_FLOOR = 1e-6  # gradient norm below which float32 sees no gradient
_REJECTED = 15  # steps in a row after which there is none to be found


class Memory:
    """The last steps and how the gradient changed along them; a layer that took none has a zero step."""

    def __init__(self, like_LCF: Tensor, inverse: Inverse) -> None:
        layers = len(like_LCF)
        self._inverse, self._shape = inverse, like_LCF.shape
        self._steps_LMP, self._changes_LMP, self._turned_LMP = (
            like_LCF.new_zeros(layers, _MEMORY, like_LCF[0].numel()) for _ in range(3)
        )
        small = like_LCF.new_zeros(layers, _MEMORY, _MEMORY, dtype=torch.float64)
        self._products_LMM, self._norms_LMM = small, small.clone()  # step · change; change · inverse · change
        self._taken_LM = torch.zeros(layers, _MEMORY, dtype=torch.bool, device=like_LCF.device)
        self._scale_L = torch.ones(layers, dtype=torch.float64, device=like_LCF.device)
        self._count = 0
        ages = torch.arange(_MEMORY, device=like_LCF.device)
        self._orders = [(ages + first) % _MEMORY for first in range(_MEMORY)]

    def add(self, step_LCF: Tensor, change_LCF: Tensor, turned_LCF: Tensor) -> None:
        """Remember a step in place of the oldest, the change of the gradient, and this times the inverse."""
        at = self._count % _MEMORY
        self._count += 1
        step_LP, change_LP, turned_LP = step_LCF.flatten(1), change_LCF.flatten(1), turned_LCF.flatten(1)
        product_L = (step_LP * change_LP).sum(1, dtype=torch.float64)
        taken_L = product_L > 0
        keep_L1 = taken_L.unsqueeze(1)
        self._steps_LMP[:, at] = step_LP * keep_L1
        self._changes_LMP[:, at] = change_LP * keep_L1
        self._turned_LMP[:, at] = turned_LP * keep_L1
        self._taken_LM[:, at] = taken_L
        both_LP2 = torch.stack([change_LP, turned_LP], 2) * keep_L1.unsqueeze(2)
        self._products_LMM[:, :, at] = torch.bmm(self._steps_LMP, both_LP2[..., :1]).squeeze(2).double()
        norms_LM = torch.bmm(self._turned_LMP, both_LP2[..., :1]).squeeze(2).double()
        self._norms_LMM[:, :, at] = norms_LM
        self._norms_LMM[:, at] = norms_LM
        newest_L = norms_LM[:, at]
        self._scale_L = torch.where(taken_L & (newest_L > 0), product_L / newest_L, self._scale_L)

    def rebase(self, more_L: Tensor) -> None:
        """Penalties have grown by so much, and the inverse has changed: as if all steps had been made under these."""
        if not self._count:
            return
        layers = len(more_L)
        shape = (layers, _MEMORY, *self._shape[1:])
        more_LMCF = more_L.float().view(-1, 1, 1, 1) * self._inverse.penalised_L1F.unsqueeze(1)
        self._changes_LMP += (self._steps_LMP.view(shape) * more_LMCF).flatten(2)
        self._turned_LMP = self._inverse(self._changes_LMP.view(shape)).flatten(2)
        changes_LPM = self._changes_LMP.transpose(1, 2)
        self._products_LMM = torch.bmm(self._steps_LMP, changes_LPM).double()
        self._norms_LMM = torch.bmm(self._turned_LMP, changes_LPM).double()
        newest = (self._count - 1) % _MEMORY
        product_L, norm_L = self._products_LMM[:, newest, newest], self._norms_LMM[:, newest, newest]
        self._taken_LM &= self._products_LMM.diagonal(dim1=1, dim2=2) > 0
        self._scale_L = torch.where((product_L > 0) & (norm_L > 0), product_L / norm_L, self._scale_L)

    def descent(self, gradient_LCF: Tensor, turned_LCF: Tensor) -> Tensor:
        """Minus the gradient, times the inverse Hessian as the metric and the remembered steps show it.

        Parameters
        ----------
        turned_LCF : the gradient times the metric's inverse.
        """
        if not self._count:
            return -turned_LCF
        gradient_LP1 = gradient_LCF.flatten(1).unsqueeze(2)
        along_LM, turned_LM = (
            torch.bmm(stack_LMP, gradient_LP1).squeeze(2).double() for stack_LMP in (self._steps_LMP, self._turned_LMP)
        )
        on_steps_LM, on_turned_LM = self._coefficients(along_LM, turned_LM)
        down_LP1 = (turned_LCF * -self._scale_L.float().view(-1, 1, 1)).flatten(1).unsqueeze(1)
        down_LP1.baddbmm_(on_steps_LM.float().unsqueeze(1), self._steps_LMP, alpha=-1)
        down_LP1.baddbmm_(on_turned_LM.float().unsqueeze(1), self._turned_LMP, alpha=-1)
        return down_LP1.view(self._shape)

    def _coefficients(self, along_LM: Tensor, turned_LM: Tensor) -> tuple[Tensor, Tensor]:
        """Of the steps and of the turned changes in the product (Byrd et al., eq. 3.1), the oldest first inside."""
        order_M = self._orders[self._count % _MEMORY]
        scale_L1 = self._scale_L.unsqueeze(1)
        taken_LM = self._taken_LM[:, order_M]
        pair_LMM = taken_LM.unsqueeze(1) & taken_LM.unsqueeze(2)
        products_LMM = self._products_LMM[:, order_M][:, :, order_M] * pair_LMM
        diagonal_LM = torch.where(taken_LM, products_LMM.diagonal(dim1=1, dim2=2), 1)
        upper_LMM = products_LMM.triu(1) + torch.diag_embed(diagonal_LM)
        along_LM1 = (along_LM[:, order_M] * taken_LM).unsqueeze(2)
        u_LM1 = torch.linalg.solve_triangular(upper_LMM, along_LM1, upper=True)
        norms_LMM = self._norms_LMM[:, order_M][:, :, order_M] * pair_LMM * scale_L1.unsqueeze(2)
        inner_LM1 = diagonal_LM.unsqueeze(2) * u_LM1 + torch.bmm(norms_LMM, u_LM1)
        inner_LM1 -= (scale_L1 * turned_LM[:, order_M] * taken_LM).unsqueeze(2)
        on_steps_LM1 = torch.linalg.solve_triangular(upper_LMM.transpose(1, 2), inner_LM1, upper=False)
        found = torch.zeros_like(along_LM), torch.zeros_like(along_LM)
        found[0][:, order_M] = on_steps_LM1.squeeze(2) * taken_LM
        found[1][:, order_M] = -scale_L1 * u_LM1.squeeze(2) * taken_LM
        return found


@dataclass(frozen=True)
class Minimum:
    """Where a descent ended.

    Attributes
    ----------
    gradient_L : norm of the gradient, with that of the penalty.
    converged_L : whether it is as small as was asked.
    """

    value: Value
    gradient_L: Tensor
    converged_L: Tensor


def state_bytes(classes: int, numbers: int) -> int:
    """Memory of the descent of one layer, float32: what is remembered, and some ten points, gradients and steps."""
    return 4 * classes * numbers * (3 * _MEMORY + 10)


def minimise(
    softmax: Softmax,
    start: Value,
    memory: Memory,
    inverse: Inverse,
    penalty_L: Tensor,
    *,
    tolerance: float,
    done_L: Tensor | None = None,
    hopeless: Callable[[Tensor], Tensor] | None = None,
) -> Minimum:
    """Minimise loss + ½ penalty ‖W‖², the bias not penalised, from a start.

    Parameters
    ----------
    memory : of descents before this one; it learns.
    inverse : set to ``penalty_L``.
    tolerance : converged is where ‖gradient‖ ≤ tolerance · penalty · ‖W‖. The loss grows by at least
        ½ penalty ‖ΔW‖² around its minimum, so that no weights are further from it than that share of their norm.
    done_L : layers that stay where they are.
    hopeless : theta (L, C, F) → (L,) layers that need not go on, asked every fourth iteration.
    """
    return _Descent(softmax, start, memory, inverse, penalty_L, tolerance, done_L).run(hopeless)


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
        self._penalised_L1F, self._penalty_L = inverse.penalised_L1F, penalty_L
        self._inverse, self._at = inverse, start
        self._gradient_LCF = self._gradient(start)
        self._turned_LCF = self._turned(self._gradient_LCF)
        layers, device = len(penalty_L), penalty_L.device
        self._done_L = torch.zeros(layers, dtype=torch.bool, device=device) if done_L is None else done_L.clone()
        self._rejected_L = torch.zeros(layers, dtype=torch.int64, device=device)
        self._size_L = torch.ones(layers, dtype=torch.float64, device=device)

    def _gradient(self, value: Value) -> Tensor:
        return value.slope_LCF + self._penalty_L1F * value.theta_LCF

    def _turned(self, gradient_LCF: Tensor) -> Tensor:
        return self._inverse(gradient_LCF.unsqueeze(1)).squeeze(1)

    def _converged(self) -> Tensor:
        part_L = (self._at.theta_LCF * self._penalty_L1F).flatten(1).norm(dim=1)
        return self._gradient_LCF.flatten(1).norm(dim=1) <= (self._tolerance * part_L).clamp_min(_FLOOR)

    def _objective(self, value: Value) -> Tensor:
        squares_L = (value.theta_LCF.square() * self._penalised_L1F).sum((1, 2), dtype=torch.float64)
        return value.loss_L + 0.5 * self._penalty_L.double() * squares_L

    def run(self, hopeless: Callable[[Tensor], Tensor] | None) -> Minimum:
        """Iterate until every layer is done; ``hopeless`` says which weights (L, C, F) are not worth going on with."""
        look = _LOOK[self._penalty_L.device.type]
        down_LCF = self._memory.descent(self._gradient_LCF, self._turned_LCF)
        for iteration in range(_ITERATIONS):
            self._done_L |= self._converged() | (self._rejected_L > _REJECTED)
            if hopeless is not None and iteration % _WATCH == _WATCH - 1:
                self._done_L |= hopeless(self._at.theta_LCF)
            if iteration % look == 0 and bool(self._done_L.all()):
                break
            if iteration == _LONG and self._inverse.refine(self._softmax, self._at):
                self._memory.rebase(torch.zeros_like(self._penalty_L))
                self._turned_LCF = self._turned(self._gradient_LCF)
                down_LCF = self._memory.descent(self._gradient_LCF, self._turned_LCF)
            down_LCF = self._step(down_LCF)
        return Minimum(self._at, self._gradient_LCF.flatten(1).norm(dim=1), self._converged())

    def _step(self, down_LCF: Tensor) -> Tensor:
        """Try a step along a direction; the next direction, or the same where it was too long."""
        size_L11 = torch.where(self._done_L, 0, self._size_L).float().view(-1, 1, 1)
        step_LCF = down_LCF * size_L11
        trial = self._softmax.value(self._at.theta_LCF + step_LCF)
        gradient_LCF = self._gradient(trial)
        before_L, after_L = (
            (down_LCF * each_LCF).sum((1, 2), dtype=torch.float64) for each_LCF in (self._gradient_LCF, gradient_LCF)
        )
        old_L, new_L = self._objective(self._at), self._objective(trial)
        enough_L = new_L <= old_L + _SUFFICIENT * self._size_L * before_L
        level_L = (after_L <= -_SLOPE * before_L) & (new_L <= old_L + _ROUNDING * old_L.abs())
        taken_L = (enough_L | level_L) & ~self._done_L
        # along a line the slope is about straight: where it crosses zero
        shorter_L = self._size_L * (before_L / (before_L - after_L)).nan_to_num(0.1).clamp(0.1, 0.6)
        self._size_L = torch.where(taken_L, 1, shorter_L)
        self._rejected_L = torch.where(taken_L, 0, self._rejected_L + 1)
        if taken_L.is_cpu and not bool(taken_L.any()):
            return down_LCF
        taken_L11 = taken_L.view(-1, 1, 1)
        gradient_LCF = torch.where(taken_L11, gradient_LCF, self._gradient_LCF)
        turned_LCF = self._turned(gradient_LCF)
        change_LCF = gradient_LCF - self._gradient_LCF
        self._memory.add(step_LCF * taken_L11, change_LCF, turned_LCF - self._turned_LCF)
        self._at = chosen(taken_L, trial, self._at)
        self._gradient_LCF, self._turned_LCF = gradient_LCF, turned_LCF
        return torch.where(taken_L11, self._memory.descent(gradient_LCF, turned_LCF), down_LCF)


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
