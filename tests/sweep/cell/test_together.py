"""Several processes train one backbone through Ray Train: their places in the cluster, and what befalls them."""

from dataclasses import replace

import pytest
import ray
import torch

from sweep import driver
from sweep.base.errors import StorageError, UserError
from sweep.cell.cell import workshop
from sweep.cell.task import CellResult
from sweep.cell.together import RecordedError
from sweep.config.recipe import Recipe
from sweep.config.schema import Resources
from sweep.driver import tasks
from sweep.driver.cluster import refuse_too_many
from sweep.driver.processes import _outcome
from sweep.driver.tasks import _Job
from sweep.study.check import read_config
from sweep.train.pretrain import TrainingDivergedError
from sweep.train.ranks import RankLostError, Ranks
from sweep.train.weights import train_backbone
from tests.sweep.driver.test_end_to_end import TWO_CURVES
from tests.sweep.driver.test_tasks import cell


def wide(name, processes):
    found = cell(name)
    backbone = found.backbone.__class__(**vars(found.backbone) | {"recipe": Recipe(data_parallel=processes)})
    return replace(found, backbone=backbone)


def test_more_processes_than_places_are_refused_unless_nodes_are_still_to_come():
    refuse_too_many(1, Resources(gpus=0), 0)
    refuse_too_many(4, Resources(gpus=1.0), 4)
    with pytest.raises(UserError, match=r"data_parallel = 8: this cluster has room for 4 .*1 CPUs and a GPU each"):
        refuse_too_many(8, Resources(cpus=1, gpus=1.0), 4)
    refuse_too_many(8, Resources(gpus=1.0, wait_for_nodes=True), 4)


def test_processes_are_counted_and_never_starved(monkeypatch):
    monkeypatch.setattr(tasks, "room", lambda resources: 4)
    resources = Resources(gpus=0, max_in_flight=8)
    one, three = _Job(cell("a")), _Job(wide("b", 3))
    assert (one.processes, three.processes) == (1, 3)
    (training,) = three.split(4, others=9)
    assert (training.stage, training.processes) == ("train", 3)
    curves = training.curves(training.cell.curves, 4)
    assert {(job.stage, job.processes) for job in curves} == {("curves", 1)}
    fits = tasks._fits
    assert fits(one, [one] * 7, resources)  # alone they may wait in Ray
    assert not fits(one, [one] * 8, resources)
    assert fits(training, [one], resources)
    assert not fits(training, [one] * 2, resources)  # it waits here until places are free
    assert fits(one, [training], resources)
    assert not fits(one, [training, one], resources)  # and nothing may take a place of its own
    assert fits(_Job(wide("c", 9)), [], resources)  # a node is gone: it may come back
    waiting = resources.model_copy(update={"wait_for_nodes": True})
    assert fits(training, [one] * 7, waiting)


def test_curves_that_are_lost_have_their_weights_looked_at_first():
    (lost, *_) = _Job(wide("b", 2), "train", attempt=2).curves(wide("b", 2).curves, 2)
    assert (lost.stage, lost.attempt) == ("curves", 2)
    assert (lost.again().stage, lost.again().attempt) == ("train", 3)
    assert _Job(cell("a"), "curves").again().stage == "curves"


def test_too_few_images_for_so_many_processes_are_said(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TWO_CURVES + f"cache_dir: {tmp_path / 'cache'}\n")
    sweep = driver.prepare(read_config(tmp_path / "tiny.yaml"), str(tmp_path / "out"))
    task = driver.task_of(sweep, sweep.cells[0], gpu=False)
    ranks = Ranks(0, 99)
    ranks.total = lambda value: value  # nobody else is there
    with pytest.raises(UserError, match=r"33 training images .* too few for recipe.data_parallel = 99"):
        train_backbone(task.cell.backbone, workshop(task, sweep.store, torch.device("cpu"), ranks))


def test_what_befell_the_processes_is_told_by_the_one_that_knows():
    ours, gone = RankLostError("a process is gone"), ray.exceptions.ActorDiedError()
    assert _outcome({0: RecordedError("k1", "k2"), 1: ours}, ValueError()) == CellResult((), ("k1", "k2"))
    for failures, expected in [
        ({0: ours, 1: MemoryError("no room here")}, MemoryError),
        ({0: StorageError(28, "disk full"), 1: ours}, StorageError),
        ({0: ours, 1: gone}, RankLostError),
        ({1: gone}, RankLostError),
        ({}, RankLostError),
    ]:
        with pytest.raises(expected) as caught:
            _outcome(failures, TrainingDivergedError("of Ray Train"))
        assert type(caught.value) is expected
