"""A backbone that learns two tasks, without Ray: what is measured against loops of the test's own, and after a kill."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from analysis.tables.continual import CONFIGURATION
from sweep import driver, table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.cell import library_of, run_cell
from sweep.cell.split import first_reaching, named_layer
from sweep.config import GRID_VARIABLES
from sweep.config.problem import ConfigError
from sweep.models import build_backbone
from sweep.study.check import read_config
from sweep.table.continual import CONTINUAL_SCHEMA, GROUPS, RUN_COLUMNS
from sweep.train.pretrain import learning_rate

TINY = """
name: tiny
grid:
  - {architecture: vggm11, id_dataset: glyphs, tasks: 2, width: 0.0625}
probe_datasets: [gratings]
datasets:
  glyphs: {classes: 6, train_per_class: 16, test_per_class: 8}
  gratings: {classes: 3, train_per_class: 8, test_per_class: 6}
recipe: {epochs: 2, warmup_epochs: 1, lr: 4e-3, batch_size: 16}
probe: {folds: 1}
holdout: 0.25
continual: {split: [id95, ood, 4, all]}
"""
LAYERS = 10


class KilledError(BaseException):
    """Not an Exception: nothing in the sweep may record and survive it."""


def prepared(folder, text=TINY, out="out"):
    file = folder / "c.yaml"
    file.write_text(text + f"cache_dir: {folder / 'cache'}\n")
    return driver.prepare(read_config(file), str(folder / out))


def tasks_of(sweep):
    return [driver.task_of(sweep, cell, gpu=False) for cell in sweep.cells]


def written(sweep):
    """Rows of the table of courses, without what differs between runs."""
    plan = driver.plan_of(sweep)
    table.export_courses(sweep.store, [plan], table.done_courses(sweep.store))
    path = sweep.store.path(table.CONTINUAL)
    return pq.read_table(path).drop_columns(list(RUN_COLUMNS)).to_pylist()


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The only cell of the config, run once; its sweep, and its rows."""
    sweep = prepared(tmp_path_factory.mktemp("course"))
    (task,) = tasks_of(sweep)
    result = run_cell(task)
    assert result.failed == ()
    assert len(result.done) == 3
    return sweep, task, written(sweep)


def looped(sweep, task, body, head, skip):
    """Test accuracy of the body of one run's weights with the classifier of another's: a loop of the test's own."""
    library = replace(library_of(task), skip=skip)
    images = library.images("glyphs", task.cell.backbone.view, classes=3)
    states = [safetensors.torch.load(sweep.store.get(f"weights/{run}.safetensors")) for run in (body, head)]
    network = build_backbone("vggm11", classes=3, resolution=32, width=0.0625).eval()
    network.load_state_dict({name: states[name.startswith("head")][name] for name in states[0]})
    right = []
    for image, label in zip(images.test_NHWC, images.test_labels_N, strict=True):
        x = (torch.tensor(image).permute(2, 0, 1) / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / (
            torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        )
        with torch.inference_mode():
            right.append(int(network(x[None]).argmax()) == label)
    return right


def test_the_matrix_is_what_a_loop_over_images_counts(learned):
    sweep, task, rows = learned
    (planned,) = task.cell.courses
    matrix = {(row["after_task"], row["task"]): row for row in rows if row["kind"] == "matrix"}
    assert matrix.keys() == {(moment, number) for moment in range(3) for number in (1, 2)}
    for moment, number in [(1, 1), (2, 1), (2, 2)]:
        row, runs = matrix[moment, number], planned.runs
        right = looped(sweep, task, runs[moment - 1], runs[number - 1], skip=3 * (number - 1))
        assert row["top1"] == np.mean(right)
        assert np.unpackbits(np.frombuffer(row["correct"], np.uint8), count=row["n_test"]).tolist() == right
        assert row["classifier"] == "trained"
    assert {matrix[at]["classifier"] for at in [(0, 1), (0, 2), (1, 2)]} == {"untrained"}
    assert all(0 <= row["head_refit_top1"] <= 1 for row in matrix.values())


def test_tasks_share_no_class_and_no_image(learned):
    _, task, _ = learned
    library, view = library_of(task), task.cell.backbone.view
    chosen = [set(replace(library, skip=skip).select("glyphs", classes=3).classes.tolist()) for skip in (0, 3)]
    assert chosen[0] | chosen[1] == set(range(6))
    images = [replace(library, skip=skip).images("glyphs", view, classes=3) for skip in (0, 3)]
    assert [len(part.train_NHWC) for part in images] == [48, 48]
    assert {tuple(np.unique(part.train_labels_N)) for part in images} == {(0, 1, 2)}


def test_a_swap_with_itself_changes_nothing_and_one_behind_the_last_layer_neither(learned):
    _, _, rows = learned
    matrix = {(row["after_task"], row["task"]): row["correct"] for row in rows if row["kind"] == "matrix"}
    swaps = {
        (row["combination"], row["split_layer"], row["task"]): row["correct"]
        for row in rows
        if row["kind"] == "combination" and row["split_by"] == "all"
    }
    assert len(swaps) == 4 * LAYERS * 2
    for layer in range(1, LAYERS + 1):
        assert swaps["E2+T2", layer, 1] == matrix[2, 1]
        assert swaps["E1+T1", layer, 1] == matrix[1, 1]
        assert swaps["E1+T1", layer, 2] == swaps["E1+T1", 1, 2]
    assert swaps["E1+T2", LAYERS, 1] == swaps["E1+T1", LAYERS, 1]
    assert swaps["E2+T1", LAYERS, 1] == swaps["E2+T2", LAYERS, 1]


def test_splits_are_where_probes_and_names_say(learned):
    sweep, task, rows = learned
    by = {row["split_by"]: row["split_layer"] for row in rows if row["kind"] == "combination"}
    (planned,) = task.cell.courses
    probes = table.read_fragments(sweep.store, [planned.id_curve]).to_pylist()
    reached = [row["layer"] for row in probes if row["top1"] >= 0.95 * probes[-1]["top1"]]
    assert by["id95"] == reached[0]
    ood = table.read_fragments(sweep.store, planned.ood_curves).to_pylist()
    assert by["ood"] == max(ood, key=lambda row: row["heldout_top1"])["layer"]
    assert by["layer 4"] == 4
    assert first_reaching(0.95, np.array([0.1, 0.96, 0.9, 1.0])) == 2
    assert named_layer("b", ["a", "b"]) == named_layer(2, ["a", "b"]) == 2
    six = [row for row in rows if row["split_by"] == "layer 4"]
    assert [row["combination"] for row in six if row["task"] == 1] == [
        "E1+T1", "E1+T2", "E2+T1", "E2+T2", "E2+T1 fine-tuned", "E2 fine-tuned",
    ]  # fmt: skip
    assert [row["tunnel_after"] for row in six if row["fine_tuned"]] == [1, None]


def test_every_column_is_described_and_the_labels_are_those_of_the_backbone(learned):
    sweep, _, rows = learned
    assert all(text for group in GROUPS.values() for _, _, text in group)
    assert {(row["plan"], row["architecture"], row["n_tasks"], row["seed"]) for row in rows} == {
        ("tiny", "vggm11", 2, 0)
    }
    assert {row["tasks"] for row in rows} == {"glyphs classes 1–3 → glyphs classes 4–6"}
    assert "`head_refit_top1`" in table.continual_dictionary()
    # the analysis imports nothing of the sweep; what tells courses apart there is what a grid can vary
    assert {*CONFIGURATION, "seed"} == {*GRID_VARIABLES, "tasks"} - {"id_dataset", "id_classes"}
    assert set(CONFIGURATION) < set(CONTINUAL_SCHEMA.names)
    again = driver.prepare(sweep.config, sweep.store.uri)
    assert driver.missing_cells(again, again.listing().done) == []


def test_a_course_that_was_killed_goes_on_to_the_same_table(learned, tmp_path, monkeypatch):
    _, _, rows = learned
    sweep = prepared(tmp_path)
    (task,) = tasks_of(sweep)
    from sweep.train import pretrain as training

    trained, train_epoch = [], training._Run.train_epoch

    def counted(run, epoch, train):
        if len(trained) == 5:  # two epochs of each task, one of the first fine-tuning
            trained.append("killed")
            raise KilledError
        trained.append((run.key, epoch))
        train_epoch(run, epoch, train)

    monkeypatch.setattr(training._Run, "train_epoch", counted)
    monkeypatch.setattr(training.Checkpoints, "every_seconds", 0.0, raising=False)
    with pytest.raises(KilledError):
        run_cell(task)
    assert table.done_courses(sweep.store) == frozenset()
    assert run_cell(task).failed == ()
    assert written(sweep) == rows
    runs = [each[0] for each in trained if each != "killed"]
    (planned,) = task.cell.courses
    assert [runs.count(run) for run in planned.runs] == [2, 2]  # no task was learned again


def test_a_course_whose_curve_is_missing_is_a_failure_that_the_next_run_tries_again(learned, tmp_path):
    sweep, _, _ = learned
    other = prepared(tmp_path, TINY.replace("split: [id95, ood, 4, all]", "split: id98, fine_tune: null"))
    (own,) = tasks_of(other)
    (course,) = own.cell.courses
    own = replace(own, cell=replace(own.cell, curves=()))
    for run in course.runs:  # of the other store: nothing is trained again
        for part in ("safetensors", "json"):
            other.store.put(f"weights/{run}.{part}", sweep.store.get(f"weights/{run}.{part}"))
    assert run_cell(own).failed == (course.key,)
    (record,) = table.read_failures(other.store, [course.key])
    assert (record["stage"], record["transient"]) == ("tasks", True)
    assert "which decides the split" in record["message"]


def test_fine_tuning_falls_in_steps(learned):
    sweep, _, _ = learned
    tuning = next(iter(sweep.courses.values())).course.tuning
    assert (tuning.lr, tuning.decay_epochs) == (4e-3, (1, 2))
    tuning = tuning.model_copy(update={"epochs": 50, "decay_epochs": (20, 40), "warmup_epochs": 0, "lr": 1.0})
    rates = [learning_rate(step, steps_per_epoch=2, recipe=tuning) for step in (0, 39, 40, 79, 80, 99)]
    np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("tasks: 2", "tasks: 1"), "greater than or equal to 2"),
        (("tasks: 2", "tasks: 4"), "6 classes of glyphs make no 4 tasks"),
        (("tasks: 2", "tasks: [glyphs, letters]"), "grid[0].tasks[1] = letters: no such dataset"),
        (("tasks: 2", "tasks: [gratings, glyphs]"), "is the first of the tasks"),
        (("id95, ood", "id95, features.1"), "no such layer of vggm11"),
        (("split: [", "fine_tune: {decay: 3}, split: ["), "continual.fine_tune.decay"),
        (("split: [", "fine_tune: {epochs: 1}, split: ["), "must be more than warmup_epochs"),
        (("probe_datasets: [gratings]", "probe_datasets: []"), "no probe_datasets that could decide it"),
        (("holdout:", "intervene: [{layers: 9..3, to: initial}]\nholdout:"), "intervene[0].layers = 9..3: no layers"),
        (("holdout:", "intervene: [{layers: all, to: {width: 2}}]\nholdout:"), "intervene[0].to.width"),
        (("holdout:", "intervene: [{layers: all, to: zero}]\nholdout:"), "intervene[0].to = zero"),
    ],
)
def test_mistakes_are_named(tmp_path, change, expected):
    file = tmp_path / "c.yaml"
    file.write_text(TINY.replace(*change))
    with pytest.raises(ConfigError) as error:
        read_config(file)
    assert expected in str(error.value)


def test_a_damaged_course_is_set_aside_and_done_again(learned, tmp_path):
    sweep, task, _ = learned
    (course,), other = task.cell.courses, Store(str(tmp_path))
    name = f"courses/{course.key}.parquet"
    whole = sweep.store.get(name)
    other.put(name, whole)
    assert table.verify_fragments(other).quarantined == {}
    for bad in (whole[:-9], whole.replace(b"PAR1", b"PAR0")):
        other.put(name, bad)
        assert len(table.verify_fragments(other).quarantined) == 1
        assert table.done_courses(other) == frozenset()
    other.put("courses/another.parquet", whole)
    (reason,) = table.verify_fragments(other).quarantined.values()
    assert reason == "rows of another course"
    other.put("courses/another.parquet", whole)
    strange = table.LabelledCourse("another", "run", "b")
    with pytest.raises(UserError, match=r"another\.parquet is damaged: rows of another course"):
        table.export_courses(other, [table.Plan("t", {}, (), courses=(strange,))], {"another"})


def test_datasets_as_tasks_with_any_number_and_another_architecture(tmp_path):
    text = TINY.replace("{architecture: vggm11, id_dataset: glyphs, tasks: 2, width: 0.0625}", (
        "{architecture: vit_tiny_patch8, tasks: [glyphs, gratings, digits], width: 0.25}"
    )).replace("split: [id95, ood, 4, all]", "split: blocks.2, fine_tune: {decay_epochs: [1]}")  # fmt: skip
    text = text.replace("gratings: {", "digits: {train_per_class: 4, test_per_class: 2}\n  gratings: {")
    text = text.replace("epochs: 2, warmup_epochs: 1", "epochs: 1, warmup_epochs: 0")
    text = text.replace("train_per_class: 16", "train_per_class: 6")
    sweep = prepared(tmp_path, text)
    (task,) = tasks_of(sweep)
    assert run_cell(task).failed == ()
    rows = written(sweep)
    assert {row["tasks"] for row in rows} == {"glyphs → gratings → digits"}
    matrix = [row for row in rows if row["kind"] == "matrix"]
    assert [(row["after_task"], row["task"]) for row in matrix] == [(m, t) for m in range(4) for t in (1, 2, 3)]
    assert {row["task"]: row["classes"] for row in matrix} == {1: 6, 2: 3, 3: 10}
    swaps = {row["combination"] for row in rows if row["kind"] == "combination"}
    assert swaps == {
        "E1+T1", "E1+T2", "E2+T1", "E2+T2", "E1+T3", "E3+T1", "E3+T3", "E2+T1 fine-tuned", "E2 fine-tuned",
        "E3+T1 fine-tuned", "E3 fine-tuned",
    }  # fmt: skip
    assert {(row["split_layer"], row["split_layer_name"]) for row in rows if row["split_layer"]} == {(3, "blocks.2")}
    assert {row["tunnel_layers"] for row in rows if row["split_layer"]} == {9}


def test_a_course_has_the_key_of_what_decides_it_and_the_first_task_that_of_the_same_backbone_alone(tmp_path):
    def keys(text):
        (cell,) = prepared(tmp_path, text).cells
        return [course.key for course in cell.courses], cell.run, [planned.key for planned in cell.curves]

    (whole,), run, curves = keys(TINY)
    alone = keys(TINY.replace("tasks: 2,", "id_classes: 3,"))
    assert alone == ([], run, curves)
    named = TINY.replace("id95, ood, 4, all", "4")
    assert keys(named)[0] == keys(named.replace("folds: 1", "folds: 2"))[0] != [whole]
    assert keys(TINY.replace("folds: 1", "folds: 2"))[0] != [whole]
    assert keys(named.replace("split:", "fine_tune: {lr: 1e-3}, split:"))[0] != keys(named)[0]
