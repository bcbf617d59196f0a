"""Multinomial logistic regression to convergence, along a path of penalties.

L-BFGS in the metric of the inputs' covariance: the Hessian of the loss is about (p (1 − p)) times the covariance,
which one Cholesky factor per penalty inverts, so that ill-conditioned embeddings take as few iterations as white ones.

Shapes: N images, D width, C classes, F = D + 1 rows of weights with the bias as the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sweep.config import Probe
from sweep.probes.data import ProbeData, ProbeResult
from sweep.probes.exact import FitData, Linear, both_fits, result_of

_MEMORY = 10  # pairs of steps and gradient changes
_ITERATIONS = 1000
_TOLERANCE = 1e-7  # nats: expected decrease of the loss at which it has converged; float32 sees hardly less
_SUFFICIENT = 1e-4  # share of the expected decrease that a step must bring
_HALVINGS = 30


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
    selection, full = (_path(fit, recipes) for fit in both_fits(data, layer, recipes[0]))
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
            results.append(replace(result_of(data, layer, chooser, probe), layer=layer, recipe=number))
    return results


def _path(fit: FitData, recipes: Sequence[Probe]) -> list[Linear | None]:
    """The probe of each recipe, from the strongest penalty to the weakest; None if it does not converge."""
    problem = _Problem(fit, recipes[0].label_smoothing)
    theta_FC = fit.x_ND.new_zeros(fit.x_ND.shape[1] + 1, fit.classes)
    found: list[Linear | None] = [None] * len(recipes)
    for number in sorted(range(len(recipes)), key=lambda n: -recipes[n].weight_decay):
        theta_FC, converged = _minimise(problem, theta_FC, recipes[number].weight_decay)
        if not converged:
            theta_FC = torch.zeros_like(theta_FC)  # the next one starts anew
            continue
        found[number] = fit.linear(theta_FC[:-1], theta_FC[-1])
    return found


class _Problem:
    """Loss and gradient of one fit, and the metric in which to descend."""

    def __init__(self, fit: FitData, smoothing: float) -> None:
        self._x_ND, self._labels_N1 = fit.x_ND, fit.labels_N.unsqueeze(1)
        self._smoothing, self._classes = smoothing, fit.classes
        n = len(fit.x_ND)
        self._covariance_DD = fit.x_ND.T @ fit.x_ND / n
        self._logits_NC = fit.x_ND.new_empty(n, fit.classes)

    def metric(self, penalty: float) -> Tensor:
        """Cholesky factor of the Hessian that all probabilities equal would give, but for the bias."""
        curvature = (1 - 1 / self._classes) / self._classes
        hessian_DD = curvature * self._covariance_DD
        ridge = penalty + 1e-6 * float(hessian_DD.diagonal().mean()) + 1e-30
        hessian_DD.diagonal().add_(ridge)
        factor_DD, failed = torch.linalg.cholesky_ex(hessian_DD)
        if int(failed):  # rounding: let the diagonal alone decide
            factor_DD = torch.diag(hessian_DD.diagonal().sqrt())
        return factor_DD

    def natural(self, factor_DD: Tensor, gradient_FC: Tensor) -> Tensor:
        """A gradient, times the inverse of the metric."""
        curvature = (1 - 1 / self._classes) / self._classes
        step_DC = torch.cholesky_solve(gradient_FC[:-1], factor_DD)
        return torch.cat([step_DC, gradient_FC[-1:] / curvature])

    def value(self, theta_FC: Tensor, penalty: float) -> tuple[float, Tensor]:
        """Loss in nats with its penalty, and its gradient."""
        n = len(self._x_ND)
        logits_NC = torch.addmm(theta_FC[-1], self._x_ND, theta_FC[:-1], out=self._logits_NC)
        normaliser_N1 = logits_NC.logsumexp(1, keepdim=True)
        expected_N1 = (1 - self._smoothing) * logits_NC.gather(1, self._labels_N1)
        expected_N1 += self._smoothing * logits_NC.mean(1, keepdim=True)
        loss = (normaliser_N1 - expected_N1).mean(dtype=torch.float64)
        gradient_NC = logits_NC.sub_(normaliser_N1).exp_().sub_(self._smoothing / self._classes)
        gradient_NC.scatter_add_(1, self._labels_N1, gradient_NC.new_full((1, 1), self._smoothing - 1).expand(n, 1))
        weight_DC = theta_FC[:-1]
        slope_DC = torch.addmm(weight_DC, self._x_ND.T, gradient_NC, beta=penalty, alpha=1 / n)
        loss += 0.5 * penalty * weight_DC.square().sum(dtype=torch.float64)
        return float(loss), torch.cat([slope_DC, gradient_NC.mean(0, keepdim=True)])


def _minimise(problem: _Problem, theta_FC: Tensor, penalty: float) -> tuple[Tensor, bool]:
    """L-BFGS with backtracking (Nocedal and Wright, algorithm 7.5); whether it converged."""
    factor_DD = problem.metric(penalty)
    loss, gradient_FC = problem.value(theta_FC, penalty)
    pairs: list[tuple[Tensor, Tensor, float]] = []  # step, change of the gradient, their product
    for _ in range(_ITERATIONS):
        direction_FC = -_descent(problem, factor_DD, pairs, gradient_FC)
        expected = -float((gradient_FC * direction_FC).sum(dtype=torch.float64))
        if expected <= 2 * _TOLERANCE:
            return theta_FC, True
        found = _search(problem, theta_FC, direction_FC, loss, expected, penalty)
        if found is None:  # float32 sees no decrease along the direction: as far as it goes, if that is far enough
            return theta_FC, expected <= 1e3 * _TOLERANCE
        step_FC, loss, new_FC = found
        change_FC = new_FC - gradient_FC
        product = float((step_FC * change_FC).sum(dtype=torch.float64))
        if product > 0:
            pairs = [*pairs, (step_FC, change_FC, product)][-_MEMORY:]
        theta_FC, gradient_FC = theta_FC + step_FC, new_FC
    return theta_FC, False


def _descent(problem: _Problem, factor_DD: Tensor, pairs: list[tuple[Tensor, Tensor, float]], g_FC: Tensor) -> Tensor:
    """The gradient, times the inverse Hessian as the last steps show it (two-loop recursion)."""
    q_FC, shares = g_FC.clone(), []
    for step_FC, change_FC, product in reversed(pairs):
        share = (step_FC * q_FC).sum() / product
        q_FC -= share * change_FC
        shares.append(share)
    r_FC = problem.natural(factor_DD, q_FC)
    if pairs:
        _, change_FC, product = pairs[-1]
        r_FC *= product / (change_FC * problem.natural(factor_DD, change_FC)).sum()
    for (step_FC, change_FC, product), share in zip(pairs, reversed(shares), strict=True):
        r_FC += step_FC * (share - (change_FC * r_FC).sum() / product)
    return r_FC


def _search(
    problem: _Problem, theta_FC: Tensor, direction_FC: Tensor, loss: float, expected: float, penalty: float
) -> tuple[Tensor, float, Tensor] | None:
    """Halve the step until the loss falls enough: the step, the new loss and gradient; None if it never does."""
    size = 1.0
    for _ in range(_HALVINGS):
        step_FC = size * direction_FC
        new, gradient_FC = problem.value(theta_FC + step_FC, penalty)
        if new <= loss - _SUFFICIENT * size * expected:  # False for a loss that is not a number
            return step_FC, new, gradient_FC
        size /= 2
    return None
