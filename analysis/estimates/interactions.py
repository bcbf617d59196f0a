"""Effects that differ with another variable: tested in the adjusted model; and SHAP interaction strengths.

Legend: V variables, P design points, S sampled design points, B backbones, R rows, K columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from analysis.design.levels import BACKBONE, CONFIGURATION, unit_of
from analysis.design.points import Design, Index, level_numbers, shown
from analysis.design.ties import Ties, columns_of
from analysis.estimates import linear, trees
from analysis.estimates.adjusted import REPLICATED
from analysis.estimates.estimate import Estimate, holm
from analysis.estimates.linear import Fit
from analysis.estimates.trees import Task
from analysis.tables.names import plural
from analysis.tables.variables import Array, level_text

SAMPLED_POINTS, SEEDS = 200, 4
MOST_LEVELS = 3  # of a partner; an ordered one with more is cut into a lower and an upper half
FEWEST_BACKBONES = 4  # at each value of the partner
MOST_BACKBONES = 5000


@dataclass(frozen=True)
class Within:
    """The effect of a variable, lowest to highest, at one value of its partner."""

    level: str
    estimate: Estimate
    backbones: int


@dataclass(frozen=True)
class Interaction:
    """How far the effect of a variable differs between values of a partner.

    Attributes
    ----------
    estimate : difference between the largest and the smallest effect; its p is of all effects being equal.
    """

    variable: str
    partner: str
    low: str
    high: str
    estimate: Estimate
    within: tuple[Within, ...]

    @property
    def opposite(self) -> bool:
        """Whether the difference may be asserted and both signs are more than chance."""
        signs = {w.estimate.value > 0 for w in self.within if w.estimate.asserted and w.estimate.value is not None}
        return self.estimate.asserted and len(signs) == 2

    def corrected(self, p_adjusted: float | None) -> Interaction:
        """The same after correction for all that was searched; effects within are corrected for one another too."""
        inner = holm([w.estimate.p for w in self.within])
        made = []
        for w, p in zip(self.within, inner, strict=True):
            worse = None if p is None or p_adjusted is None else max(p, p_adjusted)
            made.append(replace(w, estimate=w.estimate.corrected(worse)))
        return replace(self, estimate=self.estimate.corrected(p_adjusted), within=tuple(made))


def found(design: Design, ties: Ties, y_B: Array) -> list[Interaction]:
    """Every interaction that the design lets be tested, in the order of the variables."""
    if len(design.point_B) > MOST_BACKBONES:
        return []
    told = {name for bundle in ties.bundles for name in bundle[1:]}
    names = [name for name in design.names if name not in told]
    made = []
    for name in names:
        if not design.variables[design.names.index(name)].has_slope:
            continue
        asked: list[str] = []
        for partner in sorted(names, key=lambda other: len(design.variables[design.names.index(other)].levels)):
            if partner == name or partner in ties.inseparable(name) or set(asked) & set(ties.inseparable(partner)):
                continue  # of partners that go together the one with the fewest levels is asked
            interaction = _tested(design, ties, y_B, name, partner)
            if interaction is not None:
                asked.append(partner)
                made.append(interaction)
    return made


def _tested(design: Design, ties: Ties, y_B: Array, name: str, partner: str) -> Interaction | None:
    v, u = design.names.index(name), design.names.index(partner)
    code_B, other_B = shown(design, v), shown(design, u)
    used = np.flatnonzero(np.isfinite(code_B) & np.isfinite(other_B) & np.isfinite(y_B))
    pieces = list(_pieces(design, u, other_B[used])) if len(used) else []
    if len(pieces) < 2 or not all(_enough(code_B[used][at]) for _, at in pieces):
        return None
    unit = unit_of([level.only(used) for level in design.levels], code_B[used])
    if unit.level.name not in (BACKBONE, CONFIGURATION) and not unit.within:
        return None  # of a property of clusters the other way round is asked
    if not all(_replicated(code_B[used][at], unit.level.unit_B[at], within=unit.within) for _, at in pieces):
        return None
    z_R = (code_B[used] - code_B[used].min()) / np.ptp(code_B[used])
    masks = np.array([at for _, at in pieces]).T.astype(float)
    own = np.column_stack([z_R, z_R[:, None] * masks[:, 1:]])
    absorbed = unit.level if unit.within else unit.fixed
    base = [np.ones((len(used), 1)), masks[:, 1:]]
    if absorbed is not None:
        base.append((absorbed.unit_B[:, None] == np.arange(1, absorbed.n_units)).astype(float))
    cluster = unit.level.unit_B if unit.level.name != BACKBONE else None
    fitted = _fit(design, ties, y_B[used], own, np.column_stack(base), (name, partner), used, cluster)
    if fitted is None:
        return None
    scope = f"{unit.clusters} {plural(unit.fixed.name, unit.clusters)}" if unit.fixed is not None else ""
    informative = unit.level.n_units if not unit.within else _varying(code_B[used], unit.level.unit_B)
    return _described(design, (v, u), pieces, fitted, (unit.level.name, informative, scope))


def _replicated(code_R: Array, unit_R: Index, *, within: bool) -> bool:
    """Whether no unit carries the effect at one value of the partner alone: then no rest would show how far it goes.

    Robust errors take a unit that is fitted exactly for one without error.
    """
    if within:
        return _varying(code_R, unit_R) >= REPLICATED
    first = np.unique(unit_R, return_index=True)[1]
    counts = np.unique(code_R[first], return_counts=True)[1]
    return bool(len(first) - counts.max() >= REPLICATED)


def _varying(code_R: Array, unit_R: Index) -> int:
    return sum(np.ptp(code_R[unit_R == unit]) > 0 for unit in np.unique(unit_R))


def _pieces(design: Design, u: int, code_R: Array) -> Iterator[tuple[str, np.ndarray]]:
    variable = design.variables[u]
    number_R = level_numbers(variable, code_R)
    present = np.unique(number_R)
    if len(present) <= MOST_LEVELS:
        for k in present:
            yield level_text(variable.levels[k]), number_R == k
    elif variable.ordered:
        middle = present[(len(present) - 1) // 2]
        after = present[(len(present) - 1) // 2 + 1]
        yield f"up to {level_text(variable.levels[middle])}", number_R <= middle
        yield f"from {level_text(variable.levels[after])}", number_R >= after


def _enough(code_R: Array) -> bool:
    return len(code_R) >= FEWEST_BACKBONES and bool(np.ptp(code_R) > 0)


def _fit(
    design: Design, ties: Ties, y_R: Array, own: Array, base: Array, pair: tuple[str, str], used: Index,
    cluster: Index | None,
) -> Fit | None:  # fmt: skip
    base = base[:, linear.independent(base[:, :0], base)]
    if not linear.independent(base, own).all():
        return None
    matrix = np.column_stack([own, base])
    for name in design.names:
        if name in pair or name in ties.inseparable(pair[0]):
            continue
        columns = columns_of(design.variables[design.names.index(name)], shown(design, design.names.index(name))[used])
        new = linear.independent(matrix, columns)
        if new.any() and matrix.shape[1] + new.sum() < len(y_R) - 3:
            matrix = np.column_stack([matrix, columns[:, new]])
    return linear.fit(y_R, matrix, cluster) if len(y_R) > matrix.shape[1] + 1 else None


def _described(
    design: Design, pair: tuple[int, int], pieces: list[tuple[str, np.ndarray]], fitted: Fit,
    about: tuple[str, int, str],
) -> Interaction:  # fmt: skip
    unit, n_units, scope = about
    v, u = pair
    size, k = fitted.x_NK.shape[1], len(pieces)
    directions = [np.eye(size)[0] + (np.eye(size)[j] if j else 0) for j in range(k)]
    slopes = [fitted.contrast(c) for c in directions]
    low, high = int(np.argmin([s.value for s in slopes])), int(np.argmax([s.value for s in slopes]))
    apart = fitted.contrast(directions[high] - directions[low])
    method = "product of both in the adjusted model"
    doubts = (f"it is seen within {scope} only",) if scope else ()
    common = {
        "unit": unit, "n_units": n_units, "scope": scope, "method": method, "exploratory": True, "doubts": doubts,
    }  # fmt: skip
    within = tuple(
        Within(text, Estimate(s.value, *s.interval(), p=s.p, df=s.df, **common), int(at.sum()))  # type: ignore[arg-type]
        for (text, at), s in zip(pieces, slopes, strict=True)
    )
    variable = design.variables[v]
    return Interaction(
        variable.name, design.variables[u].name, level_text(variable.levels[0]), level_text(variable.levels[-1]),
        Estimate(apart.value, *apart.interval(), p=fitted.joint_p(np.arange(1, k)), df=apart.df, **common),  # type: ignore[arg-type]
        within,
    )  # fmt: skip


def strengths(job: Task, *, rng_seed: int = 0) -> tuple[Array, float | None]:
    """Mean |SHAP interaction| of each pair of variables, main effects on the diagonal (V, V), and their share.

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
