"""How large is the effect of the probe's solver, what does each cost, and is the converged one what it says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import mean
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from sweep.config import PENALTIES, Probe
from sweep.probes import ProbeData, ProbeResult, fit_probes

from . import machine, real, solver_floor
from .report import table
from .shapes import chosen_layers

CPU = torch.device("cpu")
CONVERGED = Probe(solver="converged", standardize="feature", label_smoothing=0.0, penalties=PENALTIES["converged"])
SOLVERS: Mapping[str, Sequence[Probe]] = {
    "AdamW 30": [Probe()],
    "AdamW auto": [Probe(epochs="auto")],
    "AdamW 30, standardised": [Probe(standardize="feature")],
    "ridge": [Probe(solver="ridge", standardize="feature", weight_decay=penalty) for penalty in PENALTIES["ridge"]],
    "converged": [CONVERGED],
}
SEED = 3
_Part: TypeAlias = tuple[np.ndarray, np.ndarray, float, float]  # images, labels, penalty, share of λ ‖W‖ that is left
_TIMED = ("AdamW 30", "converged")  # whose ratio is a result: twice, the faster counts
_MANY = 50  # classes from which on the float64 fit takes minutes: one layer of a curve, and not with scikit-learn


def run(*, quick: bool, cases: Sequence[real.Curve] | None = None) -> dict[str, Any]:
    """Measure all curves."""
    curves = cases if cases is not None else real.QUICK if quick else list(real.curves())
    return {"cases": [measure(curve, real.embeddings(curve)) for curve in curves]}


def measure(curve: real.Curve, data: ProbeData) -> dict[str, Any]:
    """One curve, all layers, by every solver.

    ``retained`` (%) and ``peak`` (layer, 1 is the first) by solver, the peak found on held-out images; ``rank_order``:
    Spearman's correlation of the layers' test accuracies with those of the converged solver; ``left``: median share of
    the gradient that AdamW leaves; ``ratio_to_adamw30``: seconds of the converged solver, path and both fits, over
    those of AdamW; ``passes``: of the converged solver over a layer's images, all its fits together, mean over layers
    (AdamW's two fits make 60); ``floor_seconds``: of these passes as bare operators, see :mod:`.solver_floor`, and
    ``floor_share`` of the solver's seconds; ``auto_epochs``: median over layers that AdamW auto ran;
    ``ratio_sklearn``: seconds of scikit-learn for the same penalties and fits over ours, one layer, see
    :func:`_sklearn`;
    ``agreement``: least share of a layer's test images on which a float64 fit by SciPy predicts the same.
    """
    seconds, found = {}, {}
    for name, recipes in SOLVERS.items():
        seconds[name], results = machine.timed(
            lambda recipes=recipes: fit_probes(data, recipes, seed=SEED), device=CPU, repeats=1 + (name in _TIMED)
        )
        found[name] = [result for result in results if result.chosen]
    converged = found["converged"]
    passed = solver_floor.images_passed(data, CONVERGED, seed=SEED)
    floor = solver_floor.floor_seconds(data, passed)
    layers = [len(converged) // 2, len(converged) - 1] if data.classes < _MANY else [len(converged) // 2]
    return {
        "name": curve.name,
        "depth": curve.depth,
        "dataset": curve.dataset,
        "layers": len(converged),
        "images": len(data.train_labels_N),
        "classes": data.classes,
        "seconds": seconds,
        "passes": sum(passed.values()) / len(data.train_labels_N) / len(converged),
        "floor_seconds": floor,
        "floor_share": floor / seconds["converged"],
        "ratio_to_adamw30": seconds["converged"] / seconds["AdamW 30"],
        **(_sklearn(data, converged) if data.classes < _MANY else {"ratio_sklearn": None}),
        "retained": {name: retained(results) for name, results in found.items()},
        "peak": {name: peak(results) + 1 for name, results in found.items()},
        "rank_order": {name: _rank_order(results, converged) for name, results in found.items()},
        "left": float(np.median([result.gradient_norm for result in found["AdamW 30"]])),
        "auto_epochs": float(np.median([result.epochs_run for result in found["AdamW auto"]])),
        "late": float(np.mean([result.epoch_chosen >= 26 for result in found["AdamW 30"]])),
        "all_converged": all(result.converged for result in converged),
        "agreement": min(agreement(data, layer, converged[layer]) for layer in layers),
    }


def peak(results: Sequence[ProbeResult]) -> int:
    """The layer of highest held-out accuracy, the first of equal ones."""
    return int(np.argmax([result.heldout_top1 for result in results]))


def retained(results: Sequence[ProbeResult]) -> float:
    """% of the peak's test accuracy that the last layer has."""
    return 100 * results[-1].top1 / results[peak(results)].top1


def _rank_order(results: Sequence[ProbeResult], converged: Sequence[ProbeResult]) -> float:
    return float(spearmanr([r.top1 for r in results], [r.top1 for r in converged]).statistic)


def _standardised(data: ProbeData, layer: int) -> tuple[np.ndarray, np.ndarray]:
    x_ND, test_ND = (part[layer].double().numpy() for part in (data.train, data.test))
    spread_D = x_ND.std(0)
    scale_D = np.divide(1, spread_D, out=np.zeros_like(spread_D), where=spread_D > 1e-12 * abs(x_ND.mean(0)))
    return (x_ND - x_ND.mean(0)) * scale_D, (test_ND - x_ND.mean(0)) * scale_D


def agreement(data: ProbeData, layer: int, result: ProbeResult) -> float:
    """Share of test images that a float64 fit at the same penalty gets right or wrong as ours does."""
    x_ND, test_ND = _standardised(data, layer)
    labels_N, penalty = data.train_labels_N.numpy(), result.penalty
    (n, width), target_NC = x_ND.shape, np.eye(data.classes)[data.train_labels_N.numpy()]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta_FC = flat.reshape(width + 1, -1)
        logp_NC = log_softmax(x_ND @ theta_FC[:-1] + theta_FC[-1], axis=1)
        left_NC = (np.exp(logp_NC) - target_NC) / n
        slope_FC = np.vstack([x_ND.T @ left_NC + penalty * theta_FC[:-1], left_NC.sum(0)])
        loss = -logp_NC[np.arange(n), labels_N].mean() + penalty / 2 * (theta_FC[:-1] ** 2).sum()
        return loss, slope_FC.ravel()

    options = {"gtol": 1e-6 * penalty**0.5, "ftol": 1e-13, "maxiter": 3000, "maxfun": 6000}
    found = minimize(objective, np.zeros((width + 1) * data.classes), jac=True, method="L-BFGS-B", options=options)
    theta_FC = found.x.reshape(width + 1, -1)
    right_N = (test_ND @ theta_FC[:-1] + theta_FC[-1]).argmax(1) == data.test_labels_N.numpy()
    ours_N = np.unpackbits(np.frombuffer(result.correct, np.uint8), count=len(right_N)).astype(bool)
    return float((ours_N == right_N).mean())


def _sklearn(data: ProbeData, converged: Sequence[ProbeResult]) -> dict[str, float]:
    """Of the last layer, one thread each: scikit-learn's seconds over ours.

    It fits the penalties that we tried, each warm from the last, then all images. ``ratio_sklearn`` is at about our
    gradient, ``ratio_sklearn_default`` at its default tolerance; ``gradient``, ``gradient_default``: what these leave
    of the last fit, in the unit of ours, ‖gradient‖ / (λ ‖W‖), which asks for 0.02 at most. ``passes_sklearn``,
    ``passes_one``: of it, by its own count of iterations, and of ours; ``floor_share_sklearn``, ``floor_share_one``: of
    these passes as bare operators, in the seconds of each; ``ratio_floors``: the first floor over ours.
    """
    one = chosen_layers(data, [len(converged) - 1])
    ours, (result,) = machine.timed(lambda: fit_probes(one, CONVERGED, seed=SEED), device=CPU)
    x_ND, _ = _standardised(data, len(converged) - 1)
    x_ND, labels_N, fit_N = x_ND.astype(np.float32), data.train_labels_N.numpy(), ~data.heldout_N.numpy()
    parts = [(x_ND[fit_N], labels_N[fit_N], penalty, 0.1) for penalty in result.penalties]
    parts.append((x_ND, labels_N, result.penalty, 0.02))
    found = {"ours": ours}
    with threadpool_limits(1):  # ours has one layer here, and with it one thread
        default = _fit_all(parts, [1e-4] * len(parts))
        same = _fit_all(parts, [share * _entry(*fit) for (*_, share), fit in zip(parts, default["all"], strict=True)])
    for suffix, fits in (("", same), ("_default", default)):
        found[f"ratio_sklearn{suffix}"] = fits["seconds"] / ours
        found[f"gradient{suffix}"] = _gradient_left(*parts[-1][:3], fits["all"][-1][0])
    return found | _floors(one, parts, same, ours)


def _floors(one: ProbeData, parts: Sequence[_Part], same: dict[str, Any], ours: float) -> dict[str, float]:
    """Passes and floors of one layer, of scikit-learn at our gradient and of ours."""
    n, passed = len(one.train_labels_N), solver_floor.images_passed(one, CONVERGED, seed=SEED)
    theirs = solver_floor.sklearn_images_passed(same["all"], [len(x_ND) for x_ND, *_ in parts]) / n
    x_ND, labels_N, *_ = parts[-1]
    floor_sklearn = theirs * solver_floor.sklearn_pass_seconds(x_ND, labels_N, one.classes)
    floor = solver_floor.floor_seconds(one, passed)
    return {
        "passes_sklearn": theirs,
        "passes_one": sum(passed.values()) / n,
        "floor_share_sklearn": floor_sklearn / same["seconds"],
        "floor_share_one": floor / ours,
        "ratio_floors": floor_sklearn / floor,
    }


def _entry(model: LogisticRegression, penalty: float) -> float:
    """λ ‖W‖ as the largest entry of a gradient: of P entries it is about 4 / √P of the norm."""
    return float(4 / model.coef_.size**0.5 * penalty * np.linalg.norm(model.coef_))


def _fit_all(parts: Sequence[_Part], tolerances: Sequence[float]) -> dict[str, Any]:
    """Each part in turn, warm from the one before: seconds, and (model, penalty) of each."""
    found: list[tuple[LogisticRegression, float]] = []

    def fit() -> None:
        model = LogisticRegression(max_iter=10_000, warm_start=True)
        for (x_ND, labels_N, penalty, _), tolerance in zip(parts, tolerances, strict=True):
            model.set_params(C=1 / (penalty * len(x_ND)), tol=tolerance).fit(x_ND, labels_N)
            found.append((deepcopy(model), penalty))

    seconds, _ = machine.timed(fit, device=CPU, repeats=1)
    return {"seconds": seconds, "all": found[-len(parts) :]}


def _gradient_left(x_ND: np.ndarray, labels_N: np.ndarray, penalty: float, model: LogisticRegression) -> float:
    """‖gradient‖ / (λ ‖W‖) of a fit, float64."""
    weight_CD = model.coef_.astype(np.float64)
    left_NC = np.exp(log_softmax(x_ND @ weight_CD.T + model.intercept_, axis=1))
    left_NC[np.arange(len(labels_N)), labels_N] -= 1
    slope_CD = left_NC.T @ x_ND / len(x_ND) + penalty * weight_CD
    norm = np.hypot(np.linalg.norm(slope_CD), np.linalg.norm(left_NC.mean(0)))
    return float(norm / (penalty * np.linalg.norm(weight_CD)))


def markdown(result: dict[str, Any]) -> str:
    """What the solver does, then every curve."""
    cases = result["cases"]
    rows = [
        [
            case["name"],
            f"{case['images']:,} × {case['classes']}",
            *(f"{case['retained'][name]:.1f} ({case['peak'][name]})" for name in SOLVERS),
            f"{case['rank_order']['AdamW 30']:.2f}",
            f"{case['left']:.2f}",
            f"{case['auto_epochs']:.0f}",
            f"{case['passes']:.0f}",
            f"{case['ratio_to_adamw30']:.2f}",
            f"{case['floor_share']:.0%}",
            *(["–"] * 4 if case["ratio_sklearn"] is None else _beside_sklearn(case)),
            f"{case['agreement']:.2%}",
        ]
        for case in cases
    ]
    head = [
        "curve",
        "images × classes",
        *SOLVERS,
        "rank order",
        "gradient left",
        "epochs of auto",
        "passes",
        "÷ AdamW 30",
        "floor",
        "scikit-learn ÷, our gradient",
        "scikit-learn ÷, its default",
        "passes, one layer: its / ours",
        "floors ÷ (of its, of ours)",
        "agrees",
    ]
    return "\n".join([_summary(cases), "", table(head, rows)])


def _beside_sklearn(case: dict[str, Any]) -> list[str]:
    return [
        *(f"{case['ratio_sklearn' + of]:.1f} ({case['gradient' + of]:.2g})" for of in ("", "_default")),
        f"{case['passes_sklearn']:.0f} / {case['passes_one']:.0f}",
        f"{case['ratio_floors']:.1f} ({case['floor_share_sklearn']:.0%}, {case['floor_share_one']:.0%})",
    ]


def _summary(cases: Sequence[dict[str, Any]]) -> str:
    """Means over the published networks, and the effect of the solver beside that of depth."""
    trained = [case for case in cases if case["depth"] and case["dataset"] != "cifar10"] or list(cases)
    means = "; ".join(f"{name} {mean(case['retained'][name] for case in trained):.1f}" for name in SOLVERS)
    solver = mean(abs(case["retained"]["converged"] - case["retained"]["AdamW 30"]) for case in trained)
    by_set: dict[str, list[float]] = {}
    for case in trained:
        by_set.setdefault(case["dataset"], []).append(case["retained"]["converged"])
    depth = mean(max(values) - min(values) for values in by_set.values())
    ratios = sorted(case["ratio_to_adamw30"] for case in cases)
    floors = sorted(case["ratio_to_adamw30"] * case["floor_share"] for case in cases)
    return (
        "Columns of solvers: % of the peak's test accuracy that the last layer retains, and the peak (layer), found on "
        "held-out images. “Rank order”: Spearman's correlation of layers between AdamW 30 and converged. “Gradient "
        "left”: median over layers, AdamW 30, of the gradient's norm at the end over that at weights of zero. "
        "“Agrees”: test images that a float64 fit by SciPy gets right or wrong as ours does. "
        "“Passes”: over a layer's images, of all fits of the converged solver together; AdamW's two fits make 60. "
        "“Floor”: these passes as bare operators (two matmuls, a softmax, its shapes), as a share of its seconds. "
        "scikit-learn: seconds of `LogisticRegression` for the same penalties and fits over ours, one layer on one "
        "thread, stopped at about our "
        "gradient or by its default tolerance; in brackets what it leaves, ‖gradient‖ / (λ ‖W‖), of which ours is at "
        "most 0.02. “Floors ÷”: its passes, by the iterations that it counts, as bare operators of its own, over ours; "
        "in brackets what share of its and of our seconds they are.\n\n"
        f"% retained on OOD sets, mean over {len(trained)} curves of trained networks: {means}. Between AdamW 30 and "
        f"converged a curve changes by {solver:.1f} points on average; between the shallowest and deepest reading of "
        f"four depths, by the converged solver, by {depth:.1f}. Seconds of the converged solver over AdamW's: median "
        f"{ratios[len(ratios) // 2]:.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}; if its passes were all that it does, "
        f"{floors[len(floors) // 2]:.2f}, {floors[0]:.2f} to {floors[-1]:.2f}."
    )
