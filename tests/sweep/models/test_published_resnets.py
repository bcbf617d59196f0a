"""The four published CIFAR-10 ResNets through the plug-in of ``examples/cifar_resnets``; the files may be absent."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sweep import commands, register
from sweep.cell.cell import run_cell
from sweep.driver import sweep as driver
from sweep.models.build import build_backbone, match_weights
from sweep.study.check import read_config
from sweep.study.sources import weights_source
from tests.labelled import labelled

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "cifar_resnets"
SHARED = Path(os.environ.get("TUNNEL_SWEEP_SHARED") or ROOT.parent / "shared")
PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018}  # 0.27, 0.46, 0.66, 0.85 M in He et al. 2016, table 6
here = pytest.mark.skipif(not (SHARED / "study" / "weights").is_dir(), reason="the published weights are not here")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The example's data_root: weights and data side by side."""
    found = tmp_path_factory.mktemp("root")
    (found / "weights").symlink_to(SHARED / "study" / "weights")
    (found / "data").symlink_to(SHARED / "data")
    return found


def config_of(root, *overrides):
    return read_config(EXAMPLE / "cifar.yaml", [f"data_root={root}", f"cache_dir={root / 'cache'}", *overrides])


@pytest.mark.parametrize("depth", PARAMETERS)
def test_the_networks_are_those_of_the_paper(depth):
    register.load(["cifar_resnets"], str(EXAMPLE))
    model = build_backbone(f"cifar_resnet{depth}", classes=10, resolution=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[depth]
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == depth - 1


def published(state, images):
    """Logits by the published code's formulas, written out; blocks are numbered as in its names."""

    def normed(x, name):
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.relu(normed(F.conv2d(images, state["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(normed(F.conv2d(x, state[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn1"))
            y = normed(F.conv2d(y, state[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
            planes = y.shape[1]
            short = x if stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))
            x, block = F.relu(y + short), block + 1
    return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


@here
@pytest.mark.parametrize("depth", PARAMETERS)
def test_the_published_weights_load_without_a_line_and_compute_what_they_did(root, depth):
    source = weights_source(config_of(root), f"cifar_resnet{depth}", "cifar")
    assert match_weights(f"cifar_resnet{depth}", source, resolution=32).fits
    model = build_backbone(f"cifar_resnet{depth}", classes=10, resolution=32, weights=source).eval()
    state = torch.load(source.name, map_location="cpu", weights_only=True)["state_dict"]
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        expected = published({name.removeprefix("module."): value for name, value in state.items()}, images)
        torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)


@here
@pytest.mark.skipif(not (SHARED / "data" / "cifar10.tar.gz").is_file(), reason="CIFAR-10 is not here")
@pytest.mark.parametrize("depth", PARAMETERS)
def test_the_last_layers_probe_agrees_with_the_networks_own_head(root, tmp_path, capsys, depth):
    """Of one layer alone, ``layer3``'s last block, which is what the head is given; 200 test images, se 3 points."""
    name = f"cifar_resnet{depth}"
    asked = [f"grid.0.architecture={name}", "probe_datasets=[]", "datasets.cifar10.train_per_class=40"]
    asked.append(f"layers.{name}=layer3\\.{(depth - 2) // 6 - 1}")
    config = config_of(root, *asked, "datasets.cifar10.test_per_class=20")
    assert commands.weights(config, "cifar") == 0
    said = capsys.readouterr().out
    own = float(said.split("its own classifier: ")[1].split(" %")[0])
    assert own > 60  # the study's view zooms in, which costs these networks some points
    sweep = driver.prepare(config, str(tmp_path))
    (cell,) = sweep.cells
    assert run_cell(driver.task_of(sweep, cell, gpu=False)).failed == ()
    rows = labelled(sweep).to_pylist()
    (last,) = {row["top1"] for row in rows if row["is_penultimate"] and row["chosen"]}
    assert 100 * last == pytest.approx(own, abs=8)
    assert {row["id_images"] for row in rows} == {50_000}
