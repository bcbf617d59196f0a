"""What goes wrong inside a cell, without Ray: which failures are records, which are tried again, what is kept."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import sweep.cell.cell
import sweep.train.weights
from sweep import driver, table
from sweep.base.errors import DeviceError, StorageError, UserError
from sweep.base.store import Store
from sweep.cell.blame import Fate, fate
from sweep.cell.cell import run_cell
from sweep.study import Curve, Planned, read_config
from sweep.table.schema import RUN_COLUMNS
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import TrainingDivergedError
from tests.sweep.driver.test_end_to_end import ROOT, TWO_CURVES


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    home = tmp_path_factory.mktemp("config")
    (home / "tiny.yaml").write_text(TWO_CURVES + f"cache_dir: {home / 'cache'}\n")
    return home / "tiny.yaml"


@pytest.fixture
def task(file, tmp_path):
    sweep = driver.prepare(read_config(file), str(tmp_path / "out"))
    return driver.task_of(sweep, sweep.cells[0], gpu=False)


def failing(monkeypatch, place, name, error):
    calls = []

    def fail(*arguments, **options):
        calls.append((arguments, options))
        raise error

    monkeypatch.setattr(place, name, fail)
    return calls


def records(task):
    store = Store(task.store_uri)
    return table.read_failures(store, table.listing(store).failed)


def test_out_of_memory_in_training_is_a_failure_and_no_smaller_batch(task, monkeypatch):
    calls = failing(monkeypatch, sweep.train.weights, "pretrain", torch.OutOfMemoryError("CUDA out of memory"))
    result = run_cell(task)
    assert len(calls) == 1
    assert calls[0][1]["recipe"].batch_size == 16
    assert (len(result.done), len(result.failed)) == (0, 2)
    assert {(r["stage"], r["exception"], r["transient"]) for r in records(task)} == {
        ("pretrain", "OutOfMemoryError", False)
    }


@pytest.mark.parametrize("error", [StorageError(28, "disk full"), ConnectionResetError("gone"), PermissionError("no")])
def test_io_errors_leave_the_cell_and_are_no_record_of_its_own(task, monkeypatch, error):
    failing(monkeypatch, sweep.train.weights, "pretrain", error)
    with pytest.raises(type(error)):
        run_cell(task)
    assert not records(task)


ECC = getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: uncorrectable ECC error encountered")
CUDNN = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
NO_MEMORY = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize(
    ("error", "share", "expected"),
    [
        (ECC, 1.0, Fate.DEVICE),
        (CUDNN, 1.0, Fate.DEVICE),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), 1.0, Fate.STAYS),
        (torch.OutOfMemoryError("CUDA out of memory"), 1.0, Fate.STAYS),
        (torch.OutOfMemoryError("CUDA out of memory"), 0.5, Fate.CROWDED),
        (MemoryError(), 1.0, Fate.CROWDED),
        (NO_MEMORY, 1.0, Fate.CROWDED),
        (UserError("no such class"), 1.0, Fate.STAYS),
        (TrainingDivergedError("nan"), 1.0, Fate.STAYS),
        (KeyError("label"), 1.0, Fate.STAYS),
        (OSError(5, "I/O error"), 1.0, Fate.STORAGE),
        (Exception("of a library"), 1.0, Fate.OPEN),
    ],
)
def test_whose_an_error_is(task, error, share, expected):
    assert fate(error, replace(task, share=share)) is expected


@pytest.mark.parametrize("place", [(sweep.train.weights, "pretrain"), (sweep.cell.cell, "embed_curve")])
@pytest.mark.parametrize("error", [ECC, CUDNN])
def test_a_broken_device_is_no_record_of_a_curve(task, monkeypatch, place, error):
    failing(monkeypatch, *place, error)
    with pytest.raises(DeviceError, match=r"CUDA error: uncorrectable ECC|CUDNN_STATUS"):
        run_cell(task)
    assert not records(task)


def test_where_memory_is_short_the_other_curves_go_on_and_the_cell_is_tried_again(task, monkeypatch):
    whole = sweep.cell.cell.embed_curve

    def crowded(task, planned, *others):
        if planned.curve.is_id:
            raise MemoryError("others are here")
        return whole(task, planned, *others)

    monkeypatch.setattr(sweep.cell.cell, "embed_curve", crowded)
    with pytest.raises(MemoryError, match="others are here"):
        run_cell(task)
    assert not records(task)
    assert len(table.listing(Store(task.store_uri)).done) == 1


def test_an_error_that_nobody_knows_is_recorded_and_tried_again_by_the_next_run(task, monkeypatch):
    failing(monkeypatch, sweep.cell.cell, "embed_curve", Exception("of a library"))
    assert len(run_cell(task).failed) == 2
    assert {(r["stage"], r["transient"]) for r in records(task)} == {("embed", True)}


@pytest.mark.parametrize(
    ("name", "stage"), [("embed_curve", "embed"), ("probe_curve", "probe"), ("make_rows", "write")]
)
def test_a_failing_curve_says_its_stage_and_the_others_go_on(task, monkeypatch, name, stage):
    whole = getattr(sweep.cell.cell, name)

    def fails_once(*arguments, **options):
        asked = next(a for a in arguments if isinstance(a, Curve | Planned))
        if (asked.curve if isinstance(asked, Planned) else asked).dataset == "glyphs":
            raise ValueError("no such thing")
        return whole(*arguments, **options)

    monkeypatch.setattr(sweep.cell.cell, name, fails_once)
    result = run_cell(task)
    assert (len(result.done), len(result.failed)) == (1, 1)
    (record,) = records(task)
    assert (record["stage"], record["dataset"], record["message"]) == (stage, "glyphs", "no such thing")
    assert "fails_once" in record["traceback"]
    monkeypatch.undo()
    assert len(run_cell(task).done) == 1
    assert not Store(task.store_uri).names("failures/")


def test_a_diverged_training_leaves_no_checkpoint(task, monkeypatch):
    def diverges(*_arguments, checkpoints: Checkpoints, **_options):
        checkpoints.save(b"so far")
        raise TrainingDivergedError("training loss is nan")

    monkeypatch.setattr(sweep.train.weights, "pretrain", diverges)
    assert len(run_cell(task).failed) == 2
    assert not Store(task.store_uri).names("checkpoints/")
    assert {r["transient"] for r in records(task)} == {False}


def test_a_zombie_and_its_successor_write_the_same(task):
    """A worker that was given up goes on beside the one that replaced it; neither knows of the other."""
    first = run_cell(task)
    store = Store(task.store_uri)
    names = store.names("fragments/")
    before = [table.parse_parquet(store.get(name)).drop_columns(list(RUN_COLUMNS)) for name in names]
    elsewhere = replace(task, store_uri=f"{task.store_uri}-zombie")
    assert run_cell(elsewhere).done == first.done
    for name, rows in zip(names, before, strict=True):
        zombie = Store(elsewhere.store_uri).get(name)
        assert table.parse_parquet(zombie).drop_columns(list(RUN_COLUMNS)).equals(rows)
        store.put(name, zombie)  # it publishes last
    assert store.names("fragments/") == names


def test_a_reader_that_has_had_enough_is_no_error(file):
    command = f"{sys.executable} sweep/run.py --config {file} --plan | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    first, code = done.stdout.splitlines()
    assert first.startswith("Plan of tiny")
    assert (done.stderr, code in ("0", "141")) == ("", True)
