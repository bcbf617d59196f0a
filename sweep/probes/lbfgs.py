"""Multinomial logistic regression to convergence, along a path of penalties.

L-BFGS, where embeddings are ill-conditioned in the metric of their covariance: the Hessian of the loss is about
p (1 − p) times the covariance, which is inverted once per penalty, so that such embeddings, and those of networks are,
take about as few iterations as white ones.

Shapes: N images, B images of a chunk, D width, C classes, F = D + 1 weights of a class with the bias as the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sweep.config import Probe
from sweep.probes.data import ProbeData, ProbeResult
from sweep.probes.exact import FitData, Linear, both_fits, result_of

_POWERS = 8
_ROWS = {"cpu": 512, "cuda": 1 << 16}  # images of a chunk: inputs and logits stay in the cache for both matmuls
_MEMORY = 10  # pairs of steps and gradient changes
_ITERATIONS = 1000
_TOLERANCE = 1e-6  # nats: expected decrease of the loss at which it has converged; float32 sees hardly less
_WHITE = 10.0  # largest variance of a direction over the mean one, up to which embeddings are well conditioned
_SUFFICIENT = 1e-4  # share of the expected decrease that a step must bring
_HALVINGS = 30
Metric = Callable[[Tensor], Tensor]  # a gradient, times the inverse of the metric


@torch.inference_mode()
def fit_lbfgs(data: ProbeData, recipes: Sequence[Probe], layer: int) -> list[ProbeResult]:
    """Both fits of one layer for every strength of the penalty.

    Minimises mean smoothed cross-entropy + ½ λ ‖W‖² with λ the recipe's ``weight_decay``; the bias is not penalised.
    The strongest penalty is solved first, each next one starts where it ended.

    Parameters
    ----------
    recipes : they differ in ``weight_decay``.

    Returns
    -------
    one result per recipe; a fit that does not converge (a penalty of 0 on separable classes) is one with a reason.
    """
    (selection, _), (full, left) = (_path(fit, recipes) for fit in both_fits(data, layer, recipes[0]))
    results = []
    for number, fits in enumerate(zip(selection, full, strict=True)):
        chooser, probe = fits
        if chooser is None or probe is None:
            reason = (
                f"lbfgs did not converge on {data.layer_names[layer]} in {_ITERATIONS} iterations with weight_decay "
                f"{recipes[number].weight_decay:g}: a larger one does"
            )
            results.append(ProbeResult(reason, layer, number))
        else:
            found = replace(result_of(data, layer, chooser, probe), layer=layer, recipe=number)
            results.append(replace(found, converged=True, gradient_norm=left[number]) if not found.problem else found)
    return results


@torch.inference_mode()
def regression(fit: FitData, recipe: Probe) -> Linear | None:
    """One fit with the penalty of its recipe, by :func:`fit_lbfgs`'s rule; None if it does not converge."""
    return _path(fit, [recipe])[0][0]


def _path(fit: FitData, recipes: Sequence[Probe]) -> tuple[list[Linear | None], list[float]]:
    """The probe of each recipe, from the strongest penalty to the weakest; None if it does not converge.

    And the norm of its gradient, over that at weights of zero.
    """
    problem = _Problem(fit, recipes[0].label_smoothing)
    theta_CF = fit.x_ND.new_zeros(fit.classes, fit.x_ND.shape[1] + 1)
    start_CF = theta_CF.clone()
    start_CF[:, -1] = (torch.bincount(fit.labels_N, minlength=fit.classes) / len(fit.labels_N)).clamp_min(1e-30).log()
    slope = float(problem.value(start_CF, 0.0)[1].norm())
    found: list[Linear | None] = [None] * len(recipes)
    left = [float("nan")] * len(recipes)
    for number in sorted(range(len(recipes)), key=lambda n: -recipes[n].weight_decay):
        theta_CF, converged = _minimise(problem, theta_CF, recipes[number].weight_decay)
        if not converged:
            theta_CF = torch.zeros_like(theta_CF)  # the next one starts anew
            continue
        found[number] = fit.linear(theta_CF[:, :-1].T, theta_CF[:, -1])
        left[number] = float(problem.value(theta_CF, recipes[number].weight_decay)[1].norm()) / max(slope, 1e-30)
    return found, left


class _Problem:
    """Loss and gradient of one fit, and the metric in which to descend."""

    def __init__(self, fit: FitData, smoothing: float) -> None:
        self._chunks = list(zip(fit.x_ND.split(_ROWS[fit.x_ND.device.type]), self._labels(fit), strict=True))
        self._n, self._classes, self._smoothing = len(fit.x_ND), fit.classes, smoothing
        self._less = fit.x_ND.new_tensor(smoothing - 1)
        self._curvature = (1 - 1 / fit.classes) / fit.classes  # p (1 − p), all probabilities equal
        self._variance = float(fit.x_ND.square().sum(1).mean()) / fit.x_ND.shape[1]
        white = _spread(fit.x_ND) <= _WHITE * self._variance
        self._covariance_DD = None if white else fit.x_ND.T @ fit.x_ND / self._n

    @staticmethod
    def _labels(fit: FitData) -> Sequence[Tensor]:
        return fit.labels_N.unsqueeze(0).split(_ROWS[fit.x_ND.device.type], dim=1)

    def metric(self, penalty: float) -> Metric:
        """Inverse of the Hessian that equal probabilities would give, of its mean where embeddings are about white."""
        inverse: Tensor | float
        if self._covariance_DD is None:
            inverse = 1 / (self._curvature * self._variance + penalty + 1e-30)
        else:
            inverse = self._inverse(self._curvature * self._covariance_DD, penalty)

        def natural(gradient_CF: Tensor) -> Tensor:
            weight_CD = gradient_CF[:, :-1]
            weight_CD = weight_CD @ inverse if isinstance(inverse, Tensor) else weight_CD * inverse
            return torch.cat([weight_CD, gradient_CF[:, -1:] / self._curvature], 1)

        return natural

    @staticmethod
    def _inverse(hessian_DD: Tensor, penalty: float) -> Tensor:
        hessian_DD.diagonal().add_(penalty + 1e-6 * float(hessian_DD.diagonal().mean()) + 1e-30)
        factor_DD, failed = torch.linalg.cholesky_ex(hessian_DD)
        if int(failed):  # rounding: let the diagonal alone decide
            return torch.diag(1 / hessian_DD.diagonal())
        return torch.cholesky_inverse(factor_DD)

    def value(self, theta_CF: Tensor, penalty: float) -> tuple[float, Tensor]:
        """Loss in nats with its penalty, and its gradient."""
        weight_CD, bias_C1 = theta_CF[:, :-1].contiguous(), theta_CF[:, -1:].contiguous()
        slope_CD, slope_C1 = torch.zeros_like(weight_CD), torch.zeros_like(bias_C1)
        loss = theta_CF.new_zeros((), dtype=torch.float64)
        for x_BD, labels_1B in self._chunks:
            logits_CB = torch.addmm(bias_C1, weight_CD, x_BD.T)
            logits_CB -= logits_CB.amax(0, keepdim=True)
            expected_1B = (1 - self._smoothing) * logits_CB.gather(0, labels_1B)
            if self._smoothing:
                expected_1B += self._smoothing * logits_CB.mean(0, keepdim=True)
            total_1B = logits_CB.exp_().sum(0, keepdim=True)
            loss += (total_1B.log() - expected_1B).sum(dtype=torch.float64)
            gradient_CB = logits_CB.mul_(total_1B.reciprocal_())
            if self._smoothing:
                gradient_CB -= self._smoothing / self._classes
            gradient_CB.scatter_add_(0, labels_1B, self._less.expand_as(labels_1B))
            slope_CD.addmm_(gradient_CB, x_BD)
            slope_C1 += gradient_CB.sum(1, keepdim=True)
        slope_CF = torch.cat([torch.add(slope_CD / self._n, weight_CD, alpha=penalty), slope_C1 / self._n], 1)
        return float(loss) / self._n + 0.5 * penalty * _dot(weight_CD, weight_CD), slope_CF


def _spread(x_ND: Tensor) -> float:
    """Largest variance of a direction, by a few power iterations."""
    direction_D = x_ND.abs().mean(0)
    for _ in range(_POWERS):
        direction_D = x_ND.T @ (x_ND @ direction_D)
        direction_D /= direction_D.norm().clamp_min(1e-30)
    return float((x_ND @ direction_D).square().mean())


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.reshape(-1), other.reshape(-1)))


def _minimise(problem: _Problem, theta_CF: Tensor, penalty: float) -> tuple[Tensor, bool]:
    """L-BFGS with backtracking (Nocedal and Wright, algorithm 7.5); whether it converged."""
    natural = problem.metric(penalty)
    loss, gradient_CF = problem.value(theta_CF, penalty)
    pairs: list[tuple[Tensor, Tensor, float]] = []  # step, change of the gradient, their product
    for _ in range(_ITERATIONS):
        direction_CF = -_descent(natural, pairs, gradient_CF)
        expected = -_dot(gradient_CF, direction_CF)
        if expected <= 2 * _TOLERANCE:
            return theta_CF, True
        found = _search(problem, theta_CF, direction_CF, loss, expected, penalty)
        if found is None:  # float32 sees no decrease along the direction: as far as it goes, if that is far enough
            return theta_CF, expected <= 1e3 * _TOLERANCE
        step_CF, loss, new_CF = found
        change_CF = new_CF - gradient_CF
        product = _dot(step_CF, change_CF)
        if product > 0:
            pairs = [*pairs, (step_CF, change_CF, product)][-_MEMORY:]
        theta_CF, gradient_CF = theta_CF + step_CF, new_CF
    return theta_CF, False


def _descent(natural: Metric, pairs: list[tuple[Tensor, Tensor, float]], gradient_CF: Tensor) -> Tensor:
    """The gradient, times the inverse Hessian as the last steps show it (two-loop recursion)."""
    q_CF, shares = gradient_CF.clone(), []
    for step_CF, change_CF, product in reversed(pairs):
        share = _dot(step_CF, q_CF) / product
        q_CF.sub_(change_CF, alpha=share)
        shares.append(share)
    r_CF = natural(q_CF)
    if pairs:
        _, change_CF, product = pairs[-1]
        r_CF *= product / _dot(change_CF, natural(change_CF))
    for (step_CF, change_CF, product), share in zip(pairs, reversed(shares), strict=True):
        r_CF.add_(step_CF, alpha=share - _dot(change_CF, r_CF) / product)
    return r_CF


def _search(
    problem: _Problem, theta_CF: Tensor, direction_CF: Tensor, loss: float, expected: float, penalty: float
) -> tuple[Tensor, float, Tensor] | None:
    """Halve the step until the loss falls enough: the step, the new loss and gradient; None if it never does."""
    size = 1.0
    for _ in range(_HALVINGS):
        step_CF = size * direction_CF
        new, gradient_CF = problem.value(theta_CF + step_CF, penalty)
        if new <= loss - _SUFFICIENT * size * expected:  # False for a loss that is not a number
            return step_CF, new, gradient_CF
        size /= 2
    return None
