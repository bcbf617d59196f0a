"""From experiments to everything the report holds: one dictionary of numbers, tables, figures, one page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis import (
    attribution,
    backbones,
    confounding,
    contrasts,
    design,
    findings,
    interactions,
    noise,
    page,
    resampling,
    storage,
    target_report,
)
from analysis.attribution import PROTOCOLS, Attribution, Task
from analysis.design import Kind
from analysis.experiments import Experiments
from analysis.interactions import Cut
from analysis.resampling import Draws

FIRST = "figures/layer_curves.png"
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
    """All results: the dictionary behind the page, and the tables beside it."""

    experiments: Experiments
    report: dict[str, Any]
    fits: Mapping[str, Fitted]
    tables: Mapping[str, pd.DataFrame]


def write_report(experiments: Experiments, kinds: Mapping[str, Kind], options: Options, out: str) -> str:
    """Analyse and write everything below ``out``; returns what to print."""
    analysis = analyse(experiments, kinds, options, progress=_progress())
    for name, table in analysis.tables.items():
        storage.write_table(storage.join(out, f"{name}.parquet"), pa.Table.from_pandas(table, preserve_index=False))
    storage.write(
        storage.join(out, "report.json"), json.dumps(analysis.report, indent=1, ensure_ascii=False, allow_nan=False)
    )
    files = page.files(analysis)
    for name, data in files.items():
        storage.write(storage.join(out, name), data)
    lines = [f"- {found['text']}" for found in analysis.report["findings"][:6]]
    if FIRST in files:
        lines.append(f"look first at {storage.join(out, FIRST)}: accuracy by layer, with the tunnel shaded")
    return "\n".join([*lines, f"report: {storage.join(out, 'index.html')}"])


def analyse(
    experiments: Experiments,
    kinds: Mapping[str, Kind],
    options: Options,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Analysis:
    """Compute every number of the report."""
    bootstrap = PROTOCOLS[options.protocol].resamples if options.bootstrap is None else options.bootstrap
    if bootstrap:
        experiments = noise.with_intervals(experiments)
    variables = design.describe(experiments.frame, experiments.variables, kinds)
    fits = _fit(experiments, variables, options, bootstrap, progress)
    table = backbones.summary(experiments)
    rows = records(table)
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
        "constant": {name: design.level_text(value) for name, value in experiments.constant.items()},
        "notes": list(experiments.notes),
        "backbones": rows,
        "strengths": backbones.strength_counts(rows),
        "targets": {target.name: _target(experiments, fits, target.name) for target in experiments.targets},
    }
    some = next((fit.task.design for fit in fits.values() if fit.problem is None), None)
    report["confounding"] = confounding.describe(some) if some is not None else None
    report["contrasts"], report["reversals"] = contrasts.compute(experiments, variables)
    report["findings"] = findings.collect(report)
    report["emergence"] = records(experiments.emergence.points) if experiments.emergence is not None else []
    return Analysis(experiments, report, fits, _tables(experiments, report, fits))


def _tables(experiments: Experiments, report: Mapping[str, Any], fits: Mapping[str, Fitted]) -> dict[str, pd.DataFrame]:
    tables = {
        "experiments": _plain(experiments.frame),
        "shap_values": _shap_table(experiments, fits),
        "slopes": _slope_table(report),
        "contrasts": pd.DataFrame(report["contrasts"], columns=list(contrasts.COLUMNS)).astype(
            {"from": str, "to": str}
        ),
    }
    if experiments.emergence is not None:
        tables |= {"emergence": experiments.emergence.points, "emergence_layers": experiments.emergence.layers}
    return tables


def _protocol(name: str, bootstrap: int) -> dict[str, Any]:
    chosen = PROTOCOLS[name]
    return {
        "name": name,
        "text": chosen.text,
        "seeds": chosen.seeds,
        "bootstrap": bootstrap,
        "permutations": _permutations(bootstrap),
    }


def _variable(variable: design.Variable) -> dict[str, Any]:
    return {
        "label": variable.label,
        "kind": variable.kind,
        "levels": [design.level_text(value) for value in variable.levels[:40]],
        "raw": [str(contrasts.plain(value)) for value in (variable.levels[0], variable.levels[-1])],
    }


def _fit(
    experiments: Experiments,
    variables: tuple[design.Variable, ...],
    options: Options,
    bootstrap: int,
    progress: Callable[[int, int], None],
) -> dict[str, Fitted]:
    tasks = {
        target.name: attribution.task(
            design.build(experiments.frame, variables, target.name), protocol=options.protocol, scale=target.scale
        )
        for target in experiments.targets
    }
    problems = {name: target_report.problem(job) for name, job in tasks.items()}
    sound = {name: job for name, job in tasks.items() if problems[name] is None}
    fitted = {name: attribution.attribute(job) for name, job in sound.items()}
    cuts = {name: [*interactions.cuts(job, fitted[name]), *interactions.bundles(job)] for name, job in sound.items()}
    draws: dict[str, dict[str, Draws]] = {name: {} for name in sound}
    if sound and bootstrap:
        made = resampling.resample(
            list(sound.values()),
            list(cuts.values()),
            bootstrap=bootstrap,
            permutations=_permutations(bootstrap),
            jobs=options.jobs,
            progress=progress,
        )
        draws = dict(zip(sound, made, strict=True))
    return {
        name: Fitted(job, None, fitted[name], cuts[name], draws[name]) if name in sound else Fitted(job, problems[name])
        for name, job in tasks.items()
    }


def _permutations(bootstrap: int) -> int:
    return round(bootstrap * PERMUTATIONS_PER_RESAMPLE)


def _target(experiments: Experiments, fits: Mapping[str, Fitted], name: str) -> dict[str, Any]:
    target = next(t for t in experiments.targets if t.name == name)
    fit = fits[name]
    if fit.attribution is None:
        y_N = fit.task.design.outcome_N
        return {
            "label": target.label,
            "unit": target.unit,
            "n_experiments": len(y_N),
            "mean": target_report.number(y_N.mean()) if len(y_N) else None,
            "problem": fit.problem,
            **dict.fromkeys(target_report.FIT_KEYS),
            "slopes": {},
            "parts": [],
            "bundles": [],
            "interactions": {"share": None, "variables": [], "pairs": [], "flips": [], "matrix": []},
        }
    return target_report.report(target, fit.task, fit.attribution, fit.cuts, fit.draws)


def _counts(experiments: Experiments) -> dict[str, int | None]:
    frame = experiments.frame
    return {
        "experiments": len(frame),
        "backbones": int(frame["backbone"].nunique()),
        "datasets": int(frame["dataset"].nunique()),
        "curves_planned": experiments.planned,
        "curves_left_out": len(experiments.incomplete),
    }


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as dictionaries for JSON: plain numbers, None for what is missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [
        {str(key): value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
        for row in plain.to_dict("records")
    ]


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(
        columns=[c for c in ("_row", "layer", "top1", "top1_best", "top1_last", "heldout_top1", "rank") if c in frame]
    )


def _shap_table(experiments: Experiments, fits: Mapping[str, Fitted]) -> pd.DataFrame:
    """SHAP value of each experiment, target and variable, in the model's unit."""
    parts = []
    for name, fit in fits.items():
        if fit.attribution is None:
            continue
        rows = experiments.frame[np.isfinite(experiments.frame[name].to_numpy(float))]
        wide = pd.DataFrame(fit.attribution.shap_PV[fit.task.design.point_N], columns=list(fit.task.design.names))
        wide.insert(0, "target", name)
        wide.insert(1, "backbone", rows["backbone"].to_numpy())
        wide.insert(2, "dataset", rows["dataset"].to_numpy())
        parts.append(wide)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"target": [], "backbone": [], "dataset": []})


def _slope_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """One row per target and variable, in the model's unit."""
    rows = [
        {
            "target": target,
            "variable": variable,
            **{key: value for key, value in slope.items() if key != "level_effects"},
        }
        for target, entry in report["targets"].items()
        for variable, slope in entry["slopes"].items()
    ]
    return pd.DataFrame(rows)


def _progress() -> Callable[[int, int], None]:
    """One line on a terminal, redrawn twice a second; a line every 20 s elsewhere."""
    terminal, started = sys.stderr.isatty(), time.monotonic()
    state = {"last": started}

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - state["last"] < (0.5 if terminal else 20):
            return
        state["last"] = now
        end = "\r" if terminal and done < total else "\n"
        if terminal or done < total:
            left = f", {(now - started) * (total - done) / done:.0f} s left" if done < total else " "
            print(f"resampling: {done} of {total} refits{left:<10}", end=end, file=sys.stderr, flush=True)

    return show
