"""Each metric against a hand-worked example, and what happens to curves that are not whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from synthetic_tables import grid, probe_table, write_sweep

from analysis import backbones, experiments, metrics, noise
from analysis.errors import UserError


def _curve(
    key: str, dataset: str, is_id: bool, accuracy: list[float], heldout: list[float], best: list[float], classes: int
) -> list[dict]:
    return [
        {
            "curve_key": key, "backbone": "b", "dataset": dataset, "is_id": is_id, "chance": 1 / classes,
            "layer": n + 1, "top1": a, "top1_last": a, "heldout_top1": h, "top1_best": b,
        }
        for n, (a, h, b) in enumerate(zip(accuracy, heldout, best, strict=True))
    ]  # fmt: skip


def _table() -> pd.DataFrame:
    own = _curve("k0", "fractals", True, [0.40, 0.74, 0.79, 0.80], [0.4, 0.7, 0.8, 0.8], [0.4, 0.7, 0.8, 0.8], 10)
    ood = _curve("k1", "glyphs", False, [0.20, 0.50, 0.52, 0.40], [0.2, 0.6, 0.5, 0.4], [0.2, 0.50, 0.54, 0.40], 20)
    return pd.DataFrame(own + ood)


def test_every_metric_by_hand() -> None:
    frame = metrics.experiments(metrics.collect(_table(), accuracy="heldout"), accuracy="heldout")
    row = frame.iloc[0]
    assert len(frame) == 1
    # held-out accuracy peaks at layer 2, though test accuracy is highest at layer 3
    assert (row.peak_layer, row.tunnel, row.tunnel_start, row.tunnel_length) == (2, True, 2, 2)
    assert row.retained == pytest.approx(100 * 0.40 / 0.50)
    assert row.retained_paper == pytest.approx(100 * 0.40 / 0.54)
    # the alignment of protocol §8 and the ID rule of [M23]: .95 * .80 = .76, .98 * .80 = .784
    assert row.alignment == pytest.approx((0.80 - 0.10) * (0.40 - 0.05))
    assert (row.id_start_95, row.id_start_98) == (3, 3)
    x, a = np.array([0.40, 0.74, 0.79, 0.80]), np.array([0.20, 0.50, 0.52, 0.40])
    expected = ((x - x.mean()) * (a - a.mean())).sum() / np.sqrt(
        ((x - x.mean()) ** 2).sum() * ((a - a.mean()) ** 2).sum()
    )
    assert row.pearson == pytest.approx(expected)


def test_the_papers_accuracy_takes_its_peak_on_test() -> None:
    frame = metrics.experiments(metrics.collect(_table(), accuracy="paper"), accuracy="paper")
    assert frame.peak_layer.iloc[0] == 3
    assert frame.retained.iloc[0] == frame.retained_paper.iloc[0] == pytest.approx(100 * 0.40 / 0.54)


def test_equal_accuracies_are_no_tunnel() -> None:
    flat = np.full(5, 0.3)
    assert metrics.peak_layer(flat, deepest=True) == 4
    assert metrics.peak_layer(flat, deepest=False) == 0
    assert np.isnan(metrics.pearson(flat, np.arange(5.0)))
    assert np.isnan(metrics.retained(np.zeros(3), 0))


def test_a_flat_noisy_curve_is_not_biased_downwards_by_depth() -> None:
    """The maximum over noisy test accuracies is biased, more for deep nets; the held-out peak is not."""
    rng = np.random.default_rng(0)
    kept = {10: ([], []), 33: ([], [])}
    for depth, (ours, papers) in kept.items():
        for _ in range(400):
            test, held = (rng.binomial(1020, 0.3, depth) / 1020 for _ in range(2))
            ours.append(metrics.retained(test, metrics.peak_layer(held, deepest=True)))
            papers.append(metrics.retained(test, metrics.peak_layer(test, deepest=False)))
    assert all(abs(np.mean(ours) - 100) < 1.0 for ours, _ in kept.values())
    assert np.mean(kept[33][1]) < np.mean(kept[10][1]) < 95


@pytest.mark.parametrize(
    ("retained", "name"), [(95, "negligible"), (94.9, "weak"), (90, "weak"), (80, "medium"), (79.9, "strong")]
)
def test_strength_classes(retained: float, name: str) -> None:
    assert metrics.strength(retained) == name


def test_broken_and_missing_layers_are_listed_not_dropped_in_silence(tmp_path: Path) -> None:
    frame = probe_table(grid(seed=[0, 1])).to_pandas()
    frame.loc[(frame.curve_key == "curve-000-glyphs") & (frame.layer == 3), ["top1", "problem"]] = [
        np.nan,
        "not finite",
    ]
    frame = frame[~((frame.curve_key == "curve-001-digits") & (frame.layer == 2))]
    found = experiments.read_sweep(str(write_sweep(tmp_path, pa.Table.from_pandas(frame))), accuracy="heldout")
    assert dict(zip(found.incomplete.curve_key, found.incomplete.reason, strict=True)) == {
        "curve-000-glyphs": "not finite",
        "curve-001-digits": "layers are missing",
    }
    assert len(found.frame) == 4


def test_failed_curves_of_the_sweep_are_counted(tmp_path: Path) -> None:
    table = probe_table(grid(seed=[0, 1]), varied={"seed": "replicate"}, failed=["abc"])
    found = experiments.read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout")
    assert found.planned == 9
    assert list(found.incomplete.curve_key) == ["abc"]


def test_a_layer_that_stands_twice_is_refused() -> None:
    with pytest.raises(UserError, match="layer 1 stands in the table twice"):
        metrics.collect(pd.concat([_table(), _table()]), accuracy="heldout")


def test_a_backbone_without_its_id_curve_still_has_retained() -> None:
    table = _table()
    frame = metrics.experiments(metrics.collect(table[~table.is_id], accuracy="heldout"), accuracy="heldout")
    assert frame.retained.iloc[0] == pytest.approx(80)
    assert frame[["pearson", "alignment"]].isna().all().all()


def test_image_intervals_hold_the_truth_and_claim_only_what_they_show(tmp_path: Path) -> None:
    drops = {0: 0.0, 1: 0.5}
    table = probe_table(grid(seed=[0, 1]), drop=lambda backbone: drops[backbone["seed"]], n_test=500)
    found = noise.with_intervals(experiments.read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout"))
    frame = found.frame
    assert ((frame.retained_low <= frame.retained) & (frame.retained <= frame.retained_high)).all()
    assert ((frame.pearson_low <= frame.pearson) & (frame.pearson <= frame.pearson_high)).all()
    assert frame[frame.seed == 1].tunnel_claimed.all()
    assert not frame[frame.seed == 0].tunnel_claimed.all()
    summary = backbones.summary(found)
    assert (summary.tunnels_claimed <= summary.tunnels).all()


def test_without_bits_there_are_no_image_intervals_and_a_note_says_so(tmp_path: Path) -> None:
    table = probe_table(grid()).drop_columns(["correct"])
    found = noise.with_intervals(experiments.read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout"))
    assert "retained_low" not in found.frame
    assert "no column correct" in found.notes[-1]


def test_bits_that_disagree_with_the_accuracy_are_refused(tmp_path: Path) -> None:
    frame = probe_table(grid()).to_pandas()
    frame.loc[0, "top1"] += 0.1
    read = experiments.read_sweep(str(write_sweep(tmp_path, pa.Table.from_pandas(frame))), accuracy="heldout")
    with pytest.raises(UserError, match="correct disagrees with top1"):
        noise.with_intervals(read)
