"""Each metric against a hand-worked example, and what happens to curves that are not whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis.design import points
from analysis.estimates import additive, backbones, images
from analysis.tables import experiments, metrics, sweep
from analysis.tables.errors import UserError
from tests.synthetic_tables import grid, probe_table, write_sweep


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


def _measured(*curves: list[dict], accuracy: str = "heldout") -> pd.DataFrame:
    table = pd.DataFrame([row for curve in curves for row in curve])
    return metrics.experiments(metrics.collect(table, accuracy=accuracy), accuracy=accuracy)


def test_equal_accuracies_are_no_tunnel() -> None:
    flat, rising = [0.3] * 4, [0.1, 0.2, 0.3, 0.4]
    own = _curve("k0", "fractals", True, rising, rising, rising, 10)
    constant = _curve("k1", "glyphs", False, flat, flat, flat, 20)
    row = _measured(own, constant).iloc[0]
    assert (row.peak_layer, row.tunnel, row.tunnel_length) == (3, False, 0)  # of two middle ones the deeper
    assert pd.isna(row.tunnel_start)
    assert np.isnan(row.pearson)
    assert _measured(own, constant, accuracy="paper").peak_layer.iloc[0] == 1
    nothing = _curve("k1", "glyphs", False, [0.0] * 4, flat, [0.0] * 4, 20)
    assert np.isnan(_measured(own, nothing).retained.iloc[0])


def _one_by_one(table: pd.DataFrame) -> pd.DataFrame:
    """The metrics of each curve by their definitions, one curve after the other."""
    rows = []
    for (backbone, dataset), part in table[~table.is_id].groupby(["backbone", "dataset"], sort=False):
        a, held, best = (part[name].to_numpy() for name in ("top1", "heldout_top1", "top1_best"))
        equal = [layer for layer in range(len(a)) if held[layer] == held.max()]
        peak = equal[len(equal) // 2]
        row = {"retained": 100 * a[-1] / a[peak], "retained_paper": 100 * best[-1] / best.max(), "peak_layer": peak + 1}
        own = table[table.is_id & (table.backbone == backbone)].top1.to_numpy()
        row["pearson"] = np.corrcoef(own, a)[0, 1] if len(own) == len(a) else np.nan
        for percent in metrics.ID_RULES:
            row[f"id_start_{percent}"] = next(
                (layer + 1 for layer, x in enumerate(own) if x >= percent / 100 * own[-1]), np.nan
            )
        rows.append({"backbone": backbone, "dataset": dataset, **row})
    return pd.DataFrame(rows)


def test_all_curves_at_once_are_the_curves_one_by_one() -> None:
    rng = np.random.default_rng(0)
    curves = []
    for b in range(12):
        layers = int(rng.integers(2, 9))
        for dataset in ("own", "x", "y", "z")[b % 5 == 0 :]:  # now and then there is no ID curve
            values = rng.integers(1, 12, (3, layers)) / 12  # few values, so that ties happen
            rows = _curve(f"{b}{dataset}", dataset, dataset == "own", *map(list, values), 10)
            curves.append([{**row, "backbone": f"b{b}"} for row in rows])
    table = pd.DataFrame([row for curve in curves for row in curve])
    found = metrics.experiments(metrics.collect(table, accuracy="heldout"), accuracy="heldout")
    expected = _one_by_one(table).sort_values(["backbone", "dataset"]).reset_index(drop=True)
    found = found.sort_values(["backbone", "dataset"]).reset_index(drop=True)
    for name in expected:
        left, right = found[name], expected[name]
        if name in ("backbone", "dataset"):
            assert list(left) == list(right)
        else:
            np.testing.assert_allclose(
                left.to_numpy(float, na_value=np.nan), right.to_numpy(float, na_value=np.nan), atol=1e-12, err_msg=name
            )


def test_a_flat_noisy_curve_is_not_biased_downwards_by_depth() -> None:
    """The maximum over noisy test accuracies is biased, more for deep nets; the held-out peak is not."""
    rng = np.random.default_rng(0)
    ours, papers = {}, {}
    for depth in (10, 33):
        n = 400 * depth
        test, held = (rng.binomial(1020, 0.3, n) / 1020 for _ in range(2))
        table = pd.DataFrame({"curve_key": np.repeat([f"{i:03d}" for i in range(400)], depth), "dataset": "glyphs"})
        table = table.assign(backbone=table.curve_key, is_id=False, chance=0.1, layer=np.tile(range(1, depth + 1), 400))
        table = table.assign(top1=test, heldout_top1=held, top1_best=test)
        found = metrics.experiments(metrics.collect(table, accuracy="heldout"), accuracy="heldout")
        ours[depth], papers[depth] = found.retained.mean(), found.retained_paper.mean()
    assert all(abs(kept - 100) < 1.0 for kept in ours.values())
    assert papers[10] == pytest.approx(93, abs=0.5)
    assert papers[33] == pytest.approx(91, abs=0.5)


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
    found = sweep.read_sweep(str(write_sweep(tmp_path, pa.Table.from_pandas(frame))), accuracy="heldout")
    assert dict(zip(found.incomplete.curve_key, found.incomplete.reason, strict=True)) == {
        "curve-000-glyphs": "not finite",
        "curve-001-digits": "layers are missing",
    }
    assert len(found.frame) == 4


def test_failed_curves_of_the_sweep_are_counted(tmp_path: Path) -> None:
    table = probe_table(grid(seed=[0, 1]), varied={"seed": "replicate"}, failed=["abc"])
    found = sweep.read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout")
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
    found = images.with_intervals(sweep.read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout"))
    frame = found.frame
    assert ((frame.retained_low <= frame.retained) & (frame.retained <= frame.retained_high)).all()
    assert ((frame.pearson_low <= frame.pearson) & (frame.pearson <= frame.pearson_high)).all()
    assert frame[frame.seed == 1].tunnel_claimed.all()
    assert not frame[frame.seed == 0].tunnel_claimed.all()
    own = points.build(frame, [], "retained")
    summary = backbones.summary(found, additive.fit(own))
    assert (summary.tunnels_claimed <= summary.tunnels).all()


def test_without_bits_there_are_no_image_intervals_and_a_note_says_so(tmp_path: Path) -> None:
    table = probe_table(grid()).drop_columns(["correct"])
    found = images.with_intervals(sweep.read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout"))
    assert "retained_low" not in found.frame
    assert "no column correct" in found.notes[-1]


def test_bits_that_disagree_with_the_accuracy_are_refused(tmp_path: Path) -> None:
    frame = probe_table(grid()).to_pandas()
    frame.loc[0, "top1"] += 0.1
    read = sweep.read_sweep(str(write_sweep(tmp_path, pa.Table.from_pandas(frame))), accuracy="heldout")
    with pytest.raises(UserError, match="correct disagrees with top1"):
        images.with_intervals(read)


def _swept(folder: Path, *, nulls: bool = False) -> experiments.Experiments:
    """A table whose layers were probed with two learning rates and two seeds; the better is the one not chosen."""
    frame = probe_table(grid(seed=[0, 1])).to_pandas()
    parts = [
        frame.assign(probe_lr=lr, probe_seed_index=index, chosen=(lr, index) == (1e-3, 1))
        for lr in (1e-3, 1e-2) for index in (0, 1)
    ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    other = ~table.chosen
    table.loc[other, ["top1", "heldout_top1", "top1_best"]] = 0.5
    if nulls:
        table = table[table.chosen].assign(chosen=pd.array([None] * int(table.chosen.sum()), dtype="boolean"))
    about = {"tunnel_sweep": json.dumps({"variables": {"probe_lr": {"role": "treatment"}}})}
    table = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(about)
    return sweep.read_sweep(str(write_sweep(folder, table)), accuracy="heldout")


def test_only_the_chosen_probe_of_a_layer_counts_and_the_others_are_counted(tmp_path: Path) -> None:
    plain = sweep.read_sweep(str(write_sweep(tmp_path / "p", probe_table(grid(seed=[0, 1])))), accuracy="heldout")
    swept = _swept(tmp_path / "s")
    pd.testing.assert_series_equal(swept.frame.retained, plain.frame.retained)
    assert swept.set_aside == 3 * 80
    assert any("240 of 320 probes are set aside" in note for note in swept.notes)
    assert "probe_lr" not in swept.variables
    assert images.with_intervals(swept).frame.retained_low.notna().all()  # the bits are found by the rows of the file
    assert (plain.set_aside, plain.notes) == (0, tuple(note for note in plain.notes if "set aside" not in note))


def test_a_null_says_that_the_probe_was_the_only_one(tmp_path: Path) -> None:
    found = _swept(tmp_path, nulls=True)
    assert (len(found.frame), found.set_aside) == (6, 0)


def test_a_probe_recipe_chosen_per_curve_is_no_variable(tmp_path: Path) -> None:
    frame = probe_table(grid(augmentation=["off", "on"])).to_pandas()
    frame["probe_lr"] = np.where(frame.dataset == "glyphs", 1e-2, 1e-3)
    about = {"tunnel_sweep": json.dumps({"variables": {"probe_lr": {"role": "treatment"}}})}
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(about)
    found = sweep.read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout")
    assert found.variables == ("augmentation",)
    assert any("probe lr differs between the curves of one backbone" in note for note in found.notes)
