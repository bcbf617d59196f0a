"""(c) The lbfgs solver against scikit-learn's logistic regression, one layer at a time, to the same loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from sweep.config.recipe import Probe
from sweep.probes import lbfgs
from sweep.probes.data import ProbeData
from sweep.probes.exact import fit_data
from sweep.probes.fit import fit_probes

from . import machine
from .report import table
from .shapes import Case, synthetic

SOLVER = "lbfgs"
CPU = torch.device("cpu")
_SEED = 3
_STRENGTH = 1e-3  # L2 on the mean loss; scikit-learn's C is its inverse over N
_SAME = 1e-4  # share by which scikit-learn's objective may exceed ours and still be called the same
_TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7)  # scikit-learn's default, and tighter until its objective is as low as ours


@dataclass(frozen=True)
class Solved:
    """A case: variances of the embeddings' directions fall as 1/k, as those of networks about do, or are equal."""

    case: Case
    white: bool = False

    @property
    def name(self) -> str:
        """With the kind of embeddings where it is not the usual one."""
        return self.case.name + (", white" if self.white else "")


STUDY = [
    Solved(Case("vit_tiny_plus_patch8-c10", (192,) * 18, 10, 5_000, 1_000, 1)),
    Solved(Case("vit_tiny_plus_patch8-c100", (192,) * 18, 100, 5_000, 1_000, 1)),
    Solved(Case("resnet34-w512-c100", (512,) * 8, 100, 5_000, 1_000, 1)),
    Solved(Case("resnet34-w2048-c100", (2048,) * 2, 100, 5_000, 1_000, 1)),
    Solved(Case("vit_tiny_plus_patch8-c100", (192,) * 18, 100, 5_000, 1_000, 1), white=True),
    Solved(Case("resnet34-w2048-c100", (2048,) * 2, 100, 5_000, 1_000, 1), white=True),
]
QUICK = [Solved(Case("quick-lbfgs-w192-c100", (192,) * 4, 100, 2_000, 500, 1))]


def run(*, quick: bool, cases: Sequence[Solved] | None = None) -> dict[str, Any]:
    """Measure all cases."""
    cases = cases if cases is not None else QUICK if quick else STUDY
    return {"cases": [measure(case) for case in cases]}


def measure(solved: Solved) -> dict[str, Any]:
    """Seconds of both for all layers (scikit-learn: one layer, scaled), objectives of the full fit, and the ratio.

    scikit-learn's tolerance is its default, or the first tighter one at which its objective is as low as ours.
    """
    case = solved.case
    data = embeddings(case, white=solved.white)
    recipe = Probe.model_validate({"solver": SOLVER, "weight_decay": _STRENGTH, "label_smoothing": 0.0})
    with machine.peak_memory(CPU) as memory:
        seconds, (first, *_) = machine.timed(lambda: fit_probes(data, recipe, seed=_SEED), device=CPU)
    ours = objective(data)
    for tolerance in _TOLERANCES:
        with threadpool_limits(torch.get_num_threads()):
            one, fitted = machine.timed(partial(scikit, data, 0, tolerance=tolerance), device=CPU, repeats=1)
        if fitted.objective <= ours * (1 + _SAME):
            break
    if first.problem is not None or abs(ours - fitted.objective) > 10 * _SAME * ours:
        raise RuntimeError(f"{case.name}: objectives {ours:.6f} ({first.problem}) and {fitted.objective:.6f} differ")
    return {
        "name": solved.name,
        "white": solved.white,
        "layers": len(case.widths),
        "seconds": seconds,
        "scikit_seconds": one * len(case.widths),
        "scikit_tolerance": tolerance,
        "ratio": one * len(case.widths) / seconds,
        "objective": ours,
        "scikit_objective": fitted.objective,
        "abs_diff_points": 100 * abs(first.top1 - fitted.top1),
        "peak_bytes": memory.extra_bytes,
    }


def embeddings(case: Case, *, white: bool) -> ProbeData:
    """Synthetic embeddings, turned and stretched unless they are to be white."""
    data = synthetic(case, device=CPU)
    if white:
        return data
    generator, width = torch.Generator().manual_seed(_SEED), case.widths[0]
    turn_DD, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    scale_D = torch.arange(1, width + 1).float().rsqrt()
    stretch_DD = scale_D[:, None] * math.sqrt(width / float(scale_D.square().sum())) * turn_DD
    parts = {
        part: [(emb_ND.float() @ stretch_DD).half() for emb_ND in getattr(data, part)] for part in ("train", "test")
    }
    return replace(data, **parts)


@torch.inference_mode()
def objective(data: ProbeData) -> float:
    """Of our full fit of the first layer: mean loss and penalty, nats."""
    fit = fit_data(data, 0, Probe(), torch.ones_like(data.heldout_N))
    problem = lbfgs._Problem(fit, 0.0)
    start_CF = fit.x_ND.new_zeros(data.classes, fit.x_ND.shape[1] + 1)
    return problem.value(lbfgs._minimise(problem, start_CF, _STRENGTH)[0], _STRENGTH)[0]


@dataclass(frozen=True)
class Scikit:
    """Objective (nats) and test top-1 of the full fit."""

    objective: float
    top1: float


def scikit(data: ProbeData, layer: int, *, tolerance: float) -> Scikit:
    """Both fits of one layer."""
    x_ND, labels_N = data.train[layer].float().numpy(), data.train_labels_N.numpy()
    fit_N = ~data.heldout_N.numpy()
    _regression(int(fit_N.sum()), tolerance).fit(x_ND[fit_N], labels_N[fit_N])
    full = _regression(len(x_ND), tolerance).fit(x_ND, labels_N)
    right_N = full.predict(data.test[layer].float().numpy()) == data.test_labels_N.numpy()
    loss = log_loss(labels_N, full.predict_proba(x_ND)) + _STRENGTH / 2 * float((full.coef_**2).sum())
    return Scikit(float(loss), float(np.mean(right_N)))


def _regression(n: int, tolerance: float) -> LogisticRegression:
    return LogisticRegression(C=1 / (_STRENGTH * n), solver="lbfgs", max_iter=10_000, tol=tolerance)


def markdown(result: dict[str, Any]) -> str:
    """A table."""
    rows = [
        [
            case["name"],
            str(case["layers"]),
            f"{case['seconds']:.2f}",
            f"{case['ratio']:.1f}",
            f"{case['scikit_tolerance']:g}",
            f"{case['objective']:.5f}",
            f"{case['scikit_objective']:.5f}",
            f"{case['abs_diff_points']:.2f}",
        ]
        for case in result["cases"]
    ]
    intro = (
        f"(c) `lbfgs` against scikit-learn's `LogisticRegression` at the same L2 strength ({_STRENGTH:g} on the mean "
        "loss), at scikit-learn's default tolerance or the first tighter one that brings its objective within "
        f"{_SAME:g} of ours; selection fit and full fit of one layer, scaled to all. Variances of the embeddings' "
        "directions fall as 1/k, about as those of networks do; white embeddings are shown besides: there both take "
        "few iterations, whose matmuls are most of the time, and the target does not ask for them.\n"
    )
    head = ["case", "layers", "s", "÷ (c)", "tolerance of (c)", "objective", "of (c)", "Δ top-1, points"]
    return "\n".join([intro, table(head, rows)])
