"""Intervals of an experiment's metrics from its test images: a paired bootstrap on which images were right.

The same resampled images serve every layer and every backbone of a dataset. The peak layer stays as held-out images
chose it, so the intervals are those of the test accuracies; ID and OOD images are resampled independently.
Legend: R resamples, L layers, N test images.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.tables import storage
from analysis.tables.errors import UserError
from analysis.tables.experiments import Experiments
from analysis.tables.metrics import Curves, correlations
from analysis.tables.variables import Array

RESAMPLES = 400
Interval = tuple[float | None, float | None]
MOST_CURVES = 3000  # above this the bits are left alone, and the page says so
COLUMNS = (
    "retained_low", "retained_high", "pearson_low", "pearson_high", "alignment_low", "alignment_high", "drop_low",
    "drop_high", "tunnel_claimed",
)  # fmt: skip


def with_intervals(experiments: Experiments) -> Experiments:
    """Experiments with the columns :data:`COLUMNS`, and a note on why they are not there if they cannot be."""
    why = _why_not(experiments)
    curves = experiments.curves
    if why is None and curves is not None:
        found = intervals(experiments.source, curves, experiments.frame)
        if found is not None:
            return replace(experiments, frame=pd.concat([experiments.frame, found], axis=1))
        why = "some probes have no per-image record of which test images were right"
    return _noted(experiments, why)


def without(experiments: Experiments) -> Experiments:
    """Experiments without intervals, because nobody asked for resampling; a note says so."""
    return _noted(experiments, "no resampling was asked for")


def _noted(experiments: Experiments, why: str | None) -> Experiments:
    return replace(experiments, notes=(*experiments.notes, f"No intervals of single experiments: {why}"))


def _why_not(experiments: Experiments) -> str | None:
    if experiments.curves is None:
        return "the table has no per-image record of which test images were right"
    if experiments.choice != "heldout":
        return "the per-image record belongs to the epoch that held-out images chose, not to this choice of accuracy"
    if len(experiments.curves.table) > MOST_CURVES:
        return f"{len(experiments.curves.table)} curves are more than the {MOST_CURVES} that are resampled"
    names = storage.schema(experiments.source).names
    missing = [name for name in ("correct", "n_test") if name not in names]
    return f"the table has no column {missing[0]}" if missing else None


def intervals(source: str, curves: Curves, frame: pd.DataFrame) -> pd.DataFrame | None:
    """95 % intervals of each experiment's metrics, one row per row of ``frame``; None if bits are missing.

    ``drop`` is peak accuracy − last accuracy; a tunnel is claimed where its interval excludes zero.
    """
    accuracy = dict(_accuracies(source, curves))
    if len(accuracy) < len(curves.table):
        return None
    table = curves.table
    position = {key: c for c, key in enumerate(table["curve_key"])}
    backbone_C = table["backbone"].to_numpy()
    id_curve = {backbone_C[c]: int(c) for c in np.flatnonzero(table["is_id"].to_numpy(bool))}
    chance_C = table["chance"].to_numpy(float)
    rows = []
    for key, backbone, peak in zip(frame["curve_key"], frame["backbone"], frame["peak_layer"], strict=True):
        c, own = position[key], id_curve.get(backbone)
        layers = curves.layer_N[curves.start_C[c] : curves.stop_C[c]]
        chance = float(chance_C[c])
        id_RL = None if own is None else accuracy[own]
        id_chance = 0.0 if own is None else float(chance_C[own])
        rows.append(_intervals(accuracy[c], id_RL, int(np.flatnonzero(layers == peak)[0]), chance, id_chance))
    return pd.DataFrame(rows, columns=list(COLUMNS), index=frame.index)


def _accuracies(source: str, curves: Curves) -> Iterator[tuple[int, Array]]:
    """Resampled accuracies (R, L) of each curve, while streaming the bits through memory."""
    curve_of_row = np.full(int(curves.row_N.max()) + 1, -1)
    length_C = curves.stop_C - curves.start_C
    curve_of_row[curves.row_N] = np.repeat(np.arange(len(length_C)), length_C)
    flat_of_row = np.zeros(len(curve_of_row), dtype=np.int64)
    flat_of_row[curves.row_N] = np.arange(len(curves.row_N))
    waiting: dict[int, dict[int, np.ndarray]] = {}
    draws: dict[tuple[str, int], Array] = {}
    row = 0
    for batch in storage.parquet_batches(source, ["correct"], rows=2000):
        for bits in batch.column(0):
            c = curve_of_row[row] if row < len(curve_of_row) else -1
            if c >= 0 and bits.is_valid:
                own = waiting.setdefault(int(c), {})
                own[int(flat_of_row[row])] = np.frombuffer(bits.as_py(), dtype=np.uint8)
                if len(own) == length_C[c]:
                    yield int(c), _resampled(curves, int(c), waiting.pop(int(c)), draws)
            row += 1


def _resampled(curves: Curves, c: int, bytes_of: dict[int, np.ndarray], draws: dict[tuple[str, int], Array]) -> Array:
    n = int(curves.table["n_test"].to_numpy(int)[c])
    right_LN = np.array([np.unpackbits(bytes_of[flat])[:n] for flat in sorted(bytes_of)], dtype=np.float32)
    stated_L = curves.accuracy_N[curves.start_C[c] : curves.stop_C[c]]
    if right_LN.shape[1] != n or np.abs(right_LN.mean(axis=1) - stated_L).max() > 1e-4:
        key = curves.table["curve_key"].iat[c]
        raise UserError(f"curve_key {key}: column correct disagrees with top1 (n_test {n}); the table is damaged")
    dataset = str(curves.table["dataset"].iat[c])
    if (dataset, n) not in draws:
        rng = np.random.default_rng(zlib.crc32(dataset.encode()))
        draws[dataset, n] = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32)
    result: Array = (draws[dataset, n] @ right_LN.T).astype(float) / n
    return result


def _intervals(ood_RL: Array, id_RL: Array | None, peak: int, chance: float, id_chance: float) -> list[object]:
    last_R, peak_R = ood_RL[:, -1], ood_RL[:, peak]
    kept_R = 100 * last_R / np.where(peak_R > 0, peak_R, np.nan)
    drop = _interval(peak_R - last_R)
    pearson: Interval = (None, None)
    alignment: Interval = (None, None)
    if id_RL is not None:
        alignment = _interval((id_RL[:, -1] - id_chance) * (last_R - chance))
        if id_RL.shape == ood_RL.shape and ood_RL.shape[1] > 1:
            pearson = _interval(correlations(id_RL, ood_RL))
    claimed = drop[0] is not None and drop[0] > 0
    return [*_interval(kept_R), *pearson, *alignment, *drop, claimed]


def _interval(values_R: Array) -> Interval:
    finite = values_R[np.isfinite(values_R)]
    if len(finite) < 0.8 * len(values_R):
        return None, None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
