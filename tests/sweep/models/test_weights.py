"""Pretrained weights: local checkpoints with a key map, torchvision's, timm's; read safely, matched in the open."""

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from sweep import commands
from sweep.base.errors import UserError
from sweep.cell.cell import run_cell
from sweep.config.problem import ConfigError
from sweep.config.schema import WeightsEntry
from sweep.driver import sweep as driver
from sweep.models.build import build_backbone, match_weights
from sweep.models.layers import probed_layers
from sweep.models.weights import read_source, renamed
from sweep.study.check import read_config
from sweep.study.sources import source_of, weights_source
from tests.labelled import labelled

CONFIG = """
name: t
grid:
  - {architecture: test_resnet, id_dataset: fractals, pretraining: mine, resolution: native}
probe_datasets: [glyphs]
datasets:
  fractals: {classes: 3, train_per_class: 8, test_per_class: 4}
  glyphs: {classes: 3, train_per_class: 8, test_per_class: 4}
probe: {solver: adamw, epochs: 2, batch_size: 16}
weights:
  mine: {path: mine.pt, key_map: {'^backbone\\.': ''}, mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.4], trained_on: 1234}
"""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=7).eval()


def save(file, network, prefix="backbone.", extra=()):
    state = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    state |= dict(extra)
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save({"epoch": 3, "state_dict": state}, file)
    return file


def write(tmp_path, text=CONFIG):
    file = tmp_path / "c.yaml"
    file.write_text(text + f"cache_dir: {tmp_path / 'cache'}\n")
    return file


# ------------------------------------------------------------------------------------------------ from file to table


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_checkpoint_is_saved_loaded_and_probed(tmp_path, network, ending):
    save(tmp_path / f"mine.{ending}", network)
    sweep = driver.prepare(read_config(write(tmp_path, CONFIG.replace("mine.pt", f"mine.{ending}"))), str(tmp_path))
    (cell,) = sweep.cells
    result = run_cell(driver.task_of(sweep, cell, gpu=False))
    assert (len(result.done), result.failed) == (2, ())
    rows = labelled(sweep).to_pylist()
    assert {(r["pretraining"], r["resolution"], r["id_images"], r["lr"]) for r in rows} == {("mine", 160, 1234, None)}
    assert [row["layer_name"] for row in rows[:12]] == [layer.name for layer in probed_layers(network, resolution=160)]
    assert all(0 <= row["top1"] <= 1 for row in rows)


def test_loaded_weights_give_the_features_of_the_saved_ones(tmp_path, network):
    entry = WeightsEntry(path=str(save(tmp_path / "mine.pt", network)), key_map={r"^backbone\.": ""})
    model = build_backbone("test_resnet", classes=3, resolution=160, weights=source_of(entry, "test_resnet")).eval()
    images = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(model.forward_features(images), network.forward_features(images))
    assert model.get_classifier().out_features == 3  # the checkpoint's classifier has 7


def test_pixels_are_normalised_as_the_entry_says(tmp_path):
    own = source_of(WeightsEntry(path="x.pt", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), "test_resnet")
    assert (own.mean, own.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    torchvisions = source_of(
        WeightsEntry(torchvision="ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"), "vit_base_patch16_384"
    )
    assert torchvisions.mean == pytest.approx((0.485, 0.456, 0.406))
    assert (torchvisions.resolution, torchvisions.images) == (384, 3_600_000_000)


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "vit_base_patch16_clip_224", "resnet18", "test_vit"])
def test_a_file_that_nobody_describes_gets_the_pixels_of_its_architecture(architecture):
    source, expected = source_of(WeightsEntry(path="x.pt"), architecture), timm.get_pretrained_cfg(architecture)
    assert (source.mean, source.std) == (tuple(expected.mean), tuple(expected.std))
    assert architecture in source.pixels_from
    stated = WeightsEntry(path="x.pt", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert source_of(stated, architecture).pixels_from == "the config"


def test_what_changes_the_embeddings_changes_the_key(tmp_path, network):
    save(tmp_path / "mine.pt", network)

    def key(text=CONFIG):
        return weights_source(read_config(write(tmp_path, text)), "test_resnet", "mine").identity

    same = key()
    assert key(CONFIG.replace("trained_on: 1234", "title: other")) == same
    changes = [("mean: [0.5", "mean: [0.6"), ("0.4], trained", "0.5], trained"), ("''}", "'x'}")]
    assert len({same, *(key(CONFIG.replace(*change)) for change in changes)}) == 4
    save(tmp_path / "mine.pt", timm.create_model("test_resnet", num_classes=7))
    assert key() != same


# ------------------------------------------------------------------------------------------------ what does not match


def source_for(tmp_path, network, key_map=(), **options):
    entry = WeightsEntry(path=str(save(tmp_path / "w.pt", network, **options)), key_map=dict(key_map))
    return source_of(entry, "test_resnet")


def test_the_whole_match_is_reported_with_the_key_map_that_would_help(tmp_path, network):
    source = source_for(tmp_path, network, extra={"projector.weight": torch.zeros(2)}.items())
    found = match_weights("test_resnet", source, resolution=160)
    report = found.report()
    assert not found.fits
    assert "missing in the file: bn1.bias" in report
    assert "projector.weight" in found.unused
    assert r"key_map: {'^backbone\.': ''} would drop it" in report
    with pytest.raises(UserError, match="does not fit the model: 0 tensors match"):
        build_backbone("test_resnet", classes=3, resolution=160, weights=source)
    mapped = replace(source, key_map=((r"^backbone\.", ""),))
    found = match_weights("test_resnet", mapped, resolution=160)
    assert found.fits
    assert found.report().splitlines()[1:] == ["1 in the file but not used: projector.weight"]
    assert set(found.classifier) == {"fc.weight", "fc.bias"}


def test_other_shapes_are_told_and_counters_may_be_missing(tmp_path, network):
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pt")
    source = source_of(WeightsEntry(path=str(tmp_path / "w.pt")), "test_resnet")
    assert match_weights("test_resnet", source, resolution=160).fits
    torch.save(state | {"bn1.bias": torch.zeros(3)}, tmp_path / "w.pt")
    found = match_weights("test_resnet", source, resolution=160)
    assert not found.fits
    assert "1 of another shape: bn1.bias: (3,) in the file, (32,) in the model" in found.report()


def test_the_command_line_says_how_a_checkpoint_fits(tmp_path, network, capsys):
    save(tmp_path / "mine.pt", network)
    assert commands.weights(read_config(write(tmp_path)), "mine") == 0
    said = capsys.readouterr().out
    assert "mine: test_resnet at 160 px: fits" in said
    assert "pixels: mean [0.5, 0.4, 0.3], std [0.2, 0.3, 0.4] (the config)" in said
    assert "forward pass of 12 images: 12 probed layers, none of them dead or exploding" in said
    assert "which of its 7 classes are those of fractals is not known" in said
    without = CONFIG.replace(r"key_map: {'^backbone\.': ''}, ", "")
    assert commands.weights(read_config(write(tmp_path, without)), "mine") == 1
    said = capsys.readouterr().out
    assert "test_resnet at 160 px: does not fit" in said
    assert r"'^backbone\.': ''" in said.splitlines()[-1]
    with pytest.raises(UserError, match="no such entry; mine"):
        commands.weights(read_config(write(tmp_path)), "other")


def test_two_tensors_of_one_name_are_a_mistake(tmp_path, network):
    source = source_for(tmp_path, network, key_map={r".*weight$": "weight"})
    with pytest.raises(UserError, match="after key_map two tensors are called 'weight'"):
        renamed(read_source(source).state, source)


class Dangerous:
    """Unpickling it would call a function."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("content", [pickle.dumps(Dangerous()), b"garbage", b""])
def test_a_file_that_is_no_state_dict_is_refused_without_running_it(tmp_path, capsys, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pt cannot be read as weights"):
        read_source(source_of(WeightsEntry(path=str(tmp_path / "w.pt")), "test_resnet"))
    torch.save({"state_dict": {"a": 1}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_source(source_of(WeightsEntry(path=str(tmp_path / "w.pt")), "test_resnet"))
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------ configs


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("path: mine.pt, ", ""), ("weights.mine", "path or the name of torchvision weights")),
        (("path: mine.pt", "path: mine.pt, torchvision: ResNet18_Weights.DEFAULT"), ("weights.mine", "either")),
        (("path: mine.pt", "timm: a1_in1k"), ("weights.mine.key_map", "it has no use")),
        (("path: mine.pt, key_map: {'^backbone\\.': ''}", "timm: a1_in1k"), ("weights.mine.timm", "r160_in1k")),
        (("path: mine.pt", "path: {resnet18: mine.pt}"), ("weights.mine.path", "says nothing of test_resnet")),
        (("trained_on: 1234", "trained_on: imagnet1k"), ("weights.mine.trained_on", "imagenet1k")),
        (("trained_on: 1234", "trained_on: {image: 3}"), ("weights.mine.trained_on.image", "unknown key")),
        (("trained_on: 1234", "trained_on: 0"), ("weights.mine.trained_on.images", "greater than 0")),
        (("  mine: {", "  timm: {path: x.pt}\n  mine: {"), ("weights.timm", "choose another name")),
        (("path: mine.pt", "torchvision: resnet18"), ("weights.mine.torchvision = resnet18", "ResNet50_Weights")),
        ((", std: [0.2, 0.3, 0.4]", ""), ("weights.mine", "mean and std belong together")),
        (("[0.2, 0.3, 0.4]", "[0.2]"), ("weights.mine.std",)),
        (("'^backbone", "'(backbone"), ("weights.mine.key_map", "not a regular expression")),
        (("resolution: native", "resolution: nativ"), ("grid[0].resolution", "'native'")),
        (("architecture: test_resnet", "architecture: vggm11"), ("grid[0].resolution[0] = native", "nobody says")),
    ],
)
def test_mistakes_are_named(tmp_path, change, expected):
    text = CONFIG.replace(*change)
    assert text != CONFIG
    with pytest.raises(ConfigError) as error:
        read_config(write(tmp_path, text))
    for part in expected:
        assert part in str(error.value)


def test_an_entry_may_say_its_input_side(tmp_path):
    config = read_config(write(tmp_path, CONFIG.replace("path: mine.pt", "path: mine.pt, resolution: 96")))
    (cell,) = driver.expand(config, lambda name: driver.sizes(config, name)).cells
    assert cell.backbone.resolution == 96


def test_a_missing_file_or_unknown_torchvision_weights_stop_a_run_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.pt: no such checkpoint file"):
        read_config(write(tmp_path), need_data=True)
    text = CONFIG.replace("path: mine.pt", "torchvision: ResNet18_Weights.NONE_SUCH")
    with pytest.raises(ConfigError, match=r"torchvision has no weights 'ResNet18_Weights\.NONE_SUCH'"):
        read_config(write(tmp_path, text), need_data=True)


# ------------------------------------------------------------------------------------------------ from the hubs' caches


def test_torchvisions_weights_come_from_its_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.resnet18().eval()
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    file = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    torch.save(source.state_dict(), file)
    found = source_of(WeightsEntry(torchvision="ResNet18_Weights.DEFAULT"), "resnet18")
    assert (found.name, found.identity) == (str(weights), f"torchvision:{weights}")  # an alias is what it stands for
    model = build_backbone("resnet18", classes=5, resolution=64, weights=found).eval()
    torch.testing.assert_close(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    file.unlink()
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    with pytest.raises(UserError, match=r"is there a network\? Or put resnet18-\w+\.pth into"):
        read_source(found)
    file.write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"the network is not to blame: remove resnet18-\w+\.pth"):
        read_source(found)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError("no route to host"), "is there a network"),
        (AssertionError("Input height (100) should be divisible by patch size (16)"), "the network is not to blame"),
        (RuntimeError("size mismatch for head.weight"), "the network is not to blame"),
    ],
)
def test_a_failure_of_timm_is_told_by_its_cause(monkeypatch, error, says):
    source = source_of(WeightsEntry(timm="timm"), "test_resnet")

    def fails(*_arguments, **_options):
        raise error

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(UserError, match=f"could not be loaded .*{says}"):
        build_backbone("test_resnet", classes=5, resolution=64, weights=source)


def _no_network(*_args, **_options):
    raise OSError("no route to host")


def test_timms_weights_come_from_the_hub_cache(tmp_path, network):
    """Laid out as the Hugging Face hub lays it out; read by timm's own loader, offline."""
    thousand = timm.create_model("test_resnet", num_classes=1000)
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    safetensors.torch.save_file(thousand.state_dict(), snapshot / "model.safetensors")
    code = (
        "from sweep.config import WeightsEntry; from sweep.models import build_backbone; "
        "from sweep.study import source_of; source = source_of(WeightsEntry(timm='timm'), 'test_resnet'); "
        "m = build_backbone('test_resnet', classes=3, resolution=160, weights=source); "
        "print(f'{float(m.layer4[0].conv1.weight.detach().double().sum()):.9f}')"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{float(thousand.layer4[0].conv1.weight.detach().double().sum()):.9f}"
