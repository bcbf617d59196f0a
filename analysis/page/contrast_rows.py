"""Comparisons of matched backbones as rows of report.json."""

from __future__ import annotations

from typing import Any

from analysis.estimates import pairs
from analysis.estimates.pairs import Contrast


def rows(found: Contrast) -> list[dict[str, Any]]:
    """Rows for ``contrasts`` of report.json: by backbone, and by experiment as published tests count."""
    estimate, apart = found.estimate, found.by_experiment
    head = {
        "target": found.target, "variable": found.variable, "from": pairs.plain(found.low),
        "to": pairs.plain(found.high),
        "together_with": list(found.together_with), "also": [list(name) for name in found.also],
    }  # fmt: skip
    own = {
        "level": "backbone", "n_pairs": found.n_strata, "n_backbone_pairs": found.n_strata,
        "n_from": found.n_first, "n_to": found.n_second, "paired": found.paired,
        "mean_from": found.means[0], "mean_to": found.means[1], "mean_difference": estimate.value,
        "low": estimate.low, "high": estimate.high, "p": found.wilcoxon, "p_holm": found.p_holm,
        "p_smallest": found.smallest, "p_t": estimate.p, "p_adjusted": estimate.p_adjusted,
        "cliffs_delta": found.delta, "cliffs_label": pairs.cliffs_label(found.delta),
        "pair_differences": list(found.differences), "unit": estimate.unit, "n_units": estimate.n_units,
        "clusters": list(found.clusters), "n_clusters": found.n_clusters, "verdict": estimate.verdict,
    }  # fmt: skip
    by_experiment = dict.fromkeys(own) | {
        "level": "experiment", "n_pairs": apart.n, "n_backbone_pairs": found.n_strata, "paired": found.paired,
        "mean_from": apart.means[0], "mean_to": apart.means[1], "mean_difference": apart.difference,
        "p": apart.wilcoxon, "p_smallest": float(min(1.0, 2.0 ** (1 - apart.n))) if apart.n else 1.0,
        "cliffs_delta": apart.delta, "cliffs_label": pairs.cliffs_label(apart.delta),
    }  # fmt: skip
    return [head | own, head | by_experiment] if apart.n else [head | own]
