"""Every stage on a GPU against the same stage on CPU; skipped where there is none.

Shapes: N images, D width, C classes.
"""

import socket

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from sweep import driver
from sweep.cell.cell import run_cell
from sweep.config.recipe import Probe, Recipe
from sweep.embed.extract import embed
from sweep.embed.statistics import layer_statistics
from sweep.models import Feeder, build_backbone, probed_layers
from sweep.probes import converged
from sweep.probes.data import ProbeData
from sweep.probes.fit import fit_probes
from sweep.study.check import read_config
from sweep.train.batch_norm import synchronised
from sweep.train.batches import CroppedImages
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import Labelled, pretrain
from sweep.train.resample import kernels_on
from tests.bench.train import Case, images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
LAST = torch.channels_last
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
TINY = """
name: tiny
datasets: {few: {generator: glyphs, classes: 3, train_per_class: 40, test_per_class: 20}}
grid: [{architecture: [vggm11, vit_tiny_patch8], id_dataset: few, width: 0.125, augmentation: on}]
recipe: {epochs: 2, warmup_epochs: 0, batch_size: 16}
"""


def embeddings(device, *, widths=(24, 64, 300), n=600, n_test=400, classes=7):
    """Around class means, each layer on another scale, as float16 would hold them."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(n + n_test) % classes
    layers = []
    for number, width in enumerate(widths):
        means_CD = torch.randn(classes, width, generator=generator) * 2 / width**0.5
        noise_ND = torch.randn(n + n_test, width, generator=generator)
        layers.append(((noise_ND + means_CD[labels_N]) * 10.0 ** (number - 1)).half())
    return ProbeData(
        train=[emb_ND[:n] for emb_ND in layers],
        train_labels_N=labels_N[:n].to(device),
        heldout_N=(torch.arange(n) % 5 == 0).to(device),
        test=[emb_ND[n:] for emb_ND in layers],
        test_labels_N=labels_N[n:].to(device),
        classes=classes,
        layer_names=[f"layer{number}" for number in range(len(widths))],
    )


def bits(result):
    """Whether each test image is right."""
    return np.unpackbits(np.frombuffer(result.correct, np.uint8))


@pytest.mark.parametrize(
    "recipe",
    [
        Probe(epochs=10, lr=1e-2),
        Probe(epochs=3, lr=1e-2, standardize="feature", weight_decay=0.1),
        Probe(epochs="auto", lr=1e-2, batch_size=32),
        Probe(solver="converged", standardize="feature", label_smoothing=0.0, penalties=(1.0, 1e-1, 1e-2, 1e-3)),
        Probe(solver="lbfgs", weight_decay=1e-2),
        Probe(solver="ridge", weight_decay=1e-1),
    ],
    ids=lambda recipe: f"{recipe.solver} {recipe.standardize}",
)
def test_probes_agree_with_those_on_cpu(recipe, monkeypatch):
    monkeypatch.setattr(converged, "_LAUNCHED", 0)  # nothing is left to the CPU
    ours, theirs = (fit_probes(embeddings(device), recipe, seed=3) for device in (GPU, CPU))
    for one, other in zip(ours, theirs, strict=True):
        assert one.problem is None
        agree = np.mean(bits(one) == bits(other))
        assert agree >= 0.98, (one.layer, agree)


def test_small_converged_probes_are_those_of_the_cpu():
    recipe = Probe(solver="converged", standardize="feature", label_smoothing=0.0, penalties=(1.0, 1e-2))
    ours, theirs = (fit_probes(embeddings(device), recipe, seed=3, cpus=4) for device in (GPU, CPU))
    assert [one.correct for one in ours] == [other.correct for other in theirs]
    assert [one.heldout_losses for one in ours] == [other.heldout_losses for other in theirs]


def test_probes_of_many_small_batches_do_not_wait_or_leak():
    data = embeddings(GPU)
    first = fit_probes(data, Probe(epochs=5, batch_size=32), seed=3, seeds=2)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    again = fit_probes(data, Probe(epochs=5, batch_size=32), seed=3, seeds=2)
    assert torch.cuda.memory_allocated() <= held * 1.1 + 2**20
    for one, other in zip(first, again, strict=True):
        assert one.correct == other.correct


@pytest.mark.parametrize("architecture", ["vggm11", "resnet18", "vit_tiny_patch8"])
def test_embeddings_agree_with_those_on_cpu(architecture):
    torch.manual_seed(0)
    model = build_backbone(architecture, classes=5, resolution=32).eval()
    layers = probed_layers(model, resolution=32)
    images_NHWC = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    told = {"mean": MEAN, "std": STD}
    theirs = embed(model, layers, images_NHWC, device=CPU, **told)
    ours = embed(model.to(GPU), layers, images_NHWC, device=GPU, **told)
    for one_ND, other_ND in zip(ours, theirs, strict=True):
        assert one_ND.shape == other_ND.shape
        assert one_ND.dtype == other_ND.dtype
        difference = (one_ND.float() - other_ND.float()).norm() / other_ND.float().norm()
        assert difference < 2e-3, float(difference)


def test_statistics_agree_with_those_on_cpu():
    data = embeddings(CPU)
    theirs = layer_statistics(data.train, data.train_labels_N, classes=7)
    ours = layer_statistics(data.train, data.train_labels_N.to(GPU), classes=7)
    for one, other in zip(ours, theirs, strict=True):
        for name, value in vars(other).items():
            assert getattr(one, name) == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_the_feeder_brings_every_batch_unharmed_while_the_device_is_busy():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 256, (64, 16, 16, 3), dtype=torch.uint8, generator=generator) for _ in range(60)]
    feeder = Feeder(MEAN, STD, device=GPU, layout=LAST)
    busy = torch.randn(2048, 2048, device=GPU)
    sums = []
    for images_BHWC in feeder.on_device(iter(batches)):
        busy = (busy @ busy).clamp_(-1, 1)  # the copies run ahead of it
        sums.append(images_BHWC.long().sum((1, 2, 3)))
    for ours_B, batch in zip(sums, batches, strict=True):
        assert torch.equal(ours_B.cpu(), batch.long().sum((1, 2, 3)))
    expected = (batches[0].permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    torch.testing.assert_close(feeder.normalized(batches[0].to(GPU)).cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operations", [False, True])
@pytest.mark.parametrize("side", [32, 224])
def test_crops_are_those_of_the_host(side, operations):
    source = images(Case("resnet18", side, 300, (256, 341)), "strong" if operations else "on", workers=0)
    batches = np.array_split(np.random.default_rng(0).permutation(300), 4)
    assert kernels_on(torch.device("cuda", 0)) is not None
    ours, theirs = (
        torch.cat(list(source.epoch(batches, seed=5, feeder=Feeder(MEAN, STD, device=device, layout=LAST)))).cpu()
        for device in (torch.device("cuda", 0), CPU)
    )
    assert torch.equal(ours, theirs)
    flat = torch.from_numpy(source.images.flat).to("cuda:0")
    pairs = [source._drawn(source.positions_N[indices_B], 5) for indices_B in batches]
    source._resampler._kernels = None  # by matmuls
    made = source.on_device(((flat, *pair) for pair in pairs), torch.device("cuda", 0))
    assert torch.equal(torch.cat(list(made)).cpu(), theirs)


def trained(*, stop_at=None, state=None, architecture="vggm11", width=0.125):
    """A small network on glyph-like noise with two classes; its weights and, if asked, its state after some epochs."""
    source = images(Case(architecture, 32, 250, (32, 32), width=width, batch_size=32), "on", workers=0)
    assert isinstance(source, CroppedImages)
    torch.manual_seed(0)
    model = build_backbone(architecture, classes=100, resolution=32, width=width)
    saved = []
    nothing = Labelled(np.empty((0, 32, 32, 3), np.uint8), np.empty(0, np.int64))
    result = pretrain(
        model,
        source,
        heldout=nothing,
        test=nothing,
        recipe=Recipe(epochs=3, warmup_epochs=0, batch_size=32, lr=1e-3, checkpoint_on="last"),
        key="k",
        mean=MEAN,
        std=STD,
        device=GPU,
        checkpoints=Checkpoints(load=lambda: state, save=saved.append, every_seconds=0.0),
        last_epoch=stop_at,
    )
    return result, saved


@pytest.mark.parametrize("captured", [False, True])
def test_training_learns_and_resumes_to_nearly_the_same_weights(captured, monkeypatch):
    monkeypatch.setattr("sweep.train.pretrain.PAYS_AFTER", 0 if captured else 10**9)
    whole, saved = trained()
    losses = [epoch["train_loss"] for epoch in whole.history]
    assert losses[-1] < losses[0]
    resumed, _ = trained(state=saved[0])
    for name, value in whole.state.items():
        torch.testing.assert_close(resumed.state[name], value, rtol=0.05, atol=0.02, msg=name)


@pytest.mark.parametrize(("architecture", "width"), [("vggm11", 0.125), ("resnet18", 0.25), ("vit_tiny_patch8", 0.25)])
def test_captured_steps_train_as_those_one_operator_after_the_other(architecture, width, monkeypatch):
    found = []
    for pays in (10**9, 0):
        monkeypatch.setattr("sweep.train.pretrain.PAYS_AFTER", pays)
        found.append(trained(architecture=architecture, width=width)[0])
    eager, captured = found
    for one, other in zip(eager.history, captured.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    for name, value in eager.state.items():
        torch.testing.assert_close(captured.state[name], value, rtol=0.05, atol=0.02, msg=name)


def test_a_whole_cell_runs_and_its_rows_are_sound(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY + f"cache_dir: {tmp_path / 'cache'}\n")
    sweep = driver.prepare(read_config(file), str(tmp_path / "out"))
    for cell in sweep.cells:
        result = run_cell(driver.task_of(sweep, cell, gpu=True))
        assert not result.failed
    driver.export(sweep, done=sweep.curves)
    rows = pq.read_table(tmp_path / "out" / "probes.parquet").to_pylist()
    assert {row["problem"] for row in rows} == {None}
    assert max(row["top1"] for row in rows) > 0.5


def _norm_in_parts(rank, port, out):
    """One of two processes on one GPU; NCCL wants one GPU each, gloo carries CUDA tensors too."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    module, x_BCHW, gradient_BCHW = _norm_case()
    module = synchronised(nn.Sequential(module))
    part = slice(0, 3) if rank == 0 else slice(3, 8)
    mine = x_BCHW[part].clone().requires_grad_()
    output = module(mine)
    output.backward(gradient_BCHW[part])
    torch.save(
        {"out": output.detach().cpu(), "grad": mine.grad.cpu(), "mean": module[0].running_mean.cpu()}, f"{out}{rank}"
    )
    dist.destroy_process_group()


def _norm_case():
    generator = torch.Generator().manual_seed(0)
    module = nn.BatchNorm2d(4).to(GPU)
    x_BCHW, gradient_BCHW = (torch.randn(8, 4, 5, 5, generator=generator).to(GPU) * 3 + 1 for _ in range(2))
    return module, x_BCHW, gradient_BCHW


def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_norm_in_parts, args=(port, str(tmp_path / "rank")), nprocs=2)
    parts = [torch.load(tmp_path / f"rank{rank}") for rank in range(2)]
    module, x_BCHW, gradient_BCHW = _norm_case()
    x_BCHW.requires_grad_()
    output = module(x_BCHW)
    output.backward(gradient_BCHW)
    torch.testing.assert_close(torch.cat([part["out"] for part in parts]), output.detach().cpu(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat([part["grad"] for part in parts]), x_BCHW.grad.cpu(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(parts[0]["mean"], module.running_mean.cpu(), rtol=1e-4, atol=1e-4)
