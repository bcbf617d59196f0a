"""Tunnel of each backbone, over its OOD datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.design import points
from analysis.estimates.additive import Additive, fit
from analysis.tables.experiments import Experiments
from analysis.tables.metrics import FEW_CHOOSING, ID_RULES, OPEN, Curves, strength
from analysis.tables.variables import Array

STRENGTH_NAMES = ("negligible", "weak", "medium", "strong", OPEN)


def means(experiments: Experiments) -> pd.DataFrame:
    """:func:`summary` of experiments that no model was fitted to."""
    frame = experiments.frame
    if "retained" not in frame or not np.isfinite(frame["retained"].to_numpy(float)).any():
        return pd.DataFrame()
    return summary(experiments, fit(points.build(frame, (), "retained")))


def summary(experiments: Experiments, additive: Additive | None) -> pd.DataFrame:
    """One row per backbone: mean % retained with a 95 % interval, strength class, tunnel.

    Columns: backbone, label, n_datasets, retained (as if probed on every dataset:
    :mod:`analysis.estimates.additive`), retained_own (on its own datasets), low, high (null where datasets do not
    tell), n_choosing (images that chose the peak layer, of the median experiment), strength
    (:data:`~analysis.tables.metrics.OPEN` where these are fewer than :data:`~analysis.tables.metrics.FEW_CHOOSING`),
    settled (whether the interval lies within one class); and, where the table has curves: n_layers, tunnels (OOD
    datasets with a fall after the peak layer), tunnels_claimed (of these, the interval from test images excludes
    zero; null without one), tunnel_start (median layer over the claimed ones, over all where none can be claimed),
    id_start_95, id_start_98, retained_paper, id_rank (numerical rank of the ID embeddings by layer).
    """
    frame = experiments.frame
    if "retained" not in frame or additive is None:
        return pd.DataFrame()
    groups = frame.groupby("backbone", sort=False)
    values = groups["retained"]
    table = pd.DataFrame({"label": groups["label"].first(), "n_datasets": values.count(), "retained": np.nan})
    known = table.index[table["n_datasets"] > 0]
    table.loc[known, "retained"] = additive.mean_B
    table["retained_own"] = values.mean()
    most = float(frame["retained"].max())
    low, high = possible(table["retained"].to_numpy(), table["n_datasets"].to_numpy(), additive, most)
    table["low"], table["high"] = low, high
    choosing = groups["n_choosing"].median() if "n_choosing" in frame else pd.Series(np.nan, table.index)
    table["n_choosing"] = choosing.astype(float)
    few = table["n_choosing"] < FEW_CHOOSING
    names = [strength(mean) if np.isfinite(mean) else None for mean in table["retained"]]
    table["strength"] = [OPEN if known and open_ else known for known, open_ in zip(names, few, strict=True)]
    ends = [(strength(a), strength(b)) if np.isfinite(a) else ("", "-") for a, b in zip(low, high, strict=True)]
    table["settled"] = [a == b and not open_ for (a, b), open_ in zip(ends, few, strict=True)]
    if "tunnel" in frame:
        table = table.join(_tunnels(frame))
    if experiments.curves is not None:
        rank_of = _ranks(experiments.curves)
        table["id_rank"] = pd.Series([rank_of.get(str(name)) for name in table.index], table.index, dtype=object)
    return table.reset_index()


def possible(mean_B: Array, n_B: npt.NDArray[Any], additive: Additive, most: float) -> tuple[Array, Array]:
    """95 % intervals of shares in %, which are positive, from what backbone and dataset leave unexplained.

    They are symmetric for the logarithm; no end lies above the largest share of the table, or 100 (B,), (B,).
    """
    if additive.df < 1:
        return np.full(len(mean_B), np.nan), np.full(len(mean_B), np.nan)
    half = stats.t.ppf(0.975, additive.df) * additive.sd / np.sqrt(np.where(n_B > 0, n_B, np.nan))
    with np.errstate(over="ignore"):  # of a mean near 0 nothing is known
        factor = np.exp(half / np.where(mean_B > 0, mean_B, np.nan))
    return mean_B / factor, np.minimum(mean_B * factor, np.maximum(mean_B, max(float(most), 100.0)))


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


@dataclass(frozen=True)
class Brief:
    """One backbone in a sentence."""

    label: str
    retained: float
    strength: str


@dataclass(frozen=True)
class Overview:
    """All backbones together.

    Attributes
    ----------
    strengths : how many backbones are of each class; :data:`~analysis.tables.metrics.OPEN` where too few images chose.
    unsettled : of the others, those whose interval spans more than one class.
    experiments, falls, falls_claimed : experiments; with a fall after the peak layer; with one beyond image noise.
    """

    backbones: int
    retained: float
    lowest: Brief
    highest: Brief
    strengths: Mapping[str, int]
    unsettled: int
    experiments: int
    falls: int | None
    falls_claimed: int | None


def overview(table: pd.DataFrame) -> Overview | None:
    """Mean % retained, the two extremes, counts of each strength, falls after the peak; None without any."""
    known = table[table["retained"].notna()] if len(table) else table
    if not len(known):
        return None
    ordered = known.sort_values("retained", kind="stable")
    counts = known["strength"].value_counts()
    sums = {
        name: int(known[name].sum()) for name in ("n_datasets", "tunnels", "tunnels_claimed") if _counted(known, name)
    }
    return Overview(
        backbones=len(known),
        retained=float(known["retained"].mean()),
        lowest=_brief(ordered.iloc[0].to_dict()),
        highest=_brief(ordered.iloc[-1].to_dict()),
        strengths={name: int(counts.get(name, 0)) for name in STRENGTH_NAMES},
        unsettled=int((~known["settled"].astype(bool) & (known["strength"] != OPEN)).sum()),
        experiments=sums["n_datasets"],
        falls=sums.get("tunnels"),
        falls_claimed=sums.get("tunnels_claimed"),
    )


def _counted(table: pd.DataFrame, name: str) -> bool:
    return name in table and bool(table[name].notna().all())


def _brief(row: Mapping[Any, Any]) -> Brief:
    return Brief(str(row["label"]), float(row["retained"]), str(row["strength"]))


def extremes(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Backbones from the strongest tunnel to the weakest; of more than ``most`` the two ends, in equal parts."""
    if not len(table):
        return table
    ordered = table.sort_values("retained", kind="stable")
    if len(ordered) <= most:
        return ordered
    known = ordered[ordered["retained"].notna()]
    return pd.concat([known.head(most // 2), known.tail(most - most // 2)])
