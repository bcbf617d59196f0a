"""Intervals of an experiment's metrics from its images: a paired bootstrap on which images were right.

Test images and the images that choose the peak layer (held-out ones, or all training images where they were
cross-fitted) are resampled independently of each other, and the peak is chosen anew in every resample, so that the
intervals include the choice. The same resampled images serve every layer and every backbone of a dataset; ID and OOD
images are independent. Older tables lack the record of held-out images: there the peak stays, and a note says so.
Legend: R resamples, L layers, N images.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.tables import storage
from analysis.tables.errors import UserError
from analysis.tables.experiments import Experiments
from analysis.tables.metrics import ID_RULES, Curves, correlations
from analysis.tables.variables import Array

RESAMPLES = 400
Interval = tuple[float | None, float | None]
MOST_CURVES = 3000  # above this the bits are left alone, and the page says so
COLUMNS = (
    "retained_low", "retained_high", "pearson_low", "pearson_high", "alignment_low", "alignment_high", "drop_low",
    "drop_high", "peak_layer_low", "peak_layer_high", "tunnel_start_low", "tunnel_start_high", "tunnel_claimed",
    "tunnel_length_low", "tunnel_length_high",
    *(f"id_start_{percent}_{end}" for percent in ID_RULES for end in ("low", "high")),
)  # fmt: skip
_TEST, _HELDOUT, _CROSSED = "correct", "heldout_correct", "crossfit_correct"
_COUNTS = {_TEST: "n_test", _HELDOUT: "n_heldout", _CROSSED: "n_train"}  # images behind the bits
Draws = dict[tuple[str, str, int], Array]


@dataclass(frozen=True)
class Resampled:
    """Accuracies of a curve in every resample (R, L): on test images, and on those that choose, None if unknown."""

    test_RL: Array
    choice_RL: Array | None


_FIXED = (
    "The intervals of {} of {} experiments are those of test images only: the table has no record of which held-out "
    "images were right, so that the noise of choosing the peak layer is not in them"
)


def with_intervals(experiments: Experiments) -> Experiments:
    """Experiments with the columns :data:`COLUMNS`, and a note on why they are not there if they cannot be."""
    why = _why_not(experiments)
    curves = experiments.curves
    if why is None and curves is not None:
        found = intervals(experiments.source, curves, experiments.frame)
        if found is not None:
            made = replace(experiments, frame=pd.concat([experiments.frame, found], axis=1))
            fixed = int(found["peak_layer_low"].isna().sum())
            return replace(made, notes=(*made.notes, *([_FIXED.format(fixed, len(found))] * (fixed > 0))))
        why = "some probes have no per-image record of which test images were right"
    return _noted(experiments, why)


def choice_resampled(experiments: Experiments) -> bool:
    """Whether the intervals of all experiments include the choice of the peak layer."""
    frame = experiments.frame
    return "peak_layer_low" in frame and bool(frame["peak_layer_low"].notna().all())


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

    ``drop`` is peak accuracy − last accuracy; a tunnel is claimed where its interval excludes zero. For the interval of
    ``tunnel_start`` a resample without a tunnel counts as the last layer, so that the length is 0. ``id_start_95`` and
    ``id_start_98`` are found anew in every resample of the ID test images.
    """
    found = dict(_resamples(source, curves))
    if len(found) < len(curves.table):
        return None
    table = curves.table
    position = {key: c for c, key in enumerate(table["curve_key"])}
    backbone_C = table["backbone"].to_numpy()
    id_curve = {backbone_C[c]: int(c) for c in np.flatnonzero(table["is_id"].to_numpy(bool))}
    chance_C = table["chance"].to_numpy(float)
    rows = []
    for key, backbone, peak in zip(frame["curve_key"], frame["backbone"], frame["peak_layer"], strict=True):
        c, own = position[key], id_curve.get(backbone)
        layers_L = curves.layer_N[curves.start_C[c] : curves.stop_C[c]]
        peak_R = _peaks(found[c], int(np.flatnonzero(layers_L == peak)[0]))
        id_RL = None if own is None else found[own].test_RL
        id_chance = 0.0 if own is None else float(chance_C[own])
        against = _against_id(found[c].test_RL, id_RL, float(chance_C[c]), id_chance)
        kept, drop, claimed, *places = _tunnel(found[c], peak_R, layers_L)
        length = [None if start is None else float(layers_L[-1] - start) for start in places[:-3:-1]]
        rows.append([*kept, *against, *drop, *places, claimed, *length, *_id_starts(id_RL)])
    return pd.DataFrame(rows, columns=list(COLUMNS), index=frame.index)


def _resamples(source: str, curves: Curves) -> Iterator[tuple[int, Resampled]]:
    """Resampled accuracies of each curve, while streaming the bits through memory."""
    curve_of_row = np.full(int(curves.row_N.max()) + 1, -1)
    length_C = curves.stop_C - curves.start_C
    curve_of_row[curves.row_N] = np.repeat(np.arange(len(length_C)), length_C)
    flat_of_row = np.zeros(len(curve_of_row), dtype=np.int64)
    flat_of_row[curves.row_N] = np.arange(len(curves.row_N))
    names = [name for name in (_TEST, _HELDOUT, _CROSSED) if name in storage.schema(source).names]
    waiting: dict[int, dict[int, dict[str, bytes]]] = {}
    draws: Draws = {}
    row = 0
    for batch in storage.parquet_batches(source, names, rows=2000):
        for bits in zip(*(batch.column(name) for name in names), strict=True):
            c = curve_of_row[row] if row < len(curve_of_row) else -1
            if c >= 0 and bits[0].is_valid:
                own = waiting.setdefault(int(c), {})
                own[int(flat_of_row[row])] = {n: b.as_py() for n, b in zip(names, bits, strict=True) if b.is_valid}
                if len(own) == length_C[c]:
                    layers = waiting.pop(int(c))
                    yield int(c), _resampled(curves, int(c), [layers[flat] for flat in sorted(layers)], draws)
            row += 1


def _resampled(curves: Curves, c: int, bits_L: list[dict[str, bytes]], draws: Draws) -> Resampled:
    at = slice(curves.start_C[c], curves.stop_C[c])
    chooser = _CROSSED if curves.crossed_C[c] else _HELDOUT
    known = all(chooser in bits for bits in bits_L) and _COUNTS[chooser] in curves.table
    return Resampled(
        _drawn(curves, c, _TEST, bits_L, curves.accuracy_N[at], draws),
        _drawn(curves, c, chooser, bits_L, curves.choice_N[at], draws) if known else None,
    )


def _drawn(curves: Curves, c: int, name: str, bits_L: list[dict[str, bytes]], stated_L: Array, draws: Draws) -> Array:
    """Accuracies of resamples of some images, (R, L), after a look at whether the bits are those of the accuracies."""
    n = int(curves.table[_COUNTS[name]].to_numpy(float)[c])
    right_LN = np.array(
        [np.unpackbits(np.frombuffer(bits[name], dtype=np.uint8))[:n] for bits in bits_L], dtype=np.float32
    )
    if right_LN.shape[1] != n or np.abs(right_LN.mean(axis=1) - stated_L).max() > 1e-4:
        key = curves.table["curve_key"].iat[c]
        whose = "top1" if name == _TEST else name.replace("correct", "top1")
        raise UserError(f"curve_key {key}: column {name} disagrees with {whose} ({_COUNTS[name]} {n}); damaged table")
    dataset = str(curves.table["dataset"].iat[c])
    if (dataset, name, n) not in draws:
        rng = np.random.default_rng(zlib.crc32((dataset if name == _TEST else f"{dataset} {name}").encode()))
        draws[dataset, name, n] = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32)
    result: Array = (draws[dataset, name, n] @ right_LN.T).astype(float) / n
    return result


def _peaks(found: Resampled, chosen: int) -> npt.NDArray[np.int64]:
    """Place of the peak in every resample (R,); of equal layers any, so that the interval covers all of them."""
    if found.choice_RL is None:
        return np.full(len(found.test_RL), chosen)
    tied_RL = found.choice_RL >= found.choice_RL.max(axis=1, keepdims=True) - 1e-9
    lots_RL = np.random.default_rng(0).uniform(size=tied_RL.shape)
    result: npt.NDArray[np.int64] = np.where(tied_RL, lots_RL, -1).argmax(axis=1)
    return result


def _tunnel(
    found: Resampled, peak_R: npt.NDArray[np.int64], layers_L: npt.NDArray[np.int64]
) -> tuple[Interval, Interval, bool, float | None, float | None, float | None, float | None]:
    """Intervals of % retained and of the drop, whether it is claimed, and the ends for peak layer and tunnel start."""
    last_R, peak_accuracy_R = found.test_RL[:, -1], found.test_RL[np.arange(len(peak_R)), peak_R]
    kept = _interval(100 * last_R / np.where(peak_accuracy_R > 0, peak_accuracy_R, np.nan))
    drop = _interval(peak_accuracy_R - last_R)
    claimed = drop[0] is not None and drop[0] > 0
    if found.choice_RL is None:
        return kept, drop, claimed, None, None, None, None
    start_R = np.where(peak_accuracy_R > last_R, peak_R, len(layers_L) - 1)
    places = [_interval(layers_L[each_R].astype(float), whole=True) for each_R in (peak_R, start_R)]
    return kept, drop, claimed, *places[0], *places[1]


def _against_id(ood_RL: Array, id_RL: Array | None, chance: float, id_chance: float) -> list[float | None]:
    """Ends of the intervals of the correlation and of the alignment with the ID curve."""
    pearson: Interval = (None, None)
    alignment: Interval = (None, None)
    if id_RL is not None:
        alignment = _interval((id_RL[:, -1] - id_chance) * (ood_RL[:, -1] - chance))
        if id_RL.shape == ood_RL.shape and ood_RL.shape[1] > 1:
            pearson = _interval(correlations(id_RL, ood_RL))
    return [*pearson, *alignment]


def _id_starts(id_RL: Array | None) -> list[float | None]:
    """Ends of the intervals of the first layer that reaches each share of the last one's ID accuracy."""
    if id_RL is None:
        return [None, None] * len(ID_RULES)
    starts = [(id_RL >= percent / 100 * id_RL[:, -1:]).argmax(axis=1) + 1.0 for percent in ID_RULES]
    return [end for start_R in starts for end in _interval(start_R, whole=True)]


def _interval(values_R: Array, *, whole: bool = False) -> Interval:
    finite = values_R[np.isfinite(values_R)]
    if len(finite) < 0.8 * len(values_R):
        return None, None
    low, high = np.percentile(finite, [2.5, 97.5], method="closest_observation" if whole else "linear")
    return float(low), float(high)
