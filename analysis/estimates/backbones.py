"""Tunnel of each backbone, over its OOD datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.tables.experiments import Experiments
from analysis.tables.metrics import ID_RULES, Curves, strength
from analysis.tables.variables import Array

STRENGTH_NAMES = ("negligible", "weak", "medium", "strong")


def summary(experiments: Experiments) -> pd.DataFrame:
    """One row per backbone: mean % retained over OOD datasets with a 95 % t interval, strength class, tunnel.

    Columns: backbone, label, n_datasets, retained, low, high (null below two datasets), strength; and, where the table
    has curves: n_layers, tunnels (OOD datasets with a fall after the peak layer), tunnels_claimed (of these, the
    interval from test images excludes zero; null without one), tunnel_start (median layer over the claimed ones, over
    all where none can be claimed), id_start_95, id_start_98, retained_paper, id_rank (numerical rank of the ID
    embeddings by layer).
    """
    frame = experiments.frame
    if "retained" not in frame:
        return pd.DataFrame()
    groups = frame.groupby("backbone", sort=False)
    values = groups["retained"]
    table = pd.DataFrame({"label": groups["label"].first(), "n_datasets": values.count(), "retained": values.mean()})
    half = half_width(values.std().to_numpy(float), table["n_datasets"].to_numpy())
    table["low"], table["high"] = table["retained"] - half, table["retained"] + half
    table["strength"] = [strength(mean) if np.isfinite(mean) else None for mean in table["retained"]]
    if "tunnel" in frame:
        table = table.join(_tunnels(frame))
    if experiments.curves is not None:
        rank_of = _ranks(experiments.curves)
        table["id_rank"] = pd.Series([rank_of.get(str(name)) for name in table.index], table.index, dtype=object)
    return table.reset_index()


def _tunnels(frame: pd.DataFrame) -> pd.DataFrame:
    """What only tables with curves tell, one row per backbone."""
    groups = frame.groupby("backbone", sort=False)
    claims = "tunnel_claimed" in frame
    falls = frame[frame["tunnel_claimed" if claims else "tunnel"]]
    table = pd.DataFrame({"n_layers": groups["n_layers"].first(), "tunnels": groups["tunnel"].sum()})
    table["tunnels_claimed"] = groups["tunnel_claimed"].sum() if claims else None
    table["tunnel_start"] = falls.groupby("backbone")["tunnel_start"].median().astype(float)
    table["retained_paper"] = groups["retained_paper"].mean()
    for percent in ID_RULES:
        table[f"id_start_{percent}"] = groups[f"id_start_{percent}"].first()
    return table


def _ranks(curves: Curves) -> dict[str, list[float]]:
    """Numerical rank by layer of each backbone's ID embeddings; backbones without it are absent."""
    own = np.flatnonzero(curves.table["is_id"].to_numpy(bool))
    found = {}
    for c, name in zip(own, curves.table["backbone"].iloc[own], strict=True):
        ranks = curves.rank_N[curves.start_C[c] : curves.stop_C[c]]
        if np.isfinite(ranks).all():
            found[str(name)] = ranks.tolist()
    return found


def half_width(sd: npt.NDArray[Any], n: npt.NDArray[Any]) -> Array:
    """Half of the 95 % Student interval of means of ``n`` values; NaN below two values."""
    n = np.where(n > 1, n, np.nan)
    result: Array = stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n)
    return result


def overview(table: pd.DataFrame) -> dict[str, Any] | None:
    """All backbones together: mean % retained, the two extremes, counts of each strength, falls after the peak."""
    known = table[table["retained"].notna()] if len(table) else table
    if not len(known):
        return None
    ordered = known.sort_values("retained", kind="stable")
    counts = known["strength"].value_counts()
    sums = {
        name: int(known[name].sum()) for name in ("n_datasets", "tunnels", "tunnels_claimed") if _counted(known, name)
    }
    return {
        "backbones": len(known),
        "retained": float(known["retained"].mean()),
        "lowest": _brief(ordered.iloc[0].to_dict()),
        "highest": _brief(ordered.iloc[-1].to_dict()),
        "strengths": {name: int(counts.get(name, 0)) for name in STRENGTH_NAMES},
        "experiments": sums["n_datasets"],
        "falls": sums.get("tunnels"),
        "falls_claimed": sums.get("tunnels_claimed"),
    }


def _counted(table: pd.DataFrame, name: str) -> bool:
    return name in table and bool(table[name].notna().all())


def _brief(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {"label": str(row["label"]), "retained": float(row["retained"]), "strength": str(row["strength"])}


def extremes(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Backbones from the strongest tunnel to the weakest; of more than ``most`` the two ends, in equal parts."""
    if not len(table):
        return table
    ordered = table.sort_values("retained", kind="stable")
    if len(ordered) <= most:
        return ordered
    known = ordered[ordered["retained"].notna()]
    return pd.concat([known.head(most // 2), known.tail(most - most // 2)])
