"""Everything that is estimated of one outcome: fit, effects of the variables, interactions. Typed values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis.design import points, ties
from analysis.design.levels import Level, unit_of
from analysis.design.points import Index, shown
from analysis.estimates import additive, effects, heldout, interactions, resampling, shap_values, trees
from analysis.estimates.additive import Additive
from analysis.estimates.effects import Effect
from analysis.estimates.estimate import CONFIRMED, INTERACTIONS, basic_interval, holm, number
from analysis.estimates.interactions import Interaction
from analysis.estimates.pairs import CLUSTER, Backbones
from analysis.estimates.resampling import SHUFFLED, Draws
from analysis.estimates.shap_values import Part
from analysis.estimates.trees import Attribution, Task
from analysis.tables.experiments import Experiments
from analysis.tables.names import Target
from analysis.tables.variables import Array, Variable, level_text

MOST_FOLDS, FEW_FOLDS = 64, 10  # clusters left out one by one, or of many (of a large table: of more) in groups
MOST_LEVELS = 40  # of a variable whose mean SHAP values are listed level by level


@dataclass(frozen=True)
class Fitted:
    """One target with its fits; ``problem`` says why there are none."""

    target: Target
    task: Task
    additive: Additive
    problem: str | None
    attribution: Attribution | None = None
    draws: Mapping[str, Draws] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """How much the variables explain: R² in sample, its ceiling, on what was not fitted, and under shuffling.

    ``out_of_fold``: configurations not fitted; ``by_backbone``, ``by_cluster``, ``by_dataset``: these not fitted.
    ``global_p``: share of shuffles between backbones that explain as much.
    """

    in_sample: float | None = None
    ceiling: float | None = None
    out_of_fold: float | None = None
    by_backbone: float | None = None
    by_cluster: float | None = None
    by_dataset: float | None = None
    cluster: str = ""
    n_clusters: int | None = None
    cluster_folds: int | None = None
    rows: int = 0
    shuffled_95: float | None = None
    global_p: float | None = None


@dataclass(frozen=True)
class Slope:
    """SHAP slope and importance of one variable, in the model's unit."""

    variable: str
    label: str
    part: str
    low_level: str
    high_level: str
    n_levels: int
    slope: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    mean_abs_shap: float | None
    rank: int
    rank_share: float | None
    interventional: float | None
    level_effects: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class Outcome:
    """What is known of one outcome."""

    target: Target
    n_experiments: int
    n_backbones: int
    n_points: int
    mean: float | None
    problem: str | None
    seeds: int | None = None
    quality: Quality = field(default_factory=Quality)
    slopes: tuple[Slope, ...] = ()
    effects: tuple[Effect, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    parts: tuple[Part, ...] = ()
    strengths: tuple[tuple[float, ...], ...] = ()
    interaction_share: float | None = None
    exploratory: bool = False


def problem(job: Task) -> str | None:
    """Why a target cannot be attributed at all; None if it can."""
    design = job.design
    if not design.names:
        return "no variable takes more than one value in this table"
    if design.n_points < 2:
        return "all experiments with this outcome have the same configuration"
    if np.ptp(job.raw_N) == 0:
        return "the outcome is the same in every experiment"
    return None


def prepared(experiments: Experiments, variables: Sequence[Variable], target: Target, protocol: str) -> Fitted:
    """A target ready to be fitted."""
    design = points.build(
        experiments.frame, variables, target.name,
        clusters=experiments.clusters, context=experiments.context, parts=experiments.parts,
    )  # fmt: skip
    apart = additive.fit(design)
    bound = ties.of(design)
    job = trees.task(design, bound, protocol=protocol, scale=target.scale, effect_D=apart.effect_D)
    return Fitted(target, job, apart, problem(job))


def kinds(made: Fitted) -> list[str]:
    """Per term, the name of the level that its interval rests on, whose units are resampled."""
    design = made.task.design
    return [unit_of(design.levels, shown(design, term[0])).level.name for term in made.task.terms]


def backbones(experiments: Experiments, fits: Sequence[Fitted]) -> Backbones:
    """What matched pairs are made of, from the table of experiments."""
    first = experiments.frame.drop_duplicates("backbone").reset_index(drop=True)
    position = pd.Series(np.arange(len(first)), index=first["backbone"].astype(str))
    columns = [*experiments.variables, *experiments.context, *experiments.replicates]
    factors = {name: pd.factorize(first[name]) for name in columns}
    code = {name: codes.astype(np.int64) for name, (codes, _) in factors.items()}
    level = None
    for name, column in experiments.clusters.items():
        unit_B, names = pd.factorize(first[column].astype(str), sort=True)
        if level is None or len(names) > level.n_units:
            level = Level(name, unit_B.astype(np.int64), tuple(map(str, names)))
    if level is not None:
        code[CLUSTER] = level.unit_B
    outcome_DB, mean_B = {}, {}
    for made in fits:
        design, own = made.task.design, additive.by_dataset(made.task.design)
        at = position[list(design.backbones)].to_numpy()
        outcome_DB[made.target.name] = _spread(own, at, len(first))
        mean_B[made.target.name] = _spread(made.additive.mean_B[None], at, len(first))[0]
    return Backbones(
        code, {name: pd.Index(values) for name, (_, values) in factors.items()}, outcome_DB, mean_B, level,
        (*experiments.variables, *experiments.context), experiments.replicates,
    )  # fmt: skip


def _spread(values_XB: Array, at: Index, size: int) -> Array:
    result = np.full((len(values_XB), size), np.nan)
    result[:, at] = values_XB
    return result


def estimated(
    made: Fitted, table: Backbones, declared: Mapping[str, tuple[str, ...]], *, exploratory: bool, jobs: int
) -> Outcome:
    """Everything that is estimated of one outcome; what is searched for is corrected later (:func:`corrected`)."""
    job, design, y_N = made.task, made.task.design, made.task.design.outcome_N
    head = Outcome(
        made.target, len(y_N), len(design.point_B), design.n_points, number(y_N.mean()) if len(y_N) else None,
        made.problem, exploratory=exploratory,
    )  # fmt: skip
    fitted = made.attribution
    if fitted is None:
        return head
    found = [
        effects.of_term(job, k, made.additive, table, made.target.name, fitted, made.draws, declared, made.target.scale)
        for k in range(len(job.terms))
    ]
    searched = [] if declared else interactions.found(design, job.ties, made.additive.mean_B)
    matrix, share = interactions.strengths(job) if len(design.names) > 1 else (np.zeros((0, 0)), None)
    return replace(
        head,
        seeds=len(fitted.slope_SV),
        quality=_quality(job, fitted, made.draws, jobs=jobs),
        slopes=_slopes(made, fitted),
        effects=tuple(found),
        interactions=tuple(searched),
        parts=shap_values.joint_parts(job, fitted),
        strengths=tuple(tuple(map(float, row)) for row in matrix),
        interaction_share=number(share),
    )


def _quality(job: Task, fitted: Attribution, draws: Mapping[str, Draws], *, jobs: int) -> Quality:
    design = job.design
    clusters = [level for level in design.levels[:-1] if level.names]
    finest = clusters[-1] if clusters else None
    several = finest is not None and finest.n_units > 1
    most = MOST_FOLDS if design.n_points <= trees.LARGE else FEW_FOLDS
    folds = min(finest.n_units, most) if finest is not None and several else 0
    group_N = finest.unit_B[design.backbone_N] if finest is not None else design.backbone_N
    shuffled = draws[SHUFFLED].r2_R if SHUFFLED in draws else np.array([])
    return Quality(
        in_sample=number(fitted.r2_in_sample),
        ceiling=number(fitted.r2_ceiling),
        out_of_fold=number(heldout.held_out(job, design.point_N, jobs=jobs)),
        by_backbone=number(heldout.held_out(job, design.backbone_N, jobs=jobs)),
        by_cluster=number(heldout.held_out(job, group_N, folds=folds, jobs=jobs)) if several else None,
        by_dataset=number(heldout.held_out(job, design.dataset_N, folds=MOST_FOLDS, jobs=jobs)),
        cluster=finest.name if finest is not None else "",
        n_clusters=finest.n_units if finest is not None else None,
        cluster_folds=folds or None,
        rows=len(heldout.held_out_rows(job)),
        shuffled_95=number(np.percentile(shuffled, 95)) if len(shuffled) else None,
        global_p=resampling.global_p(fitted.r2_in_sample, draws),
    )


def _slopes(made: Fitted, fitted: Attribution) -> tuple[Slope, ...]:
    """One entry per variable, in the model's unit; the most important first."""
    job, weight_P = made.task, made.task.counts()
    importance_V = (weight_P / weight_P.sum()) @ np.abs(fitted.shap_PV)
    rank_V = resampling.ranks(importance_V)
    by_level = {name: draw for name, draw in made.draws.items() if name != SHUFFLED}
    interventional_V = shap_values.interventional_slopes(job)
    owner = {v: k for k, term in enumerate(job.terms) for v in term}
    units = kinds(made)
    entries = []
    for v in np.argsort(rank_V):
        variable, value = job.design.variables[v], float(fitted.slope_SV[:, v].mean())
        draw = by_level.get(units[owner[int(v)]])
        low, high = basic_interval(value, draw.slope_RV[:, v]) if draw is not None else (None, None)
        share = None if draw is None else number(resampling.rank_share(importance_V, draw)[v])
        entries.append(
            Slope(
                variable.name, variable.label, job.design.parts.get(variable.name, ""),
                level_text(variable.levels[0]), level_text(variable.levels[-1]), len(variable.levels),
                number(value), low, high,
                number(fitted.slope_SV[:, v].std(ddof=1)) if len(fitted.slope_SV) > 1 else None,
                number(importance_V[v]), int(rank_V[v]), share, number(interventional_V[v]),
                _level_effects(job, fitted.shap_PV[:, v], int(v)),
            )
        )  # fmt: skip
    return tuple(entries)


def _level_effects(job: Task, shap_P: Array, v: int) -> tuple[tuple[str, float | None], ...]:
    """Mean SHAP value of each level of a variable over its experiments."""
    variable, weight_P, code_P = job.design.variables[v], job.counts(), job.design.code_PV[:, v]
    codes = np.unique(code_P[np.isfinite(code_P)])
    if len(codes) > MOST_LEVELS:
        return ()
    numbers = points.level_numbers(variable, codes)
    return tuple(
        (level_text(variable.levels[k]), number(np.average(shap_P[code_P == at], weights=weight_P[code_P == at])))
        for k, at in zip(numbers, codes, strict=True)
    )


def corrected(outcome: Outcome) -> Outcome:
    """The outcome after correction: its variables are one family, its interactions, which are searched for, another."""
    own = effects.family(list(outcome.effects), CONFIRMED, outcome.exploratory)
    adjusted = holm([interaction.estimate.p for interaction in outcome.interactions], share=INTERACTIONS)
    told = tuple(i.corrected(p) for i, p in zip(outcome.interactions, adjusted, strict=True))
    return replace(outcome, effects=tuple(own), interactions=told)
