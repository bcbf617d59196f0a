"""Two processes that train together compute what one computes on the whole batch, and outlive each other."""

import json
import os
import pickle
import signal
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import BatchNormAct2d
from torch import nn

from sweep import driver, table
from sweep.base.errors import StorageError
from sweep.base.seeds import derive_seed
from sweep.base.store import Store
from sweep.cell.cell import run_cell
from sweep.cell.together import RecordedError, train_together
from sweep.config.problem import ConfigError
from sweep.config.recipe import Recipe
from sweep.study.check import read_config
from sweep.train.batch_norm import synchronised
from sweep.train.batches import PlainImages
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import NOTHING_ALONG, Along, Labelled, pretrain
from sweep.train.ranks import ALONE, RankLostError, connected
from tests.labelled import labelled
from tests.sweep.study.test_grid import grid_of, keys, make
from tests.sweep.train.test_pretrain import data

RECIPE = Recipe(epochs=4, lr=1e-2, batch_size=8, warmup_epochs=1)
TINY = """
name: tiny
grid:
  - {architecture: vggm11, id_dataset: fractals, id_classes: 3, images_per_class: 12, width: 0.0625, augmentation: on}
probe_datasets: [glyphs]
datasets:
  fractals: {classes: 4, train_per_class: 12, test_per_class: 6}
  glyphs: {classes: 5, train_per_class: 6, test_per_class: 4}
recipe: {epochs: 3, warmup_epochs: 1, batch_size: 16, data_parallel: 2}
probe: {solver: adamw, epochs: 3, batch_size: 32, at_epochs: [1]}
"""


class Network(nn.Module):
    """Batch norm plain and with an activation, and a parameter that is never used. No bias that batch norm undoes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False)
        )
        self.norm, self.head = BatchNormAct2d(6), nn.Linear(24, 3)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, images_BCHW):
        return self.head(self.norm(self.features(images_BCHW)).flatten(1))


class Dying(PlainImages):
    """Images of a process that is killed in its third epoch."""

    def epoch(self, batches, *, seed):
        if seed == derive_seed("k", "augment", 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().epoch(batches, seed=seed)


def train(ranks, checkpoints=None, source=PlainImages, along=NOTHING_ALONG):
    images_NHWC, labels_N = data(31)
    return pretrain(
        Network(),
        source(images_NHWC, labels_N, np.arange(31)),
        heldout=Labelled(*data(9, seed=1)),
        test=Labelled(*data(9, seed=2)),
        recipe=RECIPE,
        key="k",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        device=torch.device("cpu"),
        checkpoints=checkpoints or Checkpoints(load=lambda: None, save=lambda _data: None),
        along=along,
        ranks=ranks,
    )


def normalised(kind, x_BCHW, gradient_BCHW, together):
    """Output, gradients and buffers of a batch norm with other than its initial numbers."""
    module = kind(3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        module.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    if together:
        synchronised(module)
    x_BCHW = x_BCHW.clone().requires_grad_()
    out_BCHW = module(x_BCHW)
    out_BCHW.backward(gradient_BCHW)
    return {
        "out": out_BCHW.detach(),
        "x": x_BCHW.grad,
        "weight": module.weight.grad,
        "bias": module.bias.grad,
        **dict(module.named_buffers()),
    }


def batch():
    random = torch.Generator().manual_seed(0)
    x_BCHW = 3 + 5 * torch.randn(7, 3, 2, 2, generator=random)
    return x_BCHW, torch.randn(7, 3, 2, 2, generator=random)


def stubborn(ranks):
    """What each process hears when another one cannot start."""
    try:
        with ranks.all_or_none(torch.device("cpu")):
            if ranks.rank == 1:
                raise ValueError("no such image here")
    except Exception as error:
        return type(error).__name__, str(error)


def sweep_of(home):
    return driver.prepare(read_config(home / "tiny.yaml"), str(home / "out"))


def together(home, ranks):
    """Train the tiny config's backbone; the error that a process ends with."""
    sweep = sweep_of(home)
    try:
        train_together(driver.task_of(sweep, sweep.cells[0], gpu=False), ranks)
    except Exception as error:
        return error


def child(rank, home, home_diverging):
    """One of the two processes; leaves what it found in a file."""
    torch.set_num_threads(1)
    home = Path(home)
    store = dist.FileStore(str(home / "meeting"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    ranks, found = connected(), {}
    for kind in (nn.BatchNorm2d, BatchNormAct2d):
        parts = [torch.from_numpy(np.array_split(whole, 2)[rank]) for whole in map(torch.Tensor.numpy, batch())]
        found[kind.__name__] = normalised(kind, *parts, together=True)
    kept, passed = [], []
    trained = train(
        ranks,
        Checkpoints(lambda: None, lambda data: kept.append(bytes(data)), every_seconds=0),
        along=Along(frozenset({2}), passed.append),
    )
    found["whole"], found["passed"] = trained, passed
    found["resumed"] = train(ranks, Checkpoints(lambda: kept[1] if ranks.leads else None, lambda _data: None))
    found["stubborn"] = stubborn(ranks)
    found["together"] = repr(together(home, ranks))
    found["again"] = repr(together(home, connected()))
    error = together(Path(home_diverging), connected())
    found["diverging"] = type(error), getattr(error, "keys", None)
    (home / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    try:
        with ranks.watched():
            train(
                ranks,
                Checkpoints(lambda: None, lambda data: kept.append(bytes(data)), every_seconds=0),
                source=Dying if rank else PlainImages,
            )
    except RankLostError as error:
        (home / "lost.json").write_text(json.dumps([str(error), len(kept)]))
    os._exit(0)  # destroying the process group would wait for the dead


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, and where they trained."""
    home, diverging = tmp_path_factory.mktemp("together"), tmp_path_factory.mktemp("diverging")
    for place, text in ((home, TINY), (diverging, TINY.replace("batch_size: 16", "batch_size: 16, lr: 1e30"))):
        (place / "tiny.yaml").write_text(text + f"cache_dir: {home / 'cache'}\n")
    context = mp.start_processes(child, (str(home), str(diverging)), 2, join=False, start_method="spawn")
    for process in context.processes:
        process.join(timeout=120)
    errors = [Path(file).read_bytes() for file in context.error_files if Path(file).exists()]
    assert [process.exitcode for process in context.processes] == [0, -signal.SIGKILL], errors
    return home, diverging, [pickle.loads((home / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]


def close(one, other, tolerance=1e-5):
    return torch.allclose(one.float(), other.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_batch_norm_over_parts_is_that_of_the_whole(found, kind):
    parts = [each[kind.__name__] for each in found[2]]
    assert [len(part["out"]) for part in parts] == [4, 3]
    whole = normalised(kind, *batch(), together=False)
    for name in ("out", "x"):
        assert close(torch.cat([part[name] for part in parts]), whole[name]), name
    for name in ("weight", "bias"):
        assert close(sum(part[name] for part in parts), whole[name]), name
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(parts[0][name], parts[1][name])
        assert close(parts[0][name], whole[name]), name


def test_an_unknown_batch_norm_is_refused():
    class Mine(nn.BatchNorm2d):
        pass

    with pytest.raises(TypeError, match=r"0 is a Mine.*data_parallel: 1"):
        synchronised(nn.Sequential(Mine(3)))


def test_two_processes_train_as_one(found):
    alone, (first, second) = train(ALONE), found[2]
    assert all(torch.equal(first["whole"].state[name], second["whole"].state[name]) for name in alone.state)
    assert all(close(first["whole"].state[name], value, 1e-3) for name, value in alone.state.items())
    for one, other in zip(first["whole"].history, alone.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert one["heldout_top1"] == other["heldout_top1"]
    assert first["whole"].epoch == second["whole"].epoch == alone.epoch
    assert first["whole"].test_top1 == alone.test_top1
    assert [trained.epoch for trained in first["passed"]] == [2]


def test_a_resumed_run_ends_with_the_same_weights(found):
    for each in found[2]:
        assert all(torch.equal(value, each["resumed"].state[name]) for name, value in each["whole"].state.items())
        assert each["resumed"].history == each["whole"].history


def test_nobody_starts_unless_everybody_does(found):
    first, second = (each["stubborn"] for each in found[2])
    assert first == ("RankLostError", "another process of this training run could not start")
    assert second == ("ValueError", "no such image here")


def test_a_killed_process_is_noticed_and_the_checkpoint_kept(found):
    said, checkpoints = json.loads((found[0] / "lost.json").read_text())
    assert "was lost, or failed" in said
    assert checkpoints == 3 + 2  # of the undisturbed run, and after both epochs before the kill


def test_the_first_process_publishes_and_the_curves_need_no_other(found):
    home, _, both = found
    assert [each["together"] for each in both] == [each["again"] for each in both] == ["None", "None"]
    sweep = sweep_of(home)
    weights = {planned.weights for planned in sweep.curves.values()}
    assert {Path(name).stem for name in sweep.store.names("weights/")} == weights
    assert not sweep.store.names("checkpoints/") + sweep.store.names("running/")
    task = driver.task_of(sweep, sweep.cells[0], gpu=False)
    assert len(run_cell(task).done) == 4
    rows = labelled(sweep)
    assert set(rows["data_parallel"].to_pylist()) == {2}
    other = Store(str(home / "other"))
    with pytest.raises(StorageError, match="2 processes train together"):  # alone it would be another result
        run_cell(replace(task, store_uri=other.uri))
    assert not other.names("failures/")


def test_a_failure_that_stays_is_recorded_once_by_the_first(found):
    _, home, both = found
    assert [each["diverging"][0] for each in both] == [RecordedError, type(None)]
    store = Store(str(home / "out"))
    records = table.read_failures(store, both[0]["diverging"][1])
    assert {record["exception"] for record in records} == {"TrainingDivergedError"}
    assert len(store.names("failures/")) == len(records) == 4


def test_keys_are_those_of_ever_for_one_process():
    ring = keys()
    assert ring.weights(grid_of(make()).cells[0].backbone) == "82106e9d2ebca1fae183"
    assert ring.weights(grid_of(make(recipe={"data_parallel": 1})).cells[0].backbone) == "82106e9d2ebca1fae183"
    two, four = (grid_of(make(recipe={"data_parallel": n})).cells[0].backbone for n in (2, 4))
    assert len({"82106e9d2ebca1fae183", ring.weights(two), ring.weights(four)}) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("data_parallel: 2", "data_parallel: 3"), ["recipe.data_parallel = 3", "batch_size, 16", "valid: 1, 2, 4, 8"]),
        (("data_parallel: 2", "data_parallel: 16"), ["recipe.data_parallel = 16", "valid: 1, 2, 4, 8"]),
        (("data_parallel: 2", "data_parallel: 0"), ["recipe.data_parallel = 0", "greater than 0"]),
        (("data_parallel: 2", "data_parallel: 2, mixup: 0.2"), ["recipe.mixup = 0.2", "mixes whole batches"]),
        (("augmentation: on", "data_parallel: [1, 5]"), ["grid[0].data_parallel = 5", "valid: 1, 2, 4, 8"]),
        (("name: tiny", "name: tiny\nresources: {gpus: 0.5}"), ["resources.gpus = 0.5", "a GPU of its own"]),
        (
            ("name: tiny", "name: tiny\nsearch: {recipe: {data_parallel: [1, 2]}}"),
            ["search.recipe.data_parallel", "a trial is one process"],
        ),
    ],
)
def test_impossible_settings_are_named(tmp_path, change, expected):
    text = TINY.replace(*change)
    assert text != TINY
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path / "c.yaml")
    for part in expected:
        assert part in str(error.value)


def test_it_may_be_a_variable_of_the_grid():
    config = make(grid=[{"architecture": "vggm11", "id_dataset": "fractals", "data_parallel": [1, 2]}])
    assert [cell.backbone.processes for cell in grid_of(config).cells] == [1, 2]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "c.yaml"
        file.write_text(TINY.replace("data_parallel: 2", "data_parallel: 1"))
        assert read_config(file).recipe.data_parallel == 1
