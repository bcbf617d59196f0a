"""From experiments to everything the report holds: one dictionary of numbers, tables, figures, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.design import points, ties
from analysis.estimates import backbones, curves, estimate, images, interactions, outcome, pairs, resampling, trees
from analysis.estimates.interactions import Cut
from analysis.estimates.resampling import Draws
from analysis.estimates.trees import PROTOCOLS, Attribution, Task
from analysis.findings import findings
from analysis.progress import Progress, Silent
from analysis.tables.errors import UserError
from analysis.tables.experiments import Experiments
from analysis.tables.variables import Kind, Variable, describe, level_text

PERMUTATIONS_PER_RESAMPLE = 0.4  # 200 for 500
MOST_LISTED = 400  # backbones that page and report.json list one by one; backbones.parquet has all


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


@dataclass(frozen=True)
class Fitted:
    """One target with its fits; ``problem`` says why there are none."""

    task: Task
    problem: str | None
    attribution: Attribution | None = None
    cuts: Sequence[Cut] = ()
    draws: Mapping[str, Draws] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """All results: the dictionary behind the page, the table of backbones, layer curves to draw, and their caption."""

    experiments: Experiments
    report: dict[str, Any]
    fits: Mapping[str, Fitted]
    backbones: pd.DataFrame
    panels: Sequence[Mapping[str, Any]]
    captions: Mapping[str, str]


def analyse(
    experiments: Experiments,
    kinds: Mapping[str, Kind],
    options: Options,
    *,
    progress: Progress | None = None,
) -> Analysis:
    """Compute every number of the report."""
    progress = progress or Silent()
    bootstrap = PROTOCOLS[options.protocol].resamples if options.bootstrap is None else options.bootstrap
    experiments = images.with_intervals(experiments) if bootstrap else images.without(experiments)
    variables = describe(experiments.frame, experiments.variables, kinds)
    experiments = replace(experiments, notes=(*experiments.notes, *_gaps(experiments)))
    fits = _fit(experiments, variables, options, bootstrap, progress)
    progress.stage("summing up")
    table = backbones.summary(experiments)
    overview = backbones.overview(table)
    shown, captions = curves.panels(experiments)
    report: dict[str, Any] = {
        "version": 1,
        "title": experiments.title,
        "source": experiments.source,
        "accuracy": experiments.accuracy,
        "protocol": _protocol(options.protocol, bootstrap),
        "counts": _counts(experiments),
        "incomplete": records(experiments.incomplete),
        "variables": {v.name: _variable(v) for v in variables},
        "replicates": list(experiments.replicates),
        "constant": {name: level_text(value) for name, value in experiments.constant.items()},
        "notes": list(experiments.notes),
        "tunnel": overview,
        "strengths": overview["strengths"] if overview else dict.fromkeys(backbones.STRENGTH_NAMES, 0),
        "backbones": records(backbones.extremes(table, MOST_LISTED)),
        "layer_curves": curves.plain(shown),
        "targets": {target.name: _target(experiments, fits, target.name, options) for target in experiments.targets},
    }
    some = next((fit.task.design for fit in fits.values() if fit.problem is None), None)
    report["confounding"] = ties.describe(some) if some is not None else None
    progress.stage("comparing matched pairs")
    report["contrasts"], report["reversals"] = pairs.compute(experiments, variables)
    report["findings"] = findings.collect(report)
    report["emergence"] = records(experiments.emergence.points) if experiments.emergence is not None else []
    return Analysis(experiments, report, fits, table, shown, captions)


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


def _protocol(name: str, bootstrap: int) -> dict[str, Any]:
    chosen = PROTOCOLS[name]
    return {
        "name": name,
        "text": chosen.text,
        "seeds": chosen.seeds,
        "bootstrap": bootstrap,
        "permutations": _permutations(bootstrap),
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "label": variable.label,
        "kind": variable.kind,
        "levels": [level_text(value) for value in variable.levels[:40]],
        "raw": [str(pairs.plain(value)) for value in (variable.levels[0], variable.levels[-1])],
    }


def _fit(
    experiments: Experiments,
    variables: tuple[Variable, ...],
    options: Options,
    bootstrap: int,
    progress: Progress,
) -> dict[str, Fitted]:
    tasks = {
        target.name: trees.task(
            points.build(experiments.frame, variables, target.name), protocol=options.protocol, scale=target.scale
        )
        for target in experiments.targets
    }
    problems = {name: outcome.problem(job) for name, job in tasks.items()}
    sound = {name: job for name, job in tasks.items() if problems[name] is None}
    fitted: dict[str, Attribution] = {}
    for name, job in sound.items():
        progress.stage(f"fitting {name}: {job.design.n_points} distinct settings, {len(job.y_N)} experiments")
        fitted[name] = trees.attribute(job, jobs=options.jobs)
    cuts = {name: [*interactions.cuts(job, fitted[name]), *interactions.bundles(job)] for name, job in sound.items()}
    draws: dict[str, dict[str, Draws]] = {name: {} for name in sound}
    if sound and bootstrap:
        progress.stage("resampling")
        made = resampling.resample(
            list(sound.values()),
            list(cuts.values()),
            bootstrap=bootstrap,
            permutations=_permutations(bootstrap),
            jobs=options.jobs,
            progress=progress.refits,
        )
        draws = dict(zip(sound, made, strict=True))
    return {
        name: Fitted(job, None, fitted[name], cuts[name], draws[name]) if name in sound else Fitted(job, problems[name])
        for name, job in tasks.items()
    }


def _permutations(bootstrap: int) -> int:
    return round(bootstrap * PERMUTATIONS_PER_RESAMPLE)


def _target(experiments: Experiments, fits: Mapping[str, Fitted], name: str, options: Options) -> dict[str, Any]:
    target = next(t for t in experiments.targets if t.name == name)
    fit = fits[name]
    if fit.attribution is None:
        y_N = fit.task.design.outcome_N
        return {
            "label": target.label,
            "unit": target.unit,
            "n_experiments": len(y_N),
            "mean": estimate.number(y_N.mean()) if len(y_N) else None,
            "problem": fit.problem,
            "seeds": None,
            **dict.fromkeys(outcome.FIT_KEYS),
            "slopes": {},
            "parts": [],
            "bundles": [],
            "interactions": {"share": None, "variables": [], "pairs": [], "flips": [], "matrix": []},
        }
    return outcome.report(target, fit.task, fit.attribution, fit.cuts, fit.draws, jobs=options.jobs)


def _counts(experiments: Experiments) -> dict[str, int | None]:
    frame = experiments.frame
    return {
        "experiments": len(frame),
        "backbones": int(frame["backbone"].nunique()),
        "datasets": int(frame["dataset"].nunique()),
        "curves_planned": experiments.planned,
        "curves_left_out": len(experiments.incomplete),
        "probes_set_aside": experiments.set_aside,
    }


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as dictionaries for JSON: plain numbers, None for what is missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [
        {str(key): value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
        for row in plain.to_dict("records")
    ]
