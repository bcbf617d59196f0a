"""report.json: the typed values of a study as plain data, with the keys that scripts rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.design.ties import CONFOUNDED, Ties
from analysis.estimates import backbones, pairs
from analysis.estimates.adjusted import LevelEffect
from analysis.estimates.effects import Effect
from analysis.estimates.estimate import Estimate, number
from analysis.estimates.interactions import Interaction
from analysis.estimates.models import PROTOCOLS
from analysis.estimates.outcome import Outcome, Slope
from analysis.estimates.sensitivity import Survival
from analysis.findings.phrases import Finding
from analysis.page import contrast_rows, tasks
from analysis.study import Study
from analysis.tables.variables import Variable, level_text

VERSION = 2
MOST_LISTED = 400  # backbones that page and report.json list one by one; backbones.parquet has all
MOST_LEVELS = 40


def of(study: Study) -> dict[str, Any]:
    """Everything that the page says, as numbers; effects in the outcome's own unit, slopes in the model's."""
    experiments, overview = study.experiments, study.overview
    return {
        "version": VERSION,
        "title": experiments.title,
        "source": experiments.source,
        "accuracy": experiments.accuracy,
        "protocol": protocol(study),
        "counts": counts(study),
        "primary": study.primary,
        "levels": [{"level": level.name, "units": level.n_units} for level in study.levels],
        "incomplete": records(experiments.incomplete),
        "variables": {v.name: _variable(v) for v in study.variables},
        "replicates": list(experiments.replicates),
        "constant": {name: level_text(value) for name, value in experiments.constant.items()},
        "notes": list(experiments.notes),
        "quality": _quality(study),
        "tunnel": None if overview is None else _overview(overview),
        "strengths": dict(overview.strengths) if overview else dict.fromkeys(backbones.STRENGTH_NAMES, 0),
        "backbones": records(backbones.extremes(study.backbones, MOST_LISTED)),
        "datasets": _datasets(study),
        "layer_curves": [panel.plain() for panel in study.panels],
        "targets": {name: _outcome(outcome) for name, outcome in study.outcomes.items()},
        "confounding": None if study.ties is None else confounding(study.ties),
        "contrasts": [row for contrast in study.contrasts for row in contrast_rows.rows(contrast)],
        "survival": [_survival(row) for row in study.survival],
        "findings": [_finding(n, found) for n, found in enumerate(study.findings, 1)],
        "emergence": of_emergence(study),
        "tasks": tasks.of(study.tasks),
    }


def of_emergence(study: Study) -> list[dict[str, Any]]:
    """Rows of what epochs along training show; none in most tables."""
    emergence = study.experiments.emergence
    return records(emergence.points) if emergence is not None else []


def protocol(study: Study) -> dict[str, Any]:
    """How it was analysed."""
    options = study.options
    chosen = PROTOCOLS[options.protocol]
    return {
        "name": options.protocol,
        "text": chosen.text,
        "seeds": chosen.seeds,
        "bootstrap": options.resamples,
        "permutations": options.permutations,
    }


def counts(study: Study) -> dict[str, int | None]:
    """How much there is of everything."""
    experiments = study.experiments
    return {
        "experiments": len(experiments.frame),
        "backbones": int(experiments.frame["backbone"].nunique()),
        "datasets": study.n_datasets,
        "curves_planned": experiments.planned,
        "curves_left_out": len(experiments.incomplete),
        "probes_set_aside": experiments.set_aside,
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "label": variable.label,
        "kind": variable.kind,
        "levels": [level_text(value) for value in variable.levels[:MOST_LEVELS]],
        "raw": [str(pairs.plain(value)) for value in (variable.levels[0], variable.levels[-1])],
        "log": variable.log,
    }


def _quality(study: Study) -> dict[str, Any] | None:
    quality = study.experiments.quality
    if quality is None:
        return None
    return {
        "probes": quality.probes,
        "unconverged": number(quality.unconverged),
        "unfinished": number(quality.unfinished),
        "jumping": number(quality.jumping),
        "spread": number(quality.spread),
        "warnings": list(quality.warnings),
    }


def _overview(about: backbones.Overview) -> dict[str, Any]:
    def brief(own: backbones.Brief) -> dict[str, Any]:
        return {"label": own.label, "retained": own.retained, "strength": own.strength}

    return {
        "backbones": about.backbones,
        "retained": about.retained,
        "lowest": brief(about.lowest),
        "highest": brief(about.highest),
        "strengths": dict(about.strengths),
        "unsettled": about.unsettled,
        "experiments": about.experiments,
        "falls": about.falls,
        "falls_claimed": about.falls_claimed,
    }


def _datasets(study: Study) -> list[dict[str, Any]]:
    """Mean outcome on each OOD dataset, and how much it lies above or below the others for the same backbones."""
    if study.primary is None:
        return []
    made = study.fits[study.primary]
    design, name = made.task.design, made.target.name
    frame = study.experiments.frame
    return [
        {
            "dataset": dataset,
            "mean": number(frame.loc[frame["dataset"].astype(str) == dataset, name].mean()),
            "effect": number(made.additive.effect_D[d]),
            "backbones": int((design.dataset_N == d).sum()),
        }
        for d, dataset in enumerate(design.datasets)
    ]


def _outcome(outcome: Outcome) -> dict[str, Any]:
    quality, scale = outcome.quality, outcome.target.scale
    return {
        "label": outcome.target.label,
        "unit": outcome.target.unit,
        "exploratory": outcome.exploratory,
        "n_experiments": outcome.n_experiments,
        "n_backbones": outcome.n_backbones,
        "n_design_points": outcome.n_points,
        "mean": outcome.mean,
        "problem": outcome.problem,
        "seeds": outcome.seeds,
        "r2_in_sample": quality.in_sample,
        "r2_ceiling": quality.ceiling,
        "r2_out_of_fold": quality.out_of_fold,
        "r2_out_of_fold_by_backbone": quality.by_backbone,
        "r2_leave_cluster_out": quality.by_cluster,
        "r2_leave_dataset_out": quality.by_dataset,
        "cluster": quality.cluster,
        "n_clusters": quality.n_clusters,
        "r2_shuffled_95": quality.shuffled_95,
        "p_global": quality.global_p,
        "held_out_experiments": quality.rows,
        "slopes": {slope.variable: slope_of(slope) for slope in outcome.slopes},
        "effects": [_effect(effect, scale) for effect in outcome.effects],
        "interactions": {
            "share": outcome.interaction_share,
            "variables": [slope.variable for slope in sorted(outcome.slopes, key=lambda s: s.variable)],
            "matrix": [list(row) for row in outcome.strengths],
            "tests": [_interaction(interaction) for interaction in outcome.interactions],
        },
        "parts": [
            {"part": part.name, "variables": list(part.variables), "mean_abs_shap": part.mean_abs_shap}
            for part in outcome.parts
        ],
    }


def slope_of(slope: Slope) -> dict[str, Any]:
    """One SHAP slope, in the model's unit."""
    return {
        "label": slope.label,
        "part": slope.part,
        "from": slope.low_level,
        "to": slope.high_level,
        "levels": slope.n_levels,
        "slope": slope.slope,
        "low": slope.low,
        "high": slope.high,
        "seed_sd": slope.seed_sd,
        "mean_abs_shap": slope.mean_abs_shap,
        "rank": slope.rank,
        "rank_share": slope.rank_share,
        "slope_interventional": slope.interventional,
        "level_effects": [{"level": level, "effect": effect} for level, effect in slope.level_effects],
    }


def _effect(effect: Effect, scale: float) -> dict[str, Any]:
    return {
        "variables": list(effect.variables),
        "from": effect.low,
        "to": effect.high,
        "verdict": effect.verdict,
        "p": number(effect.p),
        "p_adjusted": number(effect.p_adjusted),
        "adjusted": effect.adjusted.plain(),
        "total": effect.total.plain(),
        "mixed_model": number(effect.mixed),
        "pairs": effect.pairs.plain(),
        "trees": effect.trees.plain(),
        "shap_slope": effect.slope.plain(scale),
        "levels": [_level(level, estimate) for level, estimate in effect.levels],
        "level_pairs": [_level(level, estimate) for level, estimate in effect.level_pairs],
        "by_dataset": {dataset: number(value) for dataset, value in effect.by_dataset.items()},
    }


def _level(level: LevelEffect, estimate: Estimate) -> dict[str, Any]:
    head = {"level": level.level, "against": level.against, "units": level.units, "backbones": level.backbones}
    return head | {key: estimate.plain()[key] for key in ("value", "low", "high", "p", "p_adjusted", "verdict")}


def _interaction(interaction: Interaction) -> dict[str, Any]:
    return {
        "variable": interaction.variable,
        "partner": interaction.partner,
        "from": interaction.low,
        "to": interaction.high,
        "opposite": interaction.opposite,
        "difference": interaction.estimate.plain(),
        "within": [
            {"level": w.level, "backbones": w.backbones, **w.estimate.plain()} for w in interaction.within
        ],
    }  # fmt: skip


def confounding(ties: Ties) -> dict[str, Any]:
    """What moves together."""
    names, matrix = ties.variables, ties.association_VV
    found = [
        {
            "first": names[u],
            "second": names[v],
            "association": float(matrix[u, v]),
            "confounded": bool(matrix[u, v] > CONFOUNDED),
        }
        for u in range(len(names)) for v in range(u + 1, len(names)) if np.isfinite(matrix[u, v])
    ]  # fmt: skip
    return {
        "variables": list(names),
        "association": [[number(x) for x in row] for row in matrix],
        "pairs": sorted(found, key=lambda pair: -abs(pair["association"])),
        "vif": {name: _inflation(x) for name, x in zip(names, ties.inflation_V, strict=True)},
        "dependences": [{"variable": d.variable, "determined_by": list(d.determined_by)} for d in ties.dependences],
        "bundles": [list(bundle) for bundle in ties.bundles],
        "nested": dict(ties.nested),
    }


def _inflation(value: float) -> float | str | None:
    return None if np.isnan(value) else "infinite" if np.isinf(value) else float(value)


def _survival(row: Survival) -> dict[str, Any]:
    return {
        "variable": row.variable,
        "from": row.low,
        "to": row.high,
        "value": row.value,
        "asserted": row.asserted,
        "variants": {
            kind: [{"left_out": v.left_out, "value": number(v.value), "low": v.low, "high": v.high,
                    "survives": v.survives(row.value)} for v in own]
            for kind, own in row.variants.items()
        },
    }  # fmt: skip


def _finding(position: int, found: Finding) -> dict[str, Any]:
    return {
        "id": f"finding-{position}",
        "kind": found.kind,
        "verdict": found.verdict,
        "variables": list(found.variables),
        "text": found.text,
        "number": found.number,
        "interval": found.interval,
        "sure": found.sure,
        "basis": found.basis,
        "n_units": found.n_units,
        "unit": found.unit or None,
    }


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as dictionaries for JSON: plain numbers, None for what is missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [
        {str(key): value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
        for row in plain.to_dict("records")
    ]


def slope_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """One row per target and variable, in the model's unit."""
    rows = [
        {"target": target, "variable": variable, **{k: v for k, v in slope.items() if k != "level_effects"}}
        for target, entry in report["targets"].items()
        for variable, slope in entry["slopes"].items()
    ]
    return pd.DataFrame(rows)


def effect_table(study: Study) -> pd.DataFrame:
    """One row per target and variable: the three estimates with their intervals, in the outcome's own unit."""
    rows = []
    for name, outcome in study.outcomes.items():
        for effect in outcome.effects:
            row: dict[str, Any] = {
                "target": name, "variable": effect.name, "together_with": ", ".join(effect.variables[1:]),
                "from": effect.low, "to": effect.high, "verdict": effect.verdict, "p_adjusted": effect.p_adjusted,
                "unit": effect.adjusted.unit, "n_units": effect.adjusted.n_units,
            }  # fmt: skip
            for kind in ("adjusted", "total", "pairs", "trees", "slope"):
                own: Estimate = getattr(effect, kind)
                row |= {kind: own.value, f"{kind}_low": own.low, f"{kind}_high": own.high}
            rows.append(row | {"mixed_model": effect.mixed})
    return pd.DataFrame(rows)
