"""Intervals that include the choice of the peak layer, against a simulated truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.estimates import images
from analysis.tables import metrics
from analysis.tables.metrics import Curves

FALL = np.array([0.30, 0.42, 0.52, 0.57, 0.59, 0.59, 0.57, 0.53, 0.48, 0.42])  # the best layers are 5 and 6
PLATEAU = np.array([0.30, 0.40, 0.47, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50])


def _bits(truth_L: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Right or not (L, n); layers share most of what makes an image easy."""
    own_LN = rng.uniform(size=(len(truth_L), n))
    return np.where(rng.uniform(size=own_LN.shape) < 0.6, rng.uniform(size=n), own_LN) < truth_L[:, None]


def _table(truth_L: np.ndarray, curves: int, *, held: int, test: int, crossed: int = 0) -> pd.DataFrame:
    """Curves of the same truth, each on a dataset of its own, with the bits of all images."""
    rng, rows = np.random.default_rng(held + test + crossed), []
    for number in range(curves):
        parts = {"correct": test, "heldout_correct": held, "crossfit_correct": crossed}
        bits = {name: _bits(truth_L, n, rng) for name, n in parts.items() if n}
        top1 = {"correct": "top1", "heldout_correct": "heldout_top1", "crossfit_correct": "crossfit_top1"}
        for layer in range(len(truth_L)):
            row = {"curve_key": f"{number:04d}", "backbone": f"b{number}", "dataset": f"d{number}", "is_id": False}
            row |= {
                "chance": 0.1,
                "layer": layer + 1,
                "n_test": test,
                "n_heldout": held,
                "n_train": crossed or 10 * held,
            }
            row |= {name: np.packbits(right_LN[layer]).tobytes() for name, right_LN in bits.items()}
            row |= {top1[name]: right_LN[layer].mean() for name, right_LN in bits.items()}
            rows.append(row | {"top1_best": row["top1"], "top1_last": row["top1"]})
    return pd.DataFrame(rows)


def _measured(folder: Path, table: pd.DataFrame) -> tuple[Curves, pd.DataFrame]:
    pq.write_table(pa.Table.from_pandas(table), folder / "probes.parquet")
    curves = metrics.collect(table, accuracy="heldout")
    frame = metrics.experiments(curves, accuracy="heldout")
    found = images.intervals(str(folder / "probes.parquet"), curves, frame)
    assert found is not None
    return curves, pd.concat([frame, found], axis=1)


def test_intervals_hold_the_truth_where_few_images_choose_and_a_fixed_peak_does_not(tmp_path: Path) -> None:
    table = _table(FALL, 100, held=43, test=200)
    _, found = _measured(tmp_path, table)
    truth = 100 * FALL[-1] / FALL.max()
    assert ((found.retained_low <= truth) & (truth <= found.retained_high)).mean() >= 0.92
    assert ((found.peak_layer_low <= 6) & (found.peak_layer_high >= 5)).mean() >= 0.92
    assert ((found.retained_low <= found.retained) & (found.retained <= found.retained_high)).all()
    _, fixed = _measured(tmp_path, table.drop(columns="heldout_correct"))
    assert fixed[["peak_layer_low", "tunnel_start_high"]].isna().all().all()
    narrower = (fixed.retained_high - fixed.retained_low) / (found.retained_high - found.retained_low)
    assert narrower.mean() < 0.85


def test_a_cross_fit_chooses_the_peak_and_is_counted(tmp_path: Path) -> None:
    few, crossed = (_table(FALL, 60, held=43, test=100, crossed=n) for n in (0, 430))
    _, by_heldout = _measured(tmp_path, few)
    _, by_folds = _measured(tmp_path, crossed)
    assert (set(by_heldout.n_choosing), set(by_folds.n_choosing)) == ({43}, {430})
    misses = [np.mean(np.maximum(0, np.abs(f.peak_layer - 5.5) - 0.5)) for f in (by_heldout, by_folds)]
    assert misses[1] < 0.7 * misses[0]
    assert (by_folds.peak_layer_high - by_folds.peak_layer_low).mean() < (
        by_heldout.peak_layer_high - by_heldout.peak_layer_low
    ).mean()


def test_a_plateau_is_no_tunnel(tmp_path: Path) -> None:
    _, found = _measured(tmp_path, _table(PLATEAU, 40, held=43, test=200))
    assert not found.tunnel_claimed.any()


def test_ties_go_by_loss_then_to_the_middle_whatever_the_direction() -> None:
    """Turned around, a curve has its peak at the mirrored layer: the rule favours neither end."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        layers = int(rng.integers(1, 10))
        choice_L, loss_L = rng.integers(0, 3, layers) / 3, rng.integers(0, 2, layers) / 2
        peaks = []
        for order in (np.arange(layers), np.arange(layers)[::-1]):
            table = pd.DataFrame(
                {"curve_key": "k", "backbone": "b", "dataset": "d", "is_id": False, "chance": 0.1,
                 "layer": np.arange(layers) + 1, "top1": 0.5, "top1_best": 0.5, "heldout_top1": choice_L[order],
                 "heldout_loss": loss_L[order]}
            )  # fmt: skip
            found = metrics.experiments(metrics.collect(table, accuracy="heldout"), accuracy="heldout")
            peaks.append(int(order[found.peak_layer.iloc[0] - 1]))
        best = [at for at in range(layers) if choice_L[at] == choice_L.max()]
        tied = [at for at in best if loss_L[at] == loss_L[best].min()]
        assert set(peaks) <= set(tied)
        assert sum(tied.index(peak) for peak in peaks) == len(tied) - 1


@pytest.mark.parametrize("column", ["heldout_correct", "crossfit_correct"])
def test_bits_of_the_images_that_choose_are_held_against_their_accuracy(tmp_path: Path, column: str) -> None:
    table = _table(FALL, 2, held=40, test=50, crossed=80 if column == "crossfit_correct" else 0)
    table.loc[0, column.replace("correct", "top1")] += 0.2
    with pytest.raises(metrics.UserError, match=f"column {column} disagrees"):
        _measured(tmp_path, table)


def test_places_of_the_tunnel_have_their_noise(tmp_path: Path) -> None:
    steep = np.array([0.1, 0.3, 0.84, 0.9, 0.9])  # 84 is 93 % of 90: 95 % are reached at layer 4, by noise at 3
    own = _table(steep, 60, held=50, test=300).assign(is_id=True)
    own = own.assign(curve_key="id " + own["curve_key"], dataset="id " + own["dataset"])
    table = pd.concat([own, _table(np.array([0.2, 0.5, 0.8, 0.5, 0.3]), 60, held=50, test=300)], ignore_index=True)
    _, found = _measured(tmp_path, table)
    assert ((found.id_start_95_low <= 4) & (found.id_start_95_high >= 4)).mean() >= 0.92
    assert found.id_start_95_low.min() == 3
    assert (found.id_start_95_low <= found.id_start_98_low).all()
    assert (found.tunnel_length_low == 5 - found.tunnel_start_high).all()
    assert ((found.tunnel_length_low <= 2) & (found.tunnel_length_high >= 2)).mean() >= 0.92
    assert (metrics.places(found, "tunnel_length") == found.tunnel_length).all()
    assert (metrics.places(found, "id_length_95") == 5 - found.id_start_95.astype(float)).all()
