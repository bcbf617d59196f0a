"""What is decoded beforehand is what cells ask for: no less, no more."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from sweep import driver
from sweep.base.errors import UserError
from sweep.cell import decode
from sweep.cell.cell import run_cell
from sweep.study.check import read_config
from sweep.study.costs import cost

SEVERAL = """
name: several
datasets:
  few: {generator: glyphs, classes: 4, train_per_class: 12, test_per_class: 4}
  other: {generator: gratings, classes: 3, train_per_class: 6, test_per_class: 4}
grid:
  - {architecture: vggm11, id_dataset: few, id_classes: [2, all], augmentation: [off, on], width: 0.05}
  - {architecture: resnet18, id_dataset: few, resolution: 48, width: 0.0625, evaluation_view: exact, probe_datasets: []}
probe_datasets: [other]
recipe: {epochs: 1, warmup_epochs: 0, batch_size: 16}
probe: {solver: adamw, epochs: 1}
"""


@pytest.fixture
def sweep_in(tmp_path):
    file = tmp_path / "several.yaml"
    file.write_text(SEVERAL)

    def prepared(cache):
        return driver.prepare(read_config(file, [f"cache_dir={tmp_path / cache}"]), str(tmp_path / "out"))

    return prepared


def entries(tmp_path, cache):
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / cache / "images").iterdir() if path.is_dir()}


def test_cells_find_all_of_it_and_leave_none(sweep_in, tmp_path):
    sweep = sweep_in("one")
    task = driver.task_of(sweep, sweep.cells[0], gpu=False)
    assert decode(task, sweep.cells) == []
    before = entries(tmp_path, "one")
    for cell in sweep.cells:
        assert run_cell(driver.task_of(sweep, cell, gpu=False)).failed == ()
    assert entries(tmp_path, "one").keys() == before.keys()
    # glyphs at 32 px: train and test of 2 and of 4 classes, crops for both; at 48 px both parts; the other set's
    assert len(before) == 2 * 2 + 2 + 2 + 2
    assert cost(sweep.config, sweep.grid.cells).images == (2 + 4) * (16 + 12) + 4 * 16 + 3 * 10
    assert not list((tmp_path / "out").glob("running/*"))


def test_nodes_that_share_decode_each_set_once(sweep_in, tmp_path, monkeypatch):
    tasks = []
    for node in ("one", "two"):
        sweep = sweep_in(node)
        tasks.append(replace(driver.task_of(sweep, sweep.cells[0], gpu=False), share_decoded=True))
    for number, task in enumerate(tasks):
        assert decode(task, sweep.cells, part=(number, 2)) == []
    apart = [entries(tmp_path, node).keys() for node in ("one", "two")]
    assert not apart[0] & apart[1]
    monkeypatch.setattr("sweep.data.decoded._make", None)  # nothing is decoded any more
    for task in tasks:
        assert decode(task, sweep.cells) == []
    assert entries(tmp_path, "one").keys() == entries(tmp_path, "two").keys() == apart[0] | apart[1]
    for name in apart[0]:
        pixels = [(tmp_path / node / "images" / name / "pixels.u8").read_bytes() for node in ("one", "two")]
        assert pixels[0] == pixels[1]


def test_a_disk_without_room_ends_it_and_a_broken_set_does_not(sweep_in, tmp_path, monkeypatch):
    sweep = sweep_in("two")
    task = driver.task_of(sweep, sweep.cells[0], gpu=False)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=300_000))
    with pytest.raises(UserError, match=r"of this sweep take 0.000\d+ GB more in .*, where 0.0003 GB are free"):
        decode(task, sweep.cells)
    assert not (tmp_path / "two" / "images").exists()
    monkeypatch.undo()
    monkeypatch.setattr("sweep.data.decoded._viewed", lambda image, show: ValueError("broken"))
    problems = decode(task, sweep.cells[-1:])
    assert problems
    assert all("images cannot be read" in problem for problem in problems)


def test_a_cache_with_a_limit_is_filled_once_and_makes_its_own_room(sweep_in, tmp_path, monkeypatch):
    sweep = sweep_in("three")
    task = driver.task_of(sweep, sweep.cells[0], gpu=False)
    assert decode(task, sweep.cells) == []
    files = list((tmp_path / "three" / "images").rglob("*"))
    whole = sum(file.stat().st_size for file in files if file.is_file())
    sweep = sweep_in("four")
    few = replace(driver.task_of(sweep, sweep.cells[0], gpu=False), cache_bytes=whole // 2)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=600_000))  # less than all of it
    (problem,) = decode(few, sweep.cells[::-1])  # the largest first
    assert "cache_limit does not hold all at once" in problem
    held = sum(file.stat().st_size for file in (tmp_path / "four" / "images").rglob("*") if file.is_file())
    assert 0 < held <= whole // 2 + 10_000  # indices beside pixels
    assert decode(replace(few, cache_bytes=10 * whole), sweep.cells) == []
