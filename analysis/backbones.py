"""Tunnel of each backbone, over its OOD datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.experiments import Experiments
from analysis.metrics import ID_RULES, strength

STRENGTH_NAMES = ("negligible", "weak", "medium", "strong")


def summary(experiments: Experiments) -> pd.DataFrame:
    """One row per backbone: mean % retained over OOD datasets with a 95 % t interval, strength class, tunnel.

    Columns: backbone, label, n_datasets, retained, low, high (null below two datasets), strength; and, where the table
    has curves: n_layers, tunnels (OOD datasets with a tunnel), tunnels_claimed (of these,
    the interval from test images excludes zero), tunnel_start (median layer over those), id_start_95,
    id_start_98, retained_paper.
    """
    frame = experiments.frame
    if "retained" not in frame:
        return pd.DataFrame()
    rows = [_row(str(name), part) for name, part in frame.groupby("backbone", sort=False)]
    return pd.DataFrame(rows)


def _row(name: str, part: pd.DataFrame) -> dict[str, Any]:
    values = part["retained"].dropna().to_numpy(float)
    mean = float(values.mean()) if len(values) else float("nan")
    low, high = mean_interval(values)
    row = {
        "backbone": name,
        "label": part["label"].iloc[0],
        "n_datasets": len(values),
        "retained": mean,
        "low": low,
        "high": high,
    }
    row["strength"] = strength(mean) if len(values) else None
    if "tunnel" not in part:
        return row
    found = part[part["tunnel"]]
    row |= {
        "n_layers": int(part["n_layers"].iloc[0]),
        "tunnels": len(found),
        "tunnel_start": float(found["tunnel_start"].median()) if len(found) else None,
        "retained_paper": float(part["retained_paper"].mean()),
        "tunnels_claimed": int(part["tunnel_claimed"].sum()) if "tunnel_claimed" in part else None,
    }
    for percent in ID_RULES:
        start = part[f"id_start_{percent}"].iloc[0]
        row[f"id_start_{percent}"] = None if pd.isna(start) else int(start)
    return row


def mean_interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """95 % Student interval of a mean; None below two values."""
    if len(values) < 2:
        return None, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean() - half), float(values.mean() + half)


def strength_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Backbones of each strength class."""
    return {name: sum(row["strength"] == name for row in rows) for name in STRENGTH_NAMES}
