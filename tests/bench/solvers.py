"""(c) The lbfgs solver against scikit-learn's logistic regression, one layer at a time, to the same loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from sweep.config import Probe
from sweep.probes import ProbeData, fit_probes

from . import machine
from .report import table
from .shapes import Case, synthetic

SOLVER = "lbfgs"
CPU = torch.device("cpu")
_SEED = 3
_STRENGTH = 1e-3  # L2 on the mean loss; scikit-learn's C is its inverse over N
_SAME_LOSS = 1e-2  # share by which the two training losses may differ and still be called the same
STUDY = [
    Case("vit_tiny_plus_patch8-c10", (192,) * 18, 10, 5_000, 1_000, 1),
    Case("vit_tiny_plus_patch8-c100", (192,) * 18, 100, 5_000, 1_000, 1),
    Case("resnet34-w512-c100", (512,) * 8, 100, 5_000, 1_000, 1),
    Case("resnet34-w2048-c100", (2048,) * 2, 100, 5_000, 1_000, 1),
]
QUICK = [Case("quick-lbfgs-w192-c10", (192,) * 4, 10, 1_000, 500, 1)]


def run(*, quick: bool, cases: Sequence[Case] | None = None) -> dict[str, Any]:
    """Measure all cases."""
    cases = cases if cases is not None else QUICK if quick else STUDY
    return {"cases": [measure(case) for case in cases]}


def measure(case: Case) -> dict[str, Any]:
    """Seconds of both for all layers (scikit-learn: one layer, scaled), their training losses, and the ratio."""
    data = synthetic(case, device=CPU)
    recipe = Probe.model_validate({"solver": SOLVER, "weight_decay": _STRENGTH, "label_smoothing": 0.0})
    with machine.peak_memory(CPU) as memory:
        seconds, (first, *_) = machine.timed(lambda: fit_probes(data, recipe, seed=_SEED), device=CPU)
    with threadpool_limits(torch.get_num_threads()):
        one, fitted = machine.timed(lambda: scikit(data, 0), device=CPU, repeats=1)
    if first.problem is not None or abs(first.train_loss - fitted.loss) > _SAME_LOSS * fitted.loss:
        raise RuntimeError(
            f"{case.name}: training loss {first.train_loss:.5f} ({first.problem}) and scikit-learn's "
            f"{fitted.loss:.5f} are not the same: the two did not solve the same problem"
        )
    return {
        "name": case.name,
        "layers": len(case.widths),
        "seconds": seconds,
        "scikit_seconds": one * len(case.widths),
        "ratio": one * len(case.widths) / seconds,
        "loss": first.train_loss,
        "scikit_loss": fitted.loss,
        "abs_diff_points": 100 * abs(first.top1 - fitted.top1),
        "peak_bytes": memory.extra_bytes,
    }


@dataclass(frozen=True)
class Scikit:
    """Training loss (nats) and test top-1 of the full fit."""

    loss: float
    top1: float


def scikit(data: ProbeData, layer: int) -> Scikit:
    """Both fits of one layer, to scikit-learn's own tolerance."""
    x_ND, labels_N = data.train[layer].float().numpy(), data.train_labels_N.numpy()
    fit_N = ~data.heldout_N.numpy()
    _regression(int(fit_N.sum())).fit(x_ND[fit_N], labels_N[fit_N])
    full = _regression(len(x_ND)).fit(x_ND, labels_N)
    right_N = full.predict(data.test[layer].float().numpy()) == data.test_labels_N.numpy()
    return Scikit(float(log_loss(labels_N, full.predict_proba(x_ND))), float(np.mean(right_N)))


def _regression(n: int) -> LogisticRegression:
    return LogisticRegression(C=1 / (_STRENGTH * n), solver="lbfgs", max_iter=1000)


def markdown(result: dict[str, Any]) -> str:
    """A table."""
    rows = [
        [
            case["name"],
            str(case["layers"]),
            f"{case['seconds']:.2f}",
            f"{case['ratio']:.1f}",
            f"{case['loss']:.4f}",
            f"{case['scikit_loss']:.4f}",
            f"{case['abs_diff_points']:.2f}",
        ]
        for case in result["cases"]
    ]
    intro = (
        f"(c) `lbfgs` against scikit-learn's `LogisticRegression` at the same L2 strength ({_STRENGTH:g} on the mean "
        "loss), to its default tolerance; selection fit and full fit of one layer, scaled to all.\n"
    )
    head = ["case", "layers", "s", "÷ (c)", "training loss", "of (c)", "Δ top-1, points"]
    return "\n".join([intro, table(head, rows)])
