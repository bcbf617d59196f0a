"""One table → one typed Study: estimates and sentences, nothing drawn and nothing written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.design.levels import Level
from analysis.design.ties import Ties
from analysis.estimates import backbones, curves, images, outcome, pairs, resampling, sensitivity, trees
from analysis.estimates.backbones import Overview
from analysis.estimates.continual import Tasks, summarised
from analysis.estimates.curves import Panel
from analysis.estimates.estimate import COMPARISONS, holm, reachable
from analysis.estimates.models import PROTOCOLS
from analysis.estimates.outcome import Fitted, Outcome
from analysis.estimates.pairs import Backbones, Contrast
from analysis.estimates.sensitivity import Survival
from analysis.findings import findings
from analysis.findings.findings import Evidence
from analysis.findings.phrases import Finding
from analysis.progress import Progress, Silent
from analysis.tables.errors import UserError
from analysis.tables.experiments import Experiments
from analysis.tables.variables import Variable, describe, level_text

PERMUTATIONS_PER_RESAMPLE = 0.4  # 200 for 500


@dataclass(frozen=True)
class Options:
    """How to analyse.

    Attributes
    ----------
    bootstrap : resamples; None: what suits the protocol.
    jobs : processes; 0: one per core.
    """

    protocol: str = "default"
    bootstrap: int | None = None
    jobs: int = 0

    def __post_init__(self) -> None:
        for name, value in (("bootstrap", self.bootstrap), ("jobs", self.jobs)):
            if value is not None and value < 0:
                raise UserError(f"--{name} {value}: must be 0 or more")

    @property
    def resamples(self) -> int:
        """Resamples that are made."""
        return PROTOCOLS[self.protocol].resamples if self.bootstrap is None else self.bootstrap

    @property
    def permutations(self) -> int:
        """Shuffles that are made."""
        return round(self.resamples * PERMUTATIONS_PER_RESAMPLE)


@dataclass(frozen=True)
class Study:
    """Everything that is known of a table.

    Attributes
    ----------
    outcomes : by name, the primary one first.
    primary : the outcome that findings speak of; None if none could be attributed.
    levels : what backbones lie in, coarse to fine, of the primary outcome.
    backbones : one row per backbone (:func:`analysis.estimates.backbones.summary`).
    tasks : what backbones that learned several tasks show; None if none did.
    fits : fits behind the outcomes, for figures and the table of SHAP values.
    """

    experiments: Experiments
    options: Options
    variables: tuple[Variable, ...]
    outcomes: Mapping[str, Outcome]
    primary: str | None
    ties: Ties | None
    levels: tuple[Level, ...]
    contrasts: tuple[Contrast, ...]
    backbones: pd.DataFrame
    overview: Overview | None
    survival: tuple[Survival, ...]
    panels: tuple[Panel, ...]
    panels_shown: str
    findings: tuple[Finding, ...]
    fits: Mapping[str, Fitted]
    tasks: Tasks | None = None

    @property
    def n_datasets(self) -> int:
        """OOD datasets."""
        return int(self.experiments.frame["dataset"].nunique())


def analyse(
    experiments: Experiments,
    options: Options,
    *,
    others: Mapping[str, Experiments] | None = None,
    progress: Progress | None = None,
) -> Study:
    """Compute every number of the report.

    Parameters
    ----------
    others : the same sweep under other accuracy rules, to show what survives them.
    """
    progress = progress or Silent()
    experiments = images.with_intervals(experiments) if options.resamples else images.without(experiments)
    experiments = replace(experiments, notes=(*experiments.notes, *_gaps(experiments)))
    variables = describe(
        experiments.frame, experiments.variables, experiments.kinds,
        logs=experiments.logs, references=experiments.references,
    )  # fmt: skip
    fits = _fit(experiments, variables, options, progress)
    progress.stage("comparing backbones")
    table = outcome.backbones(experiments, list(fits.values()))
    primary = next((name for name, made in fits.items() if made.problem is None), None)
    outcomes = {
        name: outcome.estimated(
            made, table, experiments.adjust, exploratory=name != (primary or name), jobs=options.jobs
        )
        for name, made in fits.items()
    }
    contrasts = contrasts_of(table, variables, list(fits))
    outcomes, contrasts = _corrected(outcomes, contrasts)
    progress.stage("what survives")
    survival: tuple[Survival, ...] = ()
    if primary is not None:
        survival = sensitivity.of(experiments, fits[primary], outcomes[primary].effects, others or {})
    summary = backbones.summary(experiments, fits["retained"].additive if "retained" in fits else None)
    shown, caption = curves.panels(experiments)
    first = fits[primary].task if primary is not None else None
    study = Study(
        experiments, options, variables, outcomes, primary, first.ties if first else None,
        first.design.levels if first else (), tuple(contrasts), summary, backbones.overview(summary), survival,
        tuple(shown), caption, (), fits, None if experiments.courses is None else summarised(experiments.courses),
    )  # fmt: skip
    return replace(study, findings=findings.collect(_evidence(study, table)))


def _evidence(study: Study, table: Backbones) -> Evidence:
    experiments, primary = study.experiments, study.outcomes.get(study.primary or "")
    variables = {variable.name: variable for variable in study.variables}
    within = []
    if primary is not None:
        for interaction in primary.interactions:
            variable, partner = variables[interaction.variable], variables[interaction.partner]
            match = pairs.find_match(table, variable.name, variable.levels[0], variable.levels[-1])
            own = [] if match is None else pairs.within(table, match, primary.target.name, partner)
            within.append((interaction, own))
    balanced = study.fits[study.primary].additive.balanced if study.primary is not None else True
    per_backbone = experiments.frame.groupby("backbone")["dataset"].nunique()
    cluster = table.clusters
    return Evidence(
        accuracy=experiments.accuracy,
        n_experiments=len(experiments.frame),
        n_datasets=study.n_datasets,
        overview=study.overview,
        quality=experiments.quality,
        choice_resampled=images.choice_resampled(experiments),
        outcomes=tuple(study.outcomes.values()),
        primary=primary,
        ties=study.ties,
        contrasts=study.contrasts,
        within=within,
        cluster=cluster.name if cluster is not None else "",
        n_clusters=cluster.n_units if cluster is not None else 0,
        unequal=None if balanced else (int(per_backbone.min()), int(per_backbone.max())),
        lost=[(row.variable, kind) for row in study.survival for kind in row.lost()],
    )


def _gaps(experiments: Experiments) -> list[str]:
    """Outcomes that some experiments lack: they count for the other outcomes only."""
    found = []
    for target in experiments.targets:
        missing = np.flatnonzero(~np.isfinite(experiments.frame[target.name].to_numpy(float)))
        if len(missing):
            first = experiments.frame.iloc[missing[0]]
            found.append(
                f"{target.label}: {len(missing)} of {len(experiments.frame)} experiments have no value and are left "
                f"out of it (the first: {first['label']} on {first['dataset']})"
            )
    return found


def _fit(
    experiments: Experiments, variables: tuple[Variable, ...], options: Options, progress: Progress
) -> dict[str, Fitted]:
    fits = {
        target.name: outcome.prepared(experiments, variables, target, options.protocol)
        for target in experiments.targets
    }
    sound = [name for name, made in fits.items() if made.problem is None]
    for name in sound:
        job = fits[name].task
        progress.stage(f"fitting {name}: {job.design.n_points} configurations, {len(job.y_N)} experiments")
        fits[name] = replace(fits[name], attribution=trees.attribute(job, jobs=options.jobs))
    if sound and options.resamples:
        progress.stage("resampling")
        made = resampling.resample(
            [fits[name].task for name in sound],
            [outcome.kinds(fits[name]) for name in sound],
            bootstrap=options.resamples,
            permutations=options.permutations,
            jobs=options.jobs,
            progress=progress.refits,
        )
        for name, draws in zip(sound, made, strict=True):
            fits[name] = replace(fits[name], draws=draws)
    return fits


def contrasts_of(table: Backbones, variables: Sequence[Variable], targets: Sequence[str]) -> list[Contrast]:
    """Comparisons of matched backbones for every outcome, each told once."""
    found: dict[tuple[object, ...], Contrast] = {}
    for variable in variables:
        for low, high in pairs.level_pairs(variable):
            match = pairs.find_match(table, variable.name, low, high)
            if match is None:
                continue
            own = pairs.signature(match)
            for target in targets:
                made = pairs.contrast(table, match, target, (variable.name, low, high))
                if made is None:
                    continue
                if (target, own) in found:
                    twin = found[target, own]
                    ends = [level_text(pairs.plain(level)) for level in (low, high)]
                    name = (variable.name, " → ".join(ends))
                    found[target, own] = replace(twin, also=(*twin.also, name))
                else:
                    found[target, own] = made
    return _with_holm(list(found.values()))


def _with_holm(contrasts: list[Contrast]) -> list[Contrast]:
    """Wilcoxon's p corrected over the comparisons of one outcome that could reach significance at all."""
    for target in {c.target for c in contrasts}:
        at = [i for i, c in enumerate(contrasts) if c.target == target and c.wilcoxon is not None]
        able = reachable([contrasts[i].smallest for i in at])
        known = [contrasts[i].wilcoxon if ok else None for i, ok in zip(at, able, strict=True)]
        for i, p in zip(at, holm(known), strict=True):
            contrasts[i] = replace(contrasts[i], p_holm=p)
    return contrasts


def _corrected(outcomes: Mapping[str, Outcome], contrasts: list[Contrast]) -> tuple[dict[str, Outcome], list[Contrast]]:
    """Verdicts after correction: variables as one family of an outcome, what is searched for as another."""
    made = {name: outcome.corrected(own) for name, own in outcomes.items()}
    for name in outcomes:
        for searched in (True, False):
            at = [i for i, c in enumerate(contrasts) if c.target == name and c.searched == searched]
            corrected = holm([contrasts[i].estimate.p for i in at], share=COMPARISONS)
            for i, p in zip(at, corrected, strict=True):
                contrasts[i] = replace(contrasts[i], estimate=contrasts[i].estimate.corrected(p))
    return made, contrasts
