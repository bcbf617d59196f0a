"""A finished sweep beside published values: own, published, their difference, in units of our interval.

The interval is that of an experiment's test images (and of those that choose its peak layer); of several seeds the
wider of that and the t interval of their mean; of a mean over backbones the t interval over these. A published value
is one more run with noise of its own, which nobody printed: it is taken to be as large as ours, so that two equal
studies differ by at most √2 of our half-widths, and half a printed digit, in about 95 of 100 cells. How much another
training run or another draw of the data moves a cell is only in it where there are seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.estimates import images
from analysis.tables.errors import UserError
from analysis.tables.experiments import GRID, Experiments
from analysis.tables.published import METRICS, OPEN, Published, records, text_of
from analysis.tables.sweep import read_sweep

AGREES, NEAR, DIFFERS = "agrees", "within noise", "differs"
NO_INTERVAL, PARTLY, SEVERAL = "no interval", "partly there", "several cells"
NOT_HERE, NOT_PUBLISHED = "not in the sweep", "not published"
CLASSES: Mapping[str, str] = {
    AGREES: "the published value lies in our 95 % interval",
    NEAR: "outside it, within √2 half-widths and half a printed digit: the noise of two such runs",
    DIFFERS: "further away than the noise of two such runs",
    NO_INTERVAL: "both are known, our interval is not",
    PARTLY: "a mean over more experiments than the sweep has: not to be compared yet",
    SEVERAL: "the sweep has backbones that differ in more than their seed and are all meant",
    NOT_HERE: "published, and the sweep has no such experiment",
    NOT_PUBLISHED: "in the sweep, and no value was published",
}
TWO_RUNS = float(np.sqrt(2))
COLUMNS = (
    "published_in", "metric", "own", "published", "difference", "half_width", "units", "class", "n_own", "n_published",
    "misprint", "where",
)  # fmt: skip


@dataclass(frozen=True)
class Own:
    """Experiments of a sweep, with half-widths of 95 % intervals, one row each.

    Attributes
    ----------
    frame : its columns as words where they are conditions; ``METRIC`` and ``METRIC_half`` for each metric.
    replicates : columns in which repeats of a cell may differ.
    """

    frame: pd.DataFrame
    title: str
    source: str
    accuracy: str
    replicates: tuple[str, ...]
    notes: tuple[str, ...]


def own_experiments(results: str, accuracy: str) -> Own:
    """Experiments of a finished sweep by an accuracy rule.

    Half-widths are those by held-out choice whatever the rule: only there the record of each image is.
    """
    chosen = read_sweep(results, accuracy=accuracy)
    scale = images.with_intervals(chosen if accuracy == "heldout" else read_sweep(results, accuracy="heldout"))
    key = ["backbone", "dataset"]
    wide = scale.frame[key].copy()
    for metric in ("retained", "pearson", "alignment"):
        low, high = f"{metric}_low", f"{metric}_high"
        wide[f"{metric}_half"] = (scale.frame[high] - scale.frame[low]) / 2 if low in scale.frame else np.nan
    frame = chosen.frame.merge(wide, on=key, how="left", validate="one_to_one")
    if "n_test" in frame:
        share = frame["final_accuracy"].astype(float)
        frame["final_accuracy_half"] = 1.96 * np.sqrt(share * (1 - share) / frame["n_test"].astype(float))
    varying = _varying(chosen)
    notes = [note for note in scale.notes if note.startswith(("No intervals", "The intervals"))]
    return Own(frame, chosen.title, chosen.source, chosen.accuracy, varying, tuple(notes))


def _varying(experiments: Experiments) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("seed", *experiments.replicates)))


def compare(own: Own, tables: Sequence[Published]) -> pd.DataFrame:
    """Every published value beside our own, and every experiment of ours that has none.

    Returns
    -------
    :data:`COLUMNS` and a column for each condition; in the order of the tables, then what was not published.

    Raises
    ------
    UserError
        If a table speaks of a column that the sweep does not have.
    """
    words = _words(own.frame, tables)
    seen: dict[str, set[int]] = {metric: set() for metric in METRICS}
    rows = []
    for table in tables:
        for cell in records(table.cells):
            at_E = _matches(words, cell, table.conditions)
            row = _row(own, cell, table, at_E)
            rows.append({**{name: cell[name] for name in table.conditions}, **row})
            if not np.isfinite(cell["count"]):
                seen[cell["metric"]] |= set(np.flatnonzero(at_E))
    rows += _unpublished(own, words, tables, seen)
    conditions = list(dict.fromkeys(name for table in tables for name in table.conditions))
    return pd.DataFrame(rows, columns=[*conditions, *COLUMNS])


def _words(frame: pd.DataFrame, tables: Sequence[Published]) -> dict[str, np.ndarray]:
    """The sweep's columns that conditions speak of, spelt alike."""
    found = {}
    for table in tables:
        for name in table.conditions:
            if name not in frame:
                raise UserError(f"{table.name} speaks of {name}, which the sweep's table does not have")
            found[name] = np.array([folded(text_of(value)) for value in frame[name]], dtype=object)
    return found


def folded(word: str) -> str:
    """``CUB-200`` is what others call ``cub200``: names that differ in case and signs only are the same."""
    return "".join(letter for letter in word.casefold() if letter.isalnum() or letter in ".+")


def _matches(words: Mapping[str, np.ndarray], cell: Mapping[str, Any], conditions: Sequence[str]) -> np.ndarray:
    """Which experiments a published value is of (E,)."""
    at_E = np.ones(len(next(iter(words.values()))), dtype=bool)
    for name in conditions:
        if cell[name] is not OPEN:
            at_E &= words[name] == folded(str(cell[name]))
    return at_E


def _row(own: Own, cell: Mapping[str, Any], table: Published, at_E: np.ndarray) -> dict[str, Any]:
    metric, count = cell["metric"], cell["count"]
    there = own.frame[at_E & own.frame[metric].notna().to_numpy()] if metric in own.frame else own.frame[:0]
    mean = np.isfinite(count)
    value, half = _mean_of_backbones(there, metric) if mean else _one_cell(there, metric)
    difference = value - cell["value"]
    units = difference / half if half > 0 else np.nan
    return {
        "published_in": table.name,
        "metric": metric,
        "own": value,
        "published": cell["value"],
        "difference": difference,
        "half_width": half,
        "units": units,
        "class": _class(own, cell, there, abs(difference), half),
        "n_own": len(there),
        "n_published": int(count) if mean else 1,
        "misprint": cell["misprint"],
        "where": cell["where"],
    }


def _class(own: Own, cell: Mapping[str, Any], there: pd.DataFrame, distance: float, half: float) -> str:
    """The class of agreement; what keeps two values from being compared comes first."""
    mean = np.isfinite(cell["count"])
    told = [*(c for c in GRID if c in there and c not in own.replicates), "dataset"]
    cells = len(there[told].drop_duplicates())  # seeds are repeats
    checks: list[tuple[str, Callable[[], Any]]] = [
        (NOT_HERE, lambda: not len(there)),
        (PARTLY, lambda: mean and cells < cell["count"]),
        (SEVERAL, lambda: not mean and cells > 1),
        (NO_INTERVAL, lambda: not half > 0),
        (AGREES, lambda: distance <= half),
        (NEAR, lambda: distance <= TWO_RUNS * half + cell["half"]),
    ]
    return next((name for name, holds in checks if holds()), DIFFERS)


def _one_cell(there: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Value and half-width of one cell, over its seeds."""
    if not len(there):
        return np.nan, np.nan
    values = there[metric].to_numpy(float)
    half = float(there[f"{metric}_half"].mean()) if f"{metric}_half" in there else np.nan
    return float(values.mean()), float(np.fmax(half, _t_half(values)))


def _mean_of_backbones(there: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Mean over experiments, with the backbones as units."""
    if not len(there):
        return np.nan, np.nan
    units = there.groupby("backbone", sort=False)[metric].mean().to_numpy(float)
    return float(there[metric].mean()), _t_half(units)


def _t_half(values: np.ndarray) -> float:
    """Half-width of the 95 % t interval of a mean; NaN below two values."""
    if len(values) < 2:
        return np.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def _unpublished(
    own: Own, words: Mapping[str, np.ndarray], tables: Sequence[Published], seen: Mapping[str, set[int]]
) -> list[dict[str, Any]]:
    """Experiments of the sweep, for the metrics that were published at all, of which no value was."""
    rows = []
    metrics = dict.fromkeys(m for table in tables for m in table.cells[~np.isfinite(table.cells["count"])]["metric"])
    for metric in metrics:
        for at in sorted(set(range(len(own.frame))) - seen[metric]):
            row = own.frame.iloc[at]
            if pd.isna(row.get(metric)):
                continue
            half = row.get(f"{metric}_half", np.nan)
            said = {name: text_of(row[name]) for name in words}
            rows.append(
                {**said, "metric": metric, "own": row[metric], "half_width": half, "class": NOT_PUBLISHED, "n_own": 1}
            )
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """How many cells of each class, and how far apart, by table and metric: one row each."""
    compared = rows[rows["class"].isin((AGREES, NEAR, DIFFERS, NO_INTERVAL))]
    found = []
    for (table, metric), part in rows[rows["published"].notna()].groupby(["published_in", "metric"], sort=False):
        both = compared[(compared["published_in"] == table) & (compared["metric"] == metric)]
        counts = part["class"].value_counts()
        found.append(
            {
                "published_in": table,
                "metric": metric,
                "cells": len(part),
                **{name: int(counts.get(name, 0)) for name in CLASSES if name != NOT_PUBLISHED},
                "mean_difference": both["difference"].mean(),
                "mean_distance": both["difference"].abs().mean(),
                "correlation": _correlation(both),
            }
        )
    return pd.DataFrame(found)


def _correlation(both: pd.DataFrame) -> float:
    if len(both) < 3 or both["own"].nunique() < 2 or both["published"].nunique() < 2:
        return np.nan
    return float(np.corrcoef(both["own"].astype(float), both["published"].astype(float))[0, 1])
