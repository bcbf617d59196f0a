"""The recipe search: what is drawn, who is stopped, what is chosen, and the search for real through Ray Tune."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import yaml

from sweep import driver, table
from sweep.base.store import Store
from sweep.cell.trial import run_trial
from sweep.config import Range
from sweep.config.problem import ConfigError
from sweep.driver import search_report
from sweep.driver.search import AshaPerGroup
from sweep.study.check import read_config
from sweep.study.grid import block_values, recipe_of
from sweep.study.recipes import Record, _value, outcomes, propose, trial_key
from sweep.table.trials import read_records, write_record

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
name: tiny
grid:
  - {architecture: [vggm11, resnet18], id_dataset: fractals, width: 0.0625, augmentation: [off, on], seed: [0, 1]}
probe_datasets: [glyphs]
datasets:
  fractals: {classes: 3, train_per_class: 20, test_per_class: 4}
  glyphs: {classes: 3, train_per_class: 6, test_per_class: 4}
recipe: {epochs: 2, warmup_epochs: 1, batch_size: 16, train_on: all, checkpoint_on: last}
search:
  trials: 4
  recipe:
    lr: {low: 1e-3, high: 1e-1, log: true}
    batch_size: [8, 16]
"""
ONE_GROUP = CONFIG.replace("[vggm11, resnet18]", "vggm11")


def prepared(tmp_path, text=CONFIG, *overrides):
    file = tmp_path / "tiny.yaml"
    file.write_text(text + f"cache_dir: {tmp_path / 'cache'}\n")
    return driver.prepare(read_config(file, overrides), str(tmp_path / "out"))


def found_in(sweep, records=()):
    trials = propose(sweep.config.search, sweep.grid)
    return outcomes(trials, sweep.keys, dict(records))


# --------------------------------------------------------------------------------------------------- what is tried


def test_trials_are_drawn_within_their_ranges_and_the_first_is_the_configs(tmp_path):
    trials = propose(prepared(tmp_path, CONFIG, "search.trials=40").config.search, prepared(tmp_path).grid)
    assert len(trials) == 80
    assert [trial.number for trial in trials[:4]] == [0, 0, 1, 1]
    assert {trial.group for trial in trials} == {
        (("architecture", name), ("id_dataset", "fractals"), ("resolution", 32)) for name in ("vggm11", "resnet18")
    }
    first = trials[0]
    assert dict(first.searched) == {"batch_size": 16, "lr": 0.01}
    assert (first.backbone.seed, first.backbone.augmentation) == (0, "off")
    drawn = [dict(trial.searched) for trial in trials[2:]]
    assert all(1e-3 <= values["lr"] <= 1e-1 for values in drawn)
    assert {values["batch_size"] for values in drawn} == {8, 16}
    logs = sorted(math.log10(values["lr"]) for values in drawn)
    assert max(b - a for a, b in pairwise(logs)) < 0.25  # evenly spread on the logarithmic scale
    assert all(trial.backbone.recipe.train_on == "fit" for trial in trials)  # the held-out part judges
    assert all(trial.backbone.recipe.checkpoint_on == "heldout" for trial in trials)


def test_more_trials_keep_those_there_are(tmp_path):
    few, many = (
        {trial_key(sweep.keys, trial) for trial in propose(sweep.config.search, sweep.grid)}
        for sweep in (prepared(tmp_path), prepared(tmp_path, CONFIG, "search.trials=9"))
    )
    assert len(few) == 8
    assert len(many) == 18
    assert few < many


def test_a_small_space_has_fewer_trials(tmp_path):
    sweep = prepared(tmp_path, ONE_GROUP, "search.recipe={batch_size: [8, 16, 32]}", "search.trials=9")
    assert sorted(dict(o.trial.searched)["batch_size"] for o in found_in(sweep)) == [8, 16, 32]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("key", "low", "high"), [("batch_size", 32, 2048), ("epochs", 2, 9), ("lr", 1e-4, 1e-1)])
def test_draws_are_spread_over_the_range_as_the_config_says(key, low, high, log):
    """Each quarter of the range, on its scale, has a quarter of the draws; of whole numbers each stands for its own."""
    space = Range(low=low, high=high, log=log)
    drawn = [_value(key, space, number / 1000) for number in range(1000)]
    whole = key != "lr"
    assert all(isinstance(value, int) for value in drawn) == whole
    assert (drawn[0], drawn[-1]) == (low, pytest.approx(high, rel=0.05))
    assert low <= min(drawn) <= max(drawn) <= high
    scale = math.log if log else float
    start, end = scale(low), scale(high + whole)
    for value, share in [(drawn[250], 0.25), (drawn[500], 0.5), (drawn[750], 0.75)]:
        exact = start + share * (end - start)
        assert scale(value) <= exact + 1e-2 * (end - start)
        assert scale(value + whole) >= exact - 1e-2 * (end - start)


def test_whole_numbers_stay_whole_and_both_bounds_are_reached(tmp_path):
    sweep = prepared(tmp_path, ONE_GROUP, "search.recipe={epochs: {low: 2, high: 4}}", "search.trials=20")
    assert sorted(o.trial.backbone.recipe.epochs for o in found_in(sweep)) == [2, 3, 4]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("lr: {low: 1e-3", "lrr: {low: 1e-3"), ("search.recipe.lrr", "no such recipe key", "lr")),
        (("batch_size: [8, 16]", "train_on: [fit, all]"), ("search.recipe.train_on", "held-out part")),
        (("low: 1e-3", "low: 1.0"), ("search.recipe.lr.low = 1.0", "less than high, 0.1")),
        (("low: 1e-3", "low: 0"), ("search.recipe.lr.low", "above 0")),
        (("[8, 16]", "[8, 0.5]"), ("search.recipe.batch_size[1] = 0.5",)),
        (
            ("high: 1e-1, log", "hihg: 1e-1, log"),
            ("search.recipe.lr.hihg = 0.1: unknown key", "valid: high", "tiny.yaml:13"),
        ),
        (("seed: [0, 1]}", "seed: [0, 1], lr: [1e-2, 1e-3]}"), ("search.recipe.lr", "grid varies it")),
        (("trials: 4", "trials: 1"), ("search.trials = 1",)),
        (("trials: 4", "trials: 4\n  per: [seed]"), ("search.per[0] = seed", "architecture")),
        (("batch_size: [8, 16]", "epochs: [1, 3]"), ("search.recipe", "epochs may be 1", "warmup_epochs, 1")),
    ],
)
def test_mistakes_in_the_search_section_are_named(tmp_path, change, expected):
    text = CONFIG.replace(*change)
    assert text != CONFIG
    with pytest.raises(ConfigError) as error:
        prepared(tmp_path, text)
    for part in expected:
        assert part in str(error.value)


def test_downloaded_weights_leave_nothing_to_tune(tmp_path):
    text = CONFIG.replace("width: 0.0625, augmentation: [off, on], ", "pretraining: timm, ").replace("[vggm11, ", "[")
    with pytest.raises(ConfigError, match="no training to tune"):
        prepared(tmp_path, text)


# --------------------------------------------------------------------------------------------------- what is chosen


def records_of(found, *scores):
    """Records for the trials of one group; a string is a problem, a tuple a trial that was stopped."""
    records = {}
    for outcome, score in zip(found, scores, strict=False):
        if isinstance(score, str):
            records[outcome.key] = Record("failed", problem=score)
        elif isinstance(score, tuple):
            records[outcome.key] = Record("stopped", score, 10, 1.0)
        elif score is not None:
            records[outcome.key] = Record("finished", (0.1, score), 10, 1.0)
    return records


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ((0.5, 0.7, 0.6, 0.2), 1),
        ((0.7, 0.7, 0.7, 0.7), 0),  # the config's recipe wins ties
        ((0.5, (0.9,), 0.6, "OOM"), 2),  # one that was stopped is not an answer
        (("diverged", 0.2, 0.3, 0.1), 2),
        ((0.5, "x", "x", (0.4,)), 0),
        ((None, 0.9, 0.9, 0.9), None),  # not before the config's own has ended
        (("x", "x", "x", "x"), None),
    ],
)
def test_the_best_that_ran_to_its_end_is_chosen(tmp_path, scores, chosen):
    sweep = prepared(tmp_path, ONE_GROUP)
    records = records_of(found_in(sweep), *scores)
    assert [o.trial.number for o in found_in(sweep, records) if o.chosen] == ([] if chosen is None else [chosen])


def test_every_group_has_a_choice_of_its_own(tmp_path):
    sweep = prepared(tmp_path)
    found = found_in(sweep)  # numbers 0, 0, 1, 1, …: groups take turns
    found = found_in(sweep, records_of(found, 0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.3, 0.6))
    assert {(dict(o.trial.group)["architecture"], o.trial.number) for o in found if o.chosen} == {
        ("vggm11", 2),
        ("resnet18", 0),
    }


def test_records_survive_the_store_and_damaged_ones_count_as_missing(tmp_path, capsys):
    store, record = Store(str(tmp_path)), Record("stopped", (0.25, 0.5), 20, 3.0)
    write_record(store, "good", record)
    odd = ["{", "[]", "5", '{"status": "finished"}', '{"surprise": 1, "heldout_top1_epochs": []}']
    odd += [
        '{"status": 1, "heldout_top1_epochs": []}',
        '{"status": "failed", "heldout_top1_epochs": [], "seconds": []}',
    ]
    for number, text in enumerate(odd):
        store.put(f"trials/bad{number}.json", text.encode())
    wanted = ["good", *(f"bad{number}" for number in range(len(odd))), "none"]
    assert read_records(store, wanted) == {"good": record}
    assert capsys.readouterr().err.count("is damaged; the trial is done again") == len(odd)


def test_recipes_are_yaml_that_the_grid_accepts_and_says_what_they_rest_on(tmp_path):
    sweep = prepared(tmp_path)
    found = found_in(sweep, records_of(found_in(sweep), 0.5, "diverged", 0.9, 0.8))
    text = search_report.recipes_yaml(found, name="tiny")
    assert "90.0 ± 9.5 % (standard error, 10 images), with the config's own recipe 50.0 %; 4 trials, 2 finished" in text
    assert "the config's own recipe failed: diverged" in text
    chosen = [dict(o.trial.searched) for o in found if o.chosen]
    assert [rule["recipe"] for rule in yaml.safe_load(text)] == chosen
    (tmp_path / "recipes.yaml").write_text(text)
    config = read_config(tmp_path / "tiny.yaml", [f"recipes={tmp_path / 'recipes.yaml'}"])
    tuned = {v["architecture"]: recipe_of(config, v) for block in config.grid for v in block_values(block)}
    assert {"batch_size": tuned["vggm11"].batch_size, "lr": tuned["vggm11"].lr} == chosen[0]
    assert search_report.recipes_yaml(found_in(sweep), name="tiny").endswith("[]\n")


# --------------------------------------------------------------------------------------------------- who is stopped


def halving(sweep, found):
    """Feeds held-out accuracies to the scheduler as Tune would; returns what it decides."""
    scheduler = AshaPerGroup(sweep.config.search, found)

    def tell(position, epoch, score):
        trial = SimpleNamespace(trial_id=f"t{position}", config={"trial": position})
        if epoch == 1:
            scheduler.on_trial_add(None, trial)
        return scheduler.on_trial_result(None, trial, {"epoch": epoch, "heldout_top1": score})

    return tell


def test_the_worse_are_stopped_within_their_group_only(tmp_path):
    sweep = prepared(tmp_path, CONFIG, "recipe.epochs=9")
    tell = halving(sweep, found_in(sweep))
    vggm, resnet = (0, 2, 4, 6), (1, 3, 5, 7)
    assert tell(vggm[0], 1, 0.9) == "CONTINUE"
    assert tell(vggm[1], 1, 0.2) == "STOP"
    assert tell(resnet[1], 1, 0.2) == "CONTINUE"  # the first of its own group
    assert tell(resnet[2], 1, 0.1) == "STOP"
    assert tell(vggm[2], 1, 0.95) == "CONTINUE"


def test_the_configs_recipe_and_a_last_epoch_are_never_stopped(tmp_path):
    sweep = prepared(tmp_path, ONE_GROUP, "recipe.epochs=9", "search.reduction_factor=2")
    tell = halving(sweep, found_in(sweep))
    assert tell(1, 1, 0.9) == "CONTINUE"
    assert [tell(0, epoch, 0.01) for epoch in range(1, 10)] == ["CONTINUE"] * 9
    assert tell(2, 1, 0.9) == "CONTINUE"
    assert tell(2, 9, 0.01) == "CONTINUE"  # it ends anyway, and leaves its own record


def test_a_search_that_goes_on_remembers_earlier_trials(tmp_path):
    sweep = prepared(tmp_path, ONE_GROUP, "recipe.epochs=9")
    found = found_in(sweep, records_of(found_in(sweep), 0.9, (0.8,)))
    assert halving(sweep, found)(2, 1, 0.05) == "STOP"
    assert halving(sweep, found_in(sweep))(2, 1, 0.05) == "CONTINUE"


# --------------------------------------------------------------------------------------------------- one trial


def task(sweep, outcome):
    return driver.task_of(sweep, sweep.keys.cell(outcome.trial.backbone), False)


def test_a_trial_resumes_from_its_checkpoint_and_leaves_the_same_record(tmp_path, monkeypatch):
    sweep = prepared(tmp_path, ONE_GROUP, "recipe.epochs=4")
    outcome = found_in(sweep)[1]
    undisturbed = run_trial(task(sweep, outcome), lambda record: None)
    assert undisturbed.status == "finished"
    assert len(undisturbed.heldout_top1_epochs) == 4
    assert undisturbed.n_heldout == 6

    sweep.store.delete(f"trials/{outcome.key}.json")
    monkeypatch.setattr("sweep.train.checkpoint._CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("sweep.train.weights.Checkpoints", _always)

    def killed(record):
        if len(record.heldout_top1_epochs) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(task(sweep, outcome), killed)
    reports = []
    resumed = run_trial(task(sweep, outcome), lambda record: reports.append(len(record.heldout_top1_epochs)))
    assert reports == [3, 4]  # the checkpoint was written after the second epoch
    assert resumed.heldout_top1_epochs == undisturbed.heldout_top1_epochs
    assert read_records(sweep.store, [outcome.key]) == {outcome.key: resumed}


def _always(**places):
    from sweep.train.checkpoint import Checkpoints

    return Checkpoints(**places, every_seconds=0.0)


def test_a_diverging_recipe_is_a_record_with_a_reason(tmp_path):
    sweep = prepared(tmp_path, ONE_GROUP, "search.recipe={lr: [1e30, 1e31]}")
    outcome = found_in(sweep)[1]
    record = run_trial(task(sweep, outcome), lambda record: None)
    assert record.status == "failed"
    assert "TrainingDivergedError: training loss is nan" in record.problem
    assert read_records(sweep.store, [outcome.key])[outcome.key].problem == record.problem


# --------------------------------------------------------------------------------------------------- for real


def command(config, out, *more):
    return [sys.executable, str(ROOT / "sweep" / "tune.py"), "--config", str(config), "--out", str(out), *more]


@pytest.mark.slow
def test_search_on_ray_tune_grows_and_its_recipes_enter_a_sweep(tmp_path):
    prepared(tmp_path, ONE_GROUP)  # writes the config
    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    started = time.monotonic()
    first = subprocess.run(command(config, out), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    assert first.returncode == 0, first.stderr
    assert seconds < 60 * int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # so many tests share the machine
    assert "vggm11 fractals 32 px: batch_size" in first.stdout
    assert "╭" not in first.stdout  # Tune's own tables

    trials = pq.read_table(out / "trials.parquet").to_pylist()
    assert [t["trial"] for t in trials] == [0, 1, 2, 3]
    default, chosen = trials[0], next(t for t in trials if t["chosen"])
    assert default["status"] == "finished"
    assert chosen["heldout_top1"] >= default["heldout_top1"]
    assert {t["status"] for t in trials} <= {"finished", "stopped"}
    assert all(t["heldout_top1"] == max(t["heldout_top1_epochs"]) for t in trials)
    assert (out / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert not list((out / "checkpoints").glob("*")) if (out / "checkpoints").exists() else True

    records = {file: file.stat().st_mtime_ns for file in (out / "trials").iterdir()}
    grown = subprocess.run(
        command(config, out, "--set", "search.trials=5"), capture_output=True, text=True, check=False
    )
    assert grown.returncode == 0, grown.stderr
    assert "1 of 5 trials to do" in grown.stderr
    assert {file: file.stat().st_mtime_ns for file in records} == records
    assert pq.read_table(out / "trials.parquet").num_rows == 5

    sweep = read_config(config, [f"recipes={out / 'recipes.yaml'}"])
    recipe = recipe_of(sweep, next(iter(block_values(sweep.grid[0]))))
    rule = yaml.safe_load((out / "recipes.yaml").read_text())[0]
    assert {"lr": recipe.lr, "batch_size": recipe.batch_size} == rule["recipe"]


@pytest.mark.slow
def test_sigterm_ends_a_search_cleanly(tmp_path):
    prepared(tmp_path, ONE_GROUP, "recipe.epochs=2")
    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    call = command(config, out, "--set", "recipe.epochs=500", "--set", "search.grace_epochs=400")
    process = subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 150
    while not list(out.glob("tune/*/*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=150)
    assert process.returncode == 130, errors
    assert "run the same command again to go on" in errors
    assert not (out / "recipes.yaml").exists()
    assert all(json.loads(f.read_text())["status"] != "stopped" for f in out.glob("trials/*.json"))


def test_a_config_without_a_search_is_told_so(tmp_path, capsys):
    from sweep import tune

    file = tmp_path / "c.yaml"
    file.write_text(CONFIG[: CONFIG.index("search:")])
    assert tune.main(["--config", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "no search section" in capsys.readouterr().err


def test_a_store_that_cannot_be_read_is_said(tmp_path, capsys):
    from sweep import tune

    prepared(tmp_path)
    file = tmp_path / "tiny.yaml"
    assert tune.main(["--config", str(file), "--out", str(tmp_path / ("x" * 300)), "--plan"]) == 1
    assert "File name too long" in capsys.readouterr().err


def test_plan_lists_the_trials(tmp_path, capsys):
    from sweep import tune

    prepared(tmp_path)
    assert tune.main(["--config", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out"), "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "8 trials for 2 groups of backbones, 0 already there" in printed
    assert "vggm11 fractals 32 px: batch_size 16, lr 0.01 (the config)" in printed
    assert table.RECORDS == "trials/"
