"""What networks that learned several tasks show: extractors and tunnels put together, forgetting, transfer.

A configuration is what tells courses apart but for the seed; seeds are what is independent, and what an interval rests
on. Accuracies are percentages, changes are points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.estimates.estimate import ALPHA, Estimate, holm
from analysis.tables.continual import configurations

WHOLE = "E1+T1"  # what everything is compared with
EVERY = "all"  # splits at every layer
_SAME = 1e-9  # points; differences of equal numbers that float arithmetic leaves


@dataclass(frozen=True)
class Row:
    """One combination of extractor and tunnel on one task.

    Attributes
    ----------
    split : the layers that the extractor ends with, over seeds.
    accuracy : its test top-1, %.
    change : against E1+T1 on the same task, points, paired by seed; of E1+T1 itself without a value.
    """

    configuration: str
    tasks: str
    split_by: str
    split: str
    combination: str
    task: int
    accuracy: Estimate
    change: Estimate


@dataclass(frozen=True)
class Memory:
    """What a configuration keeps of its tasks, as changes in points.

    Attributes
    ----------
    depth : of the network.
    forgetting : of tasks before the last: accuracy right after each, less that in the end.
    features : the same with classifiers trained anew: what the features forget.
    transfer : of tasks after the first, classifiers trained anew: accuracy before each is learned, less untrained.
    """

    configuration: str
    tasks: str
    depth: float | None
    forgetting: Estimate
    features: Estimate
    transfer: Estimate


@dataclass(frozen=True)
class Tasks:
    """All of a table of courses.

    Attributes
    ----------
    matrix : mean accuracy (%) by configuration, ``after_task`` and ``task``.
    layers : by configuration, ``combination``, ``task`` and ``split_layer``: ``accuracy`` (%), ``low`` and ``high``.
    """

    rows: tuple[Row, ...]
    memory: tuple[Memory, ...]
    matrix: pd.DataFrame
    layers: pd.DataFrame


def summarised(courses: pd.DataFrame) -> Tasks:
    """Average over seeds, with intervals; changes are corrected over all that the table compares (Holm)."""
    frame = courses.assign(configuration=configurations(courses), accuracy=100 * courses["top1"])
    rows = _corrected([row for _, own in frame.groupby("configuration", sort=False) for row in _ordered(own)])
    memory = [_memory(own) for _, own in frame.groupby("configuration", sort=False)]
    matrix = frame[frame["kind"] == "matrix"].astype({"after_task": int})
    return Tasks(
        tuple(rows),
        tuple(memory),
        matrix.groupby(["configuration", "after_task", "task"], sort=False)["accuracy"].mean().reset_index(),
        _layers(frame),
    )


def mean_of(values: Sequence[float]) -> Estimate:
    """Mean over seeds with its t interval; without one where there is a single seed, or all seeds agree.

    Seeds that agree to the last image say nothing of how far others would differ: no width is not certainty.
    """
    known = np.array([value for value in values if np.isfinite(value)], float)
    n = len(known)
    about: dict[str, Any] = {"unit": "seed", "n_units": n, "method": "mean over seeds, t interval"}
    if n == 0:
        return Estimate(None, **about)
    mean = float(known.mean())
    error = float(known.std(ddof=1)) / np.sqrt(n) if n > 1 else 0.0
    if error < _SAME:
        return Estimate(mean, **about)
    reach = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Estimate(mean, mean - reach, mean + reach, p=p, df=n - 1.0, **about)


def _ordered(own: pd.DataFrame) -> list[Row]:
    """Rows of one configuration by split, in the order of :func:`place`."""
    rows = list(_rows(own))
    splits = list(dict.fromkeys(row.split_by for row in rows))
    return sorted(rows, key=lambda row: (splits.index(row.split_by), place(row.combination), row.task))


def _rows(own: pd.DataFrame) -> Iterator[Row]:
    """Rows of one configuration, split as its config asks for it; not those of every layer."""
    swaps = own[(own["kind"] == "combination") & (own["split_by"] != EVERY)]
    for (split_by, combination, task), group in swaps.groupby(["split_by", "combination", "task"], sort=False):
        whole = swaps[(swaps["split_by"] == split_by) & (swaps["combination"] == WHOLE) & (swaps["task"] == task)]
        measured = _once(group)
        change = (measured - _once(whole)).dropna()
        layers = sorted(set(group["split_layer"].astype(int).tolist()))
        yield Row(
            str(own["configuration"].iloc[0]),
            str(own["tasks"].iloc[0]),
            str(split_by),
            str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}",
            str(combination),
            int(group["task"].iloc[0]),
            mean_of(measured.tolist()),
            Estimate(None) if combination == WHOLE else replace(mean_of(change.tolist()), method="paired by seed, t"),
        )


def _once(rows: pd.DataFrame) -> pd.Series:
    """Accuracy of each course, once: E1+T1 stands there for every later task."""
    return rows.drop_duplicates("course_key").set_index("course_key")["accuracy"]


def place(combination: str) -> tuple[bool, bool, str, str]:
    """E1+T1, E1+T2, E2+T2, E2+T1, then what was trained further, as [H24] lists them."""
    extractor, _, tunnel = combination.removesuffix(" fine-tuned").partition("+")
    swapped = extractor != "E1" and tunnel == "T1"
    return "fine-tuned" in combination, not tunnel, extractor, f"{int(swapped)}{tunnel}"


def _corrected(rows: Sequence[Row]) -> list[Row]:
    adjusted = holm([row.change.p for row in rows])
    return [replace(row, change=row.change.corrected(p)) for row, p in zip(rows, adjusted, strict=True)]


def _memory(own: pd.DataFrame) -> Memory:
    matrix = own[own["kind"] == "matrix"]
    by_course = [_kept(course) for _, course in matrix.groupby("course_key", sort=False)]
    forgetting, features, transfer = (mean_of(list(values)) for values in zip(*by_course, strict=True))
    depth = own["depth"].iloc[0] if "depth" in own else None
    return Memory(
        str(own["configuration"].iloc[0]),
        str(own["tasks"].iloc[0]),
        None if depth is None or pd.isna(depth) else float(depth),
        forgetting,
        features,
        transfer,
    )


def _kept(course: pd.DataFrame) -> tuple[float, float, float]:
    """Forgetting, that of the features, and forward transfer of one course, points."""
    places = list(zip(course["after_task"].astype(int), course["task"].astype(int), strict=True))
    last = max(task for _, task in places)
    own = dict(zip(places, course["top1"].astype(float), strict=True))
    again = dict(zip(places, course["head_refit_top1"].astype(float), strict=True))
    lost = [(100 * (have[t, t] - have[last, t])) for have in (own, again) for t in range(1, last)]
    gained = [100 * (again[t - 1, t] - again[0, t]) for t in range(2, last + 1)]
    return float(np.mean(lost[: last - 1])), float(np.mean(lost[last - 1 :])), float(np.mean(gained))


def _layers(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy against the split layer, where every layer was asked for."""
    every = frame[(frame["kind"] == "combination") & (frame["split_by"] == EVERY)]
    by, found = ["configuration", "combination", "task", "split_layer"], []
    for key, group in every.groupby(by, sort=False):
        mean = mean_of(_once(group).tolist())
        found.append((*key, mean.value, mean.low, mean.high))
    return pd.DataFrame(found, columns=[*by, "accuracy", "low", "high"])
