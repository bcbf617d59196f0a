"""Tasks in flight: lost ones are tried again after a pause, the last ones are split into their curves."""

import time
from dataclasses import replace

import pytest
import ray
from ray.cluster_utils import Cluster

from sweep.base.errors import DeviceError
from sweep.cell.task import CellResult
from sweep.config.recipe import Probe, Recipe
from sweep.config.schema import Resources
from sweep.driver import tasks
from sweep.driver.cluster import connect
from sweep.driver.decoding import decode_first, nodes_of_cells
from sweep.driver.nodes import MOST_FAILURES, NoNodeLeftError, located, node_id
from sweep.driver.sweep import longest_first, prepare, task_of
from sweep.driver.tasks import _Job, _Queue, cause_of, pause, run_cells
from sweep.study.check import read_config
from sweep.study.grid import Backbone, Curve
from sweep.study.keys import Planned, PlannedCell


def cell(name, curves=3, recipe=True):
    backbone = Backbone(
        architecture=name,
        id_dataset="fractals",
        id_classes=3,
        images_per_class=None,
        resolution=32,
        augmentation="off" if recipe else None,
        pretraining="scratch" if recipe else "timm",
        seed=0,
        width=1.0,
        recipe=Recipe() if recipe else None,
        layers_pattern=None,
    )
    planned = (
        Planned(Curve(backbone, f"d{number}", (Probe(),)), f"d{number}", "embedding", "weights", "run")
        for number in range(curves)
    )
    return PlannedCell(backbone, "run", {}, tuple(planned), (0,))


def stages(jobs):
    return [(job.stage, [planned.key for planned in job.cell.curves]) for job in jobs]


def test_pauses_grow_and_are_bounded():
    assert [pause(attempt) for attempt in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert pause(50) == 120.0


def test_a_cell_is_split_only_where_places_would_stand_empty():
    job = _Job(cell("a"))
    assert stages(job.split(2, others=2)) == [("whole", ["d0", "d1", "d2"])]
    assert stages(job.split(1, others=0)) == [("whole", ["d0", "d1", "d2"])]
    assert stages(job.split(2, others=1)) == [("train", ["d0", "d1", "d2"])]
    assert stages(job.curves(job.cell.curves, 2)) == [("curves", ["d0", "d2"]), ("curves", ["d1"])]
    loaded = _Job(cell("a", recipe=False))
    assert stages(loaded.split(8, others=0)) == [("curves", ["d0"]), ("curves", ["d1"]), ("curves", ["d2"])]
    assert stages(_Job(cell("a", curves=1)).split(8, others=0)) == [("whole", ["d0"])]


def test_the_queue_keeps_order_and_lets_pauses_pass(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now[0])
    queue = _Queue([cell("a"), cell("b")])
    queue.put(_Job(cell("late")), wait=5.0)
    assert [queue.take().cell.backbone.architecture for _ in range(2)] == ["a", "b"]
    assert queue.take() is None
    assert len(queue) == 1
    now[0] = 106.0
    assert queue.take().cell.backbone.architecture == "late"


@pytest.fixture(scope="module")
def resources():
    """Of a cluster of two nodes with a CPU each."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cluster.add_node(num_cpus=1)
        environment.setenv("RAY_ADDRESS", cluster.address)
        try:
            with connect(Resources(gpus=0, retries=2, max_in_flight=2)) as found:
                yield found
        finally:
            cluster.shutdown()


def run(cells, resources, body, monkeypatch):
    """Run cells with another body of the task; gives the attempts that were lost."""
    lost = []
    monkeypatch.setattr(tasks, "_run_task", body)
    monkeypatch.setattr(tasks, "pause", lambda attempt: 0.1)
    run_cells(
        cells,
        resources,
        task_of=lambda cell, train_only: (
            cell.backbone.architecture,
            train_only,
            [planned.key for planned in cell.curves],
        ),
        lost=lost.append,
        show=lambda running: None,
    )
    return lost


@ray.remote(num_cpus=0)
class Log:
    def __init__(self):
        self.entries = []

    def add(self, entry):
        self.entries.append(entry)
        return len(self.entries)

    def read(self):
        return self.entries


def test_io_errors_and_dead_workers_are_tried_again_and_others_are_not(resources, monkeypatch):
    log = Log.remote()

    def body(task):
        import os

        name = task[0]
        tries = [entry for entry in ray.get(log.read.remote()) if entry == name]
        ray.get(log.add.remote(name))
        if name == "io" and not tries:
            raise OSError("store away")
        if name == "dies" and not tries:
            os._exit(1)
        if name == "never":
            raise ConnectionResetError("still away")
        if name == "wrong":
            raise ValueError("wrong for good")
        return CellResult((), ())

    names = ["io", "dies", "never", "wrong", "fine"]
    lost = run([cell(name, curves=1) for name in names], resources, body, monkeypatch)
    entries = ray.get(log.read.remote())
    assert {name: entries.count(name) for name in names} == {"io": 2, "dies": 2, "never": 3, "wrong": 1, "fine": 1}
    transient = {attempt.cell.backbone.architecture: attempt.transient for attempt in lost}
    assert transient == {"io": True, "dies": True, "never": True, "wrong": False}
    assert {str(attempt.error) for attempt in lost} >= {"store away", "still away"}


def test_a_node_whose_device_fails_is_left_taken_out_and_named(resources, monkeypatch, capsys):
    """On the head's device nothing succeeds, and it fails at once; every cell ends on the other node."""
    log, broken = Log.remote(), next(n["NodeID"] for n in ray.nodes() if "node:__internal_head__" in n["Resources"])

    def body(task):
        with located():
            ray.get(log.add.remote((task[0], node_id())))
            if node_id() == broken:
                raise DeviceError("AcceleratorError: CUDA error: uncorrectable ECC error encountered")
        time.sleep(0.3)
        return CellResult(("d0",), (), node_id())

    names = [f"n{number}" for number in range(10)]
    cells = [replace(cell(name, curves=1), run=name) for name in names]
    lost = run(cells, resources, body, monkeypatch)
    entries = ray.get(log.read.remote())
    there = [name for name, node in entries if node == broken]
    assert len(set(there)) == len(there)  # none came back to it
    assert MOST_FAILURES <= len(there) <= MOST_FAILURES + 2  # those that Ray had already may follow
    assert sorted(name for name, node in entries if node != broken) == names
    assert {(one.transient, type(one.error)) for one in lost} == {(True, DeviceError)}
    said = capsys.readouterr().err
    assert said.count("3 backbones in a row failed by its device (AcceleratorError: CUDA error: uncorrectable ECC") == 1
    assert "it gets no more work" in said


def test_once_every_node_is_out_the_rest_waits_for_the_next_run(resources, monkeypatch):
    def body(task):
        with located():
            raise DeviceError("CUDA error: unknown")

    lost = run(
        [replace(cell(f"n{number}", curves=1), run=str(number)) for number in range(9)], resources, body, monkeypatch
    )
    assert {one.transient for one in lost} == {True}
    given_up = {one.cell.run for one in lost if isinstance(one.error, NoNodeLeftError)}
    assert given_up
    assert len({one.cell.run for one in lost}) == 9
    assert all(
        "no node is left: node " in str(one.error) for one in lost if one.cell.run in given_up and one.seconds == 0
    )


def test_the_last_backbones_are_trained_then_probed_in_parts(resources, monkeypatch):
    log = Log.remote()

    def body(task):
        ray.get(log.add.remote(task))
        return CellResult((), ("d1",) if task[1] else ())  # training says that d1 cannot be

    assert run([cell(name) for name in ("a", "b", "c")], resources, body, monkeypatch) == []
    entries = ray.get(log.read.remote())
    trained = [name for name, train_only, _ in entries if train_only]
    assert "c" in trained  # when it starts, a place would stand empty
    for name in trained:
        probed = [dataset for n, only, datasets in entries if n == name and not only for dataset in datasets]
        assert sorted(probed) == ["d0", "d2"]
    for name in {"a", "b", "c"} - set(trained):
        assert [datasets for n, _, datasets in entries if n == name] == [["d0", "d1", "d2"]]


def test_causes(resources):
    @ray.remote(max_retries=0)
    def fails():
        raise PermissionError("no")

    with pytest.raises(ray.exceptions.RayError) as caught:
        ray.get(fails.remote())
    cause, transient = cause_of(caught.value)
    assert isinstance(cause, PermissionError)
    assert transient


def test_the_curves_of_a_tail_are_dealt_out_by_their_work():
    work = {"d0": 1.0, "d1": 9.0, "d2": 10.0, "d3": 1.0, "d4": 0.5, "d5": 0.5}
    jobs = _Job(longest_first(cell("net", curves=6), work)).curves(longest_first(cell("net", curves=6), work).curves, 2)
    loads = [sum(work[planned.key] for planned in job.cell.curves) for job in jobs]
    assert sorted(loads) == [10.5, 11.5]
    assert [job.cell.curves[0].key for job in jobs] == ["d2", "d1"]


def test_nodes_decode_that_may_run_cells():
    nodes = [
        {"NodeID": name, "Alive": name != "dead", "Resources": has}
        for name, has in {
            "head": {},
            "cpu": {"CPU": 8.0},
            "gpu": {"CPU": 16.0, "GPU": 2.0},
            "dead": {"CPU": 4.0, "GPU": 1.0},
        }.items()
    ]
    assert nodes_of_cells(nodes, gpu=True) == [("gpu", 16)]
    assert nodes_of_cells(nodes, gpu=False) == [("cpu", 8), ("gpu", 16)]


def test_images_are_decoded_beforehand_where_that_is_worth_it(resources, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        f"name: t\ncache_dir: {tmp_path / 'cache'}\nprobe_datasets: [glyphs]\n"
        "datasets: {glyphs: {classes: 3, train_per_class: 6, test_per_class: 4}}\n"
        "grid: [{architecture: resnet18, pretraining: a1_in1k}]\n"
    )
    sweep = prepare(read_config(file), str(tmp_path / "out"))
    task = task_of(sweep, sweep.cells[0], gpu=False)
    decode_first(sweep.cells, 4_999, resources, task=task, show=lambda: None)
    assert not (tmp_path / "cache" / "images").exists()
    decode_first(sweep.cells, 5_000, resources, task=task, show=lambda: None)
    assert len([entry for entry in (tmp_path / "cache" / "images").iterdir() if entry.is_dir()]) == 2
