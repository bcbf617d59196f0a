"""Probes along ID training: which epochs are asked for, their keys and weights, and one run from start to report."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import sweep.train.weights
from analysis import shap_report
from sweep import driver, table
from sweep.base.store import Store
from sweep.cell.cell import run_cell
from sweep.config.problem import ConfigError
from sweep.study.check import read_config
from sweep.study.confounding import varied_roles
from sweep.study.costs import cost
from sweep.study.grid import asked_epochs, block_values
from sweep.study.plan import render_plan
from sweep.table.schema import RUN_COLUMNS
from sweep.train.batches import PlainImages
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import Along, Labelled, pretrain
from tests.labelled import labelled
from tests.sweep.driver.test_end_to_end import rows as rows_of
from tests.sweep.driver.test_end_to_end import run as run_sweep
from tests.sweep.study.test_grid import grid_of, keys, make
from tests.sweep.train.test_pretrain import RECIPE, data, network

TINY = """
name: tiny
grid:
  - {architecture: vggm11, id_dataset: fractals, id_classes: 3, images_per_class: 12, width: 0.0625}
probe_datasets: [glyphs]
datasets:
  fractals: {classes: 4, train_per_class: 12, test_per_class: 6}
  glyphs: {classes: 5, train_per_class: 6, test_per_class: 4}
recipe: {epochs: 4, warmup_epochs: 1, batch_size: 16}
probe: {solver: adamw, epochs: 3, batch_size: 32, at_epochs: [0, 1, 4]}
"""


class KilledError(BaseException):
    """Not an Exception: nothing in the sweep may record and survive it."""


# ------------------------------------------------------------------------------------- config, grid, keys, plan


def test_epochs_become_curves_of_the_same_cell():
    grid = grid_of(make(probe={"at_epochs": [5, 0, 5]}))
    assert len(grid.cells) == 4
    cell = grid.cells[0]
    assert cell.backbone.epoch is None
    found = [(curve.backbone.epoch, curve.dataset) for curve in cell.curves]
    assert found == [(epoch, name) for epoch in (None, 0, 5) for name in ("fractals", "glyphs")]
    assert {curve.backbone.after(None) for curve in cell.curves} == {cell.backbone}
    assert {curve.probe for curve in cell.curves} == {grid_of(make()).cells[0].curves[0].probe}


def test_rules_say_when_to_probe():
    config = make(rules=[{"when": {"architecture": "vggm17"}, "probe": {"at_epochs": [1, 2], "lr": 0.5}}])
    epochs = {v["architecture"]: asked_epochs(config, v) for v in block_values(config.grid[0])}
    assert epochs == {"vggm11": (("probe", "at_epochs"), ()), "vggm17": (("rules", 0, "probe", "at_epochs"), (1, 2))}
    assert [len(cell.curves) for cell in grid_of(config).cells] == [2, 2, 6, 6]


def test_keys_without_epochs_are_those_of_ever_and_each_epoch_has_its_own():
    cell, ring = grid_of(make(probe={"solver": "adamw", "at_epochs": [0, 1]})).cells[0], keys()
    assert ring.weights(cell.backbone) == "82106e9d2ebca1fae183"
    assert [ring.curve(curve) for curve in cell.curves[:2]] == ["e684fc42a333821fd649", "6dcbf1400d3901233ce0"]
    alone = grid_of(make(probe={"solver": "adamw"})).cells[0].curves
    assert [ring.curve(c) for c in cell.curves[:2]] == [ring.curve(c) for c in alone]
    assert len({ring.curve(curve) for curve in cell.curves}) == 6
    assert len({ring.embedding(curve) for curve in cell.curves}) == 6
    assert len({ring.weights(curve.backbone) for curve in cell.curves}) == 3
    assert {ring.run(curve.backbone) for curve in cell.curves} == {ring.weights(cell.backbone)}
    other = grid_of(make(recipe={"lr": 0.5}, probe={"at_epochs": [0]})).cells[0]
    assert ring.weights(other.backbone.after(0)) != ring.weights(cell.backbone.after(0))


def test_plan_counts_them_but_trains_once():
    plain, config = make(), make(probe={"at_epochs": [0, 1]})
    before, after = (cost(c, grid_of(c).cells) for c in (plain, config))
    assert (after.backbones, after.curves, after.probes) == (4, 3 * before.curves, 3 * before.probes)
    assert after.images == before.images
    assert before.flops < after.flops < 2 * before.flops
    assert 2.9 < after.storage / before.storage <= 3
    text = render_plan(config, grid_of(config), done=None, why_unknown="no data", out="x")
    assert "of these along ID training (probe.at_epochs): 8 epochs of 4 backbones, 16 curves, 208 probes" in text
    assert "at_epochs" not in render_plan(plain, grid_of(plain), done=None, why_unknown="no data", out="x")
    assert varied_roles(config, grid_of(config))["epoch"] == "treatment"
    assert "epoch" not in varied_roles(plain, grid_of(plain))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("[0, 1, 4]", "[0, 1, 5]"), ["c.yaml:10: probe.at_epochs[2] = 5", "trained for 4 epochs", "valid: 0 to 4"]),
        (("[0, 1, 4]", "-1"), ["probe.at_epochs[0] = -1", "greater than or equal to 0"]),
        (("[0, 1, 4]", "[first]"), ["probe.at_epochs[0] = first", "valid integer"]),
        (("at_epochs", "at_epoch"), ["probe.at_epoch", "unknown key", "valid: at_epochs"]),
        (
            ("name: tiny", "name: tiny\nrules: [{when: {seed: 0}, probe: {at_epochs: [2, 9]}}]"),
            ["c.yaml:3: rules[0].probe.at_epochs[1] = 9", "trained for 4 epochs"],
        ),
        (
            ("name: tiny", "name: tiny\nrules: [{when: {seed: 0}, probe: {at_epochs: [x]}}]"),
            ["rules[0].probe.at_epochs[0] = x"],
        ),
        (
            ("grid:", "grid:\n  - {architecture: resnet50, id_dataset: imagenet1k, pretraining: tv2_in1k}"),
            ["probe.at_epochs = [0, 1, 4]", "tv2_in1k of resnet50 are downloaded", "when: {pretraining: scratch}"],
        ),
    ],
)
def test_mistakes_are_named(tmp_path, change, expected):
    text = TINY.replace(*change)
    assert text != TINY
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config(file)
    for part in expected:
        assert part in str(error.value)


# --------------------------------------------------------------------------------------------------- training


def train(*, along, checkpoints=None, on_epoch=lambda history, total: None, last_epoch=None):
    model = network()
    with torch.no_grad():
        model(torch.zeros(2, 3, 6, 6))
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    images_NHWC, labels_N = data()
    return pretrain(
        model,
        PlainImages(images_NHWC, labels_N, np.arange(30)),
        heldout=Labelled(*data(9, seed=1)),
        test=Labelled(*data(9, seed=2)),
        recipe=RECIPE.model_copy(update={"checkpoint_on": "last"}),
        key="k",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        device=torch.device("cpu"),
        checkpoints=checkpoints or Checkpoints(load=lambda: None, save=lambda data: None),
        on_epoch=on_epoch,
        along=along,
        last_epoch=last_epoch,
    )


def keeping(*epochs):
    kept = {}
    return kept, Along(frozenset(epochs), lambda trained: kept.update({trained.epoch: trained}))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_along_the_way_do_not_change_the_training():
    kept, along = keeping(0, 2, 4)
    undisturbed, trained = train(along=Along()), train(along=along)
    assert same(trained.state, undisturbed.state)
    assert sorted(kept) == [0, 2, 4]
    assert same(kept[4].state, trained.state)
    assert not same(kept[0].state, kept[2].state)
    assert kept[0].history == []
    assert kept[2].heldout_top1 == trained.history[1]["heldout_top1"]
    short, _ = keeping(2)
    assert same(train(along=Along(), last_epoch=2).state, kept[2].state)
    assert same(train(along=keeping(0)[1], last_epoch=0).state, kept[0].state)
    assert short == {}


def killed(after, along):
    """The checkpoint of a run that died right after an epoch."""
    saved = {}

    def kill(history, _total):
        if len(history) == after + 1:
            raise KilledError

    with pytest.raises(KilledError):
        train(along=along, on_epoch=kill, checkpoints=Checkpoints(lambda: None, lambda b: saved.update(b=b), 0))
    return Checkpoints(lambda: saved["b"], lambda b: None)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_resumed_run_keeps_the_same_weights(after):
    undisturbed, along = keeping(0, 1, 2, 3, 4)
    train(along=along)
    kept, along = keeping(0, 1, 2, 3, 4)
    checkpoints = killed(after, along)
    assert sorted(kept) == list(range(after + 2))
    late, along = keeping(*range(after + 1, 5))
    epochs = []
    train(along=along, checkpoints=checkpoints, on_epoch=lambda history, total: epochs.append(len(history)))
    assert epochs == list(range(after + 1, 5))  # what the checkpoint holds is not trained again
    assert sorted(late) == epochs
    assert all(same((kept | late)[epoch].state, undisturbed[epoch].state) for epoch in range(5))


def test_a_checkpoint_past_a_wanted_epoch_is_not_resumed(caplog):
    undisturbed, along = keeping(1, 2)
    train(along=along)
    kept, along = keeping(2)
    train(along=along, checkpoints=killed(2, Along()))
    assert same(kept[2].state, undisturbed[2].state)  # the epoch of the checkpoint itself
    assert caplog.text == ""
    kept, along = keeping(1)
    train(along=along, checkpoints=killed(2, Along()))
    assert same(kept[1].state, undisturbed[1].state)
    assert "past epoch 1" in caplog.text


# --------------------------------------------------------------------------------------------------- one cell


@pytest.fixture
def cell(tmp_path):
    """Runs the missing curves of the only backbone of a config, without Ray; returns what is stored."""

    def run(*overrides, text=TINY):
        file = tmp_path / "tiny.yaml"
        file.write_text(text)
        config = read_config(file, [f"cache_dir={tmp_path / 'cache'}", *overrides])
        sweep_ = driver.prepare(config, str(tmp_path / "out"))
        missing = driver.missing_cells(sweep_, table.listing(sweep_.store).done)
        results = [run_cell(driver.task_of(sweep_, cell, gpu=False)) for cell in missing]
        return results, labelled(sweep_).drop_columns(list(RUN_COLUMNS)).to_pylist()

    return run


@pytest.fixture
def trainings(monkeypatch):
    """Epochs of every training run since the test began."""
    runs = []

    def counted(model, source, *, on_epoch, **rest):
        runs.append([])
        return pretrain(model, source, on_epoch=lambda h, t: (runs[-1].append(len(h)), on_epoch(h, t)), **rest)

    monkeypatch.setattr(sweep.train.weights, "pretrain", counted)
    return runs


def weights(folder):
    return {json.loads(f.read_text())["backbone"]["epoch"]: f for f in (folder / "out" / "weights").glob("*.json")}


def test_one_training_serves_all_epochs(cell, trainings, tmp_path):
    (result,), rows = cell()
    assert trainings == [[1, 2, 3, 4]]
    assert len(result.done) == 8
    assert result.failed == ()
    assert [(row["epoch"], row["dataset"]) for row in rows if row["layer"] == 1] == [
        (epoch, name) for epoch in (None, 0, 1, 4) for name in ("fractals", "glyphs")
    ]
    assert {row["epoch"]: row["backbone_epoch"] for row in rows if row["epoch"] is not None} == {0: 0, 1: 1, 4: 4}
    kept = next(row for row in rows if row["epoch"] is None)
    if kept["backbone_epoch"] == 4:
        assert kept["backbone_test_top1"] == next(r for r in rows if r["epoch"] == 4)["backbone_test_top1"]
    assert len({row["probe_seed"] for row in rows if row["dataset"] == "glyphs"}) == 1
    assert set(weights(tmp_path)) == {None, 0, 1, 4}
    assert {len(f.with_suffix(".safetensors").read_bytes()) for f in weights(tmp_path).values()} != {0}
    assert list((tmp_path / "out" / "checkpoints").glob("*")) == []
    assert cell() == ([], rows)


def test_lost_probes_need_no_training_and_new_epochs_no_more_than_they_must(cell, trainings, tmp_path):
    cell("probe.at_epochs=[]")
    kept = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*") if f.is_file()}
    _, rows = cell("probe.at_epochs=[0, 2]")
    assert trainings == [[1, 2, 3, 4], [1, 2]]  # only as far as the last epoch that was missing
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    for file in (tmp_path / "out" / "fragments").glob("*"):
        file.unlink()
    assert cell("probe.at_epochs=[0, 2]")[1] == rows
    assert len(trainings) == 2
    cell("probe.at_epochs=[0, 2, 0]")
    assert len(trainings) == 2


def test_epochs_added_later_are_those_of_the_first_run(cell, tmp_path):
    cell("probe.at_epochs=[]")
    _, later = cell()
    (tmp_path / "out").rename(tmp_path / "first")
    assert cell()[1] == later


def test_killed_training_resumes_with_what_it_kept(cell, monkeypatch, tmp_path):
    def dying(model, source, *, checkpoints, on_epoch, **rest):
        def kill(history, total):
            if len(history) == 3:
                raise KilledError

        return pretrain(model, source, checkpoints=replace(checkpoints, every_seconds=0), on_epoch=kill, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(sweep.train.weights, "pretrain", dying)
        with pytest.raises(KilledError):
            cell()
    kept = {f: f.stat().st_mtime_ns for f in weights(tmp_path).values()}
    assert len(kept) == 2
    _, resumed = cell()
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    (tmp_path / "out").rename(tmp_path / "killed")
    assert cell()[1] == resumed


def test_epochs_before_a_divergence_are_probed(cell, trainings, tmp_path):
    (result,), rows = cell("recipe.lr=1e30")
    assert len(trainings) == 1
    assert {row["epoch"] for row in rows} == {0}
    assert (len(result.done), len(result.failed)) == (2, 6)
    records = table.read_failures(Store(str(tmp_path / "out")), result.failed)
    assert {record["exception"] for record in records} == {"TrainingDivergedError"}
    assert {record["stage"] for record in records} == {"pretrain"}
    assert any(record["backbone"].endswith("epoch 4") for record in records)


# -------------------------------------------------------------------------------------------- the whole of it


@pytest.mark.slow
def test_through_ray_to_the_report(cell, tmp_path):
    (tmp_path / "main.yaml").write_text(TINY + f"cache_dir: {tmp_path / 'cache'}\n")
    out = tmp_path / "through-ray"
    done = run_sweep(tmp_path / "main.yaml", out)
    assert "8 of 8 curves are in the table (8 computed now" in done.stdout
    assert rows_of(out) == cell()[1]  # what plain functions give
    about = json.loads(pq.read_schema(out / "probes.parquet").metadata[b"tunnel_sweep"])
    assert about["variables"] == {"epoch": {"role": "treatment"}}
    assert shap_report.main(["--results", str(out), "--bootstrap", "0", "--jobs", "1"]) == 0
    assert (out / "report" / "figures" / "emergence.png").exists()
    report = json.loads((out / "report" / "report.json").read_text())
    assert report["counts"]["backbones"] == 1
    assert [row["epoch"] for row in report["emergence"] if not row["kept"]] == [0, 1, 4]
