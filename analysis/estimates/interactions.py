"""SHAP interaction values, and effects whose direction depends on another variable.

Legend: V variables, P design points, S sampled design points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.design import ties
from analysis.estimates import trees
from analysis.estimates.estimate import certain
from analysis.estimates.trees import Attribution, Task
from analysis.tables.variables import Array, level_text

SAMPLED_POINTS, SEEDS = 200, 4
WORTH_SAYING = 0.1  # a flip counts if its smaller side is at least this share of the largest slope
FLIPS_PER_VARIABLE = 2


@dataclass(frozen=True)
class Cut:
    """A slope that is wanted beside the single ones.

    Attributes
    ----------
    variable : the variable on the horizontal axis.
    members : variables whose SHAP values are summed.
    points_P : the design points it is computed on.
    partner, level : the variable that ``points_P`` was cut by, and its value; no partner in a bundle.
    """

    variable: int
    members: tuple[int, ...]
    points_P: np.ndarray
    partner: int | None = None
    level: str = ""


def strengths(job: Task, *, rng_seed: int = 0) -> tuple[Array, float | None]:
    """Mean |interaction| of each pair of variables, main effects on the diagonal (V, V), and the share of interactions.

    At most :data:`SAMPLED_POINTS` design points are used, drawn by their weight; means over up to :data:`SEEDS` seeds.
    """
    weight_P = job.counts() / job.counts().sum()
    rng = np.random.default_rng(rng_seed)
    n_points = job.design.n_points
    chosen = np.arange(n_points) if n_points <= SAMPLED_POINTS else rng.choice(n_points, SAMPLED_POINTS, p=weight_P)
    weight_S = (
        weight_P[chosen] / weight_P[chosen].sum()
        if n_points <= SAMPLED_POINTS
        else np.full(len(chosen), 1 / len(chosen))
    )
    n_variables = len(job.design.variables)
    total_SVV = np.zeros((len(chosen), n_variables, n_variables))
    owners = np.eye(n_variables)[job.owner_F]
    n_seeds = min(SEEDS, trees.seeds(job))
    for seed in range(n_seeds):
        values_SFF = job.fit(seed).interactions(job.x_PF[chosen])
        total_SVV += np.einsum("sfg,fu,gv->suv", values_SFF, owners, owners) / n_seeds
    mean_VV = np.einsum("s,suv->uv", weight_S, np.abs(total_SVV))
    total = float(mean_VV.sum())
    share = 1 - float(np.trace(mean_VV)) / total if total > 0 else None
    return mean_VV, share


def cuts(job: Task, fitted: Attribution) -> list[Cut]:
    """Pairs of variables where the slope of one has opposite signs at low and high values of the other.

    For each variable the partners with the clearest flips, each with all its cuts.
    """
    weight_P = job.counts()
    largest = np.nanmax(np.abs(fitted.slope_SV.mean(0)), initial=0.0)
    found = []
    for v, variable in enumerate(job.design.variables):
        if not variable.has_slope:
            continue
        scored = []
        for u in range(len(job.design.variables)):
            pieces = _pieces(job, v, u) if u != v else []
            slopes = [slope_within(job, fitted.shap_PV, cut, weight_P) for cut in pieces]
            known = [s for s in slopes if np.isfinite(s)]
            score = min(max(known), -min(known)) if len(known) > 1 else 0.0
            if score > WORTH_SAYING * largest:
                scored.append((score, len(pieces), u, pieces))
        scored.sort(key=lambda item: -item[0])
        near = [item for item in scored if item[0] >= 0.7 * scored[0][0]]
        near.sort(
            key=lambda item: (item[1], -item[0])
        )  # of about equal flips the one with fewer values is easier to read
        found += [cut for item in near[:FLIPS_PER_VARIABLE] for cut in item[3]]
    return found


def bundles(job: Task) -> list[Cut]:
    """Variables that move together (|ρ| ≥ :data:`BUNDLED`): one slope for all of each bundle."""
    rho_VV = ties.correlation(job.design)
    tied_VV = np.abs(np.nan_to_num(rho_VV)) >= ties.BUNDLED
    left, found = set(range(len(rho_VV))), []
    while left:
        members, new = set(), {min(left)}
        while new:
            members |= new
            new = {int(u) for v in new for u in np.flatnonzero(tied_VV[v])} - members
        left -= members
        ordered = [v for v in sorted(members) if job.design.variables[v].has_slope]
        if len(ordered) > 1:
            everywhere = np.ones(job.design.n_points, dtype=bool)
            found.append(Cut(min(ordered, key=lambda v: _readable(job, v)), tuple(ordered), everywhere))
    return found


def _readable(job: Task, v: int) -> tuple[bool, bool]:
    """Which variable of a bundle is its axis: a grid variable rather than one derived from parameters or images."""
    name = job.design.names[v]
    return name == "overparametrization", name == "images_per_class"


def _pieces(job: Task, v: int, u: int) -> list[Cut]:
    """Design points by value of the partner: each of up to three values, else the lower and the upper half."""
    code_P, levels = job.design.code_PV[:, u], job.design.variables[u].levels
    if len(levels) <= 3:
        values = (
            np.linspace(0, 1, len(levels))
            if job.design.variables[u].kind != "numeric"
            else np.unique(code_P[np.isfinite(code_P)])
        )
        pieces = [
            Cut(v, (v,), np.isclose(code_P, value), u, level_text(level))
            for level, value in zip(levels, values, strict=True)
        ]
    elif job.design.variables[u].kind == "categorical":
        return []
    else:
        middle = (len(levels) - 1) // 2
        low, high = level_text(levels[middle]), level_text(levels[middle + 1])
        edge = float(np.median(np.unique(code_P[np.isfinite(code_P)])))
        upper = code_P >= edge if len(levels) % 2 == 0 else code_P > edge
        pieces = [
            Cut(v, (v,), np.isfinite(code_P) & ~upper, u, f"up to {low}"),
            Cut(v, (v,), upper, u, f"from {high}"),
        ]
    return [cut for cut in pieces if _varies(job.design.code_PV[cut.points_P, v])]


def _varies(code_P: Array) -> bool:
    known = code_P[np.isfinite(code_P)]
    return bool(len(known)) and bool(np.ptp(known) > 0)


def slope_within(job: Task, shap_PV: Array, cut: Cut, weight_P: Array) -> float:
    """Slope of the cut's summed SHAP values on its variable, among its design points."""
    value_P = shap_PV[:, list(cut.members)].sum(axis=1)
    return trees.slope(job.design.code_PV[:, cut.variable], value_P, weight_P * cut.points_P)


def report(job: Task, found: Sequence[Cut], slopes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Interactions for the report: strongest pairs, share, and flips with the slope at each value of the partner.

    Parameters
    ----------
    slopes : per cut, its slope with intervals (``slope``, ``low``, ``high``, …).
    """
    names = job.design.names
    if len(names) < 2:
        return {"share": None, "variables": list(names), "pairs": [], "flips": [], "matrix": []}
    mean_VV, share = strengths(job)
    pairs: list[dict[str, Any]] = [
        {"first": names[u], "second": names[v], "mean_abs_interaction": float(2 * mean_VV[u, v])}
        for u in range(len(names)) for v in range(u + 1, len(names))
    ]  # fmt: skip
    flips: dict[tuple[str, str], dict[str, Any]] = {}
    for cut, slope in zip(found, slopes, strict=True):
        if cut.partner is not None:
            own, partner = names[cut.variable], names[cut.partner]
            within = {"level": cut.level, **slope, "n_points": int(cut.points_P.sum())}
            flips.setdefault((own, partner), {"variable": own, "partner": partner, "within": []})["within"].append(
                within
            )
    for flip in flips.values():
        signs = {w["slope"] > 0 for w in flip["within"] if certain(w)}
        flip["sure"] = len(signs) == 2
    return {
        "share": share,
        "matrix": mean_VV.tolist(),
        "variables": list(names),
        "pairs": sorted(pairs, key=lambda pair: -pair["mean_abs_interaction"])[:10],
        "flips": list(flips.values()),
    }


def report_bundles(job: Task, found: Sequence[Cut], slopes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Joint slopes of variables that move together."""
    rows = []
    for cut, slope in zip(found, slopes, strict=True):
        if cut.partner is None:
            axis = job.design.variables[cut.variable]
            rows.append({
                "variables": [job.design.names[v] for v in cut.members],
                "axis": axis.name,
                "always": ties.always(job.design, cut.members),
                "from": level_text(axis.levels[0]),
                "to": level_text(axis.levels[-1]),
                **slope,
            })  # fmt: skip
    return rows
