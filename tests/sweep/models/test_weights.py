"""Pretrained weights: local checkpoints with a key map, torchvision's, timm's; read safely, matched in the open."""

import pickle
import subprocess
import sys

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from sweep import commands, table
from sweep.base.errors import UserError
from sweep.cell.cell import run_cell
from sweep.config.problem import ConfigError
from sweep.config.schema import WeightsEntry
from sweep.driver import sweep as driver
from sweep.models.build import build_backbone, match_weights, normalization
from sweep.models.layers import probed_layers
from sweep.models.weights import read_weights
from sweep.study.check import read_config
from sweep.study.resolve import keyring

CONFIG = """
name: t
grid:
  - {architecture: test_resnet, id_dataset: fractals, pretraining: mine, resolution: native}
probe_datasets: [glyphs]
datasets:
  fractals: {classes: 3, train_per_class: 8, test_per_class: 4}
  glyphs: {classes: 3, train_per_class: 8, test_per_class: 4}
probe: {epochs: 2, batch_size: 16}
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
    (cell,) = sweep.grid.cells
    result = run_cell(driver.task_of(sweep, cell, gpu=False))
    assert (len(result.done), result.failed) == (2, ())
    rows = table.read_fragments(sweep.store, list(sweep.curves)).to_pylist()
    assert {(r["pretraining"], r["resolution"], r["id_images"], r["lr"]) for r in rows} == {("mine", 160, 1234, None)}
    assert [row["layer_name"] for row in rows[:12]] == [layer.name for layer in probed_layers(network, resolution=160)]
    assert all(0 <= row["top1"] <= 1 for row in rows)


def test_loaded_weights_give_the_features_of_the_saved_ones(tmp_path, network):
    entry = WeightsEntry(path=str(save(tmp_path / "mine.pt", network)), key_map={r"^backbone\.": ""})
    model = build_backbone("test_resnet", classes=3, resolution=160, pretraining="mine", weights=entry).eval()
    images = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(model.forward_features(images), network.forward_features(images))
    assert model.get_classifier().out_features == 3  # the checkpoint's classifier has 7


def test_pixels_are_normalised_as_the_entry_says(tmp_path):
    own = WeightsEntry(path="x.pt", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert normalization("test_resnet", "mine", own) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert normalization("test_resnet", "mine", WeightsEntry(path="x.pt"))[0] == pytest.approx((0.485, 0.456, 0.406))
    torchvisions = WeightsEntry(torchvision="ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1")
    assert normalization("vit_base_patch16_384", "tv", torchvisions)[0] == pytest.approx((0.485, 0.456, 0.406))


def test_what_changes_the_embeddings_changes_the_key(tmp_path, network):
    save(tmp_path / "mine.pt", network)

    def key(text=CONFIG):
        return keyring(read_config(write(tmp_path, text))).weights_files["mine"]

    same = key()
    assert key(CONFIG.replace("trained_on: 1234", "title: other")) == same
    changes = [("mean: [0.5", "mean: [0.6"), ("0.4], trained", "0.5], trained"), ("''}", "'x'}")]
    assert len({same, *(key(CONFIG.replace(*change)) for change in changes)}) == 4
    save(tmp_path / "mine.pt", timm.create_model("test_resnet", num_classes=7))
    assert key() != same


# ------------------------------------------------------------------------------------------------ what does not match


def entry_for(tmp_path, network, **options):
    return WeightsEntry(path=str(save(tmp_path / "w.pt", network, **options)))


def test_the_whole_match_is_reported_with_the_key_map_that_would_help(tmp_path, network):
    entry = entry_for(tmp_path, network, extra={"projector.weight": torch.zeros(2)}.items())
    found = match_weights("test_resnet", entry, resolution=160)
    report = found.report()
    assert not found.fits
    assert "missing in the file: bn1.bias" in report
    assert "projector.weight" in found.unused
    assert r"key_map: {'^backbone\.': ''} would drop it" in report
    with pytest.raises(UserError, match="does not fit the model: 0 tensors match"):
        build_backbone("test_resnet", classes=3, resolution=160, pretraining="mine", weights=entry)
    mapped = entry.model_copy(update={"key_map": {r"^backbone\.": ""}})
    found = match_weights("test_resnet", mapped, resolution=160)
    assert found.fits
    assert found.report().splitlines()[1:] == ["1 in the file but not used: projector.weight"]
    assert set(found.classifier) == {"fc.weight", "fc.bias"}


def test_other_shapes_are_told_and_counters_may_be_missing(tmp_path, network):
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pt")
    entry = WeightsEntry(path=str(tmp_path / "w.pt"))
    assert match_weights("test_resnet", entry, resolution=160).fits
    torch.save(state | {"bn1.bias": torch.zeros(3)}, tmp_path / "w.pt")
    found = match_weights("test_resnet", entry, resolution=160)
    assert not found.fits
    assert "1 of another shape: bn1.bias: (3,) in the file, (32,) in the model" in found.report()


def test_the_command_line_says_how_a_checkpoint_fits(tmp_path, network):
    save(tmp_path / "mine.pt", network)
    fits = commands.weights(read_config(write(tmp_path)), "mine")
    assert "test_resnet at 160 px: fits" in fits
    without = CONFIG.replace(r"key_map: {'^backbone\.': ''}, ", "")
    assert "test_resnet at 160 px: does not fit" in commands.weights(read_config(write(tmp_path, without)), "mine")
    with pytest.raises(UserError, match="no such entry; mine"):
        commands.weights(read_config(write(tmp_path)), "other")


def test_two_tensors_of_one_name_are_a_mistake(tmp_path, network):
    entry = entry_for(tmp_path, network).model_copy(update={"key_map": {r".*weight$": "weight"}})
    with pytest.raises(UserError, match="after key_map two tensors are called 'weight'"):
        read_weights(entry)


class Dangerous:
    """Unpickling it would call a function."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("content", [pickle.dumps(Dangerous()), b"garbage", b""])
def test_a_file_that_is_no_state_dict_is_refused_without_running_it(tmp_path, capsys, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pt cannot be read as weights"):
        read_weights(WeightsEntry(path=str(tmp_path / "w.pt")))
    torch.save({"state_dict": {"a": 1}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_weights(WeightsEntry(path=str(tmp_path / "w.pt")))
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------ configs


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("path: mine.pt, ", ""), ("weights.mine", "path or the name of torchvision weights")),
        (("path: mine.pt", "path: mine.pt, torchvision: ResNet18_Weights.DEFAULT"), ("weights.mine", "either")),
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
    entry = WeightsEntry(torchvision="ResNet18_Weights.IMAGENET1K_V1")
    model = build_backbone("resnet18", classes=5, resolution=64, pretraining="tv", weights=entry).eval()
    torch.testing.assert_close(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    file.unlink()
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    with pytest.raises(UserError, match=r"is there a network\? Or put resnet18-\w+\.pth into"):
        read_weights(entry)
    file.write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"the network is not to blame: remove resnet18-\w+\.pth"):
        read_weights(entry)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError("no route to host"), "is there a network"),
        (AssertionError("Input height (100) should be divisible by patch size (16)"), "the network is not to blame"),
        (RuntimeError("size mismatch for head.weight"), "the network is not to blame"),
    ],
)
def test_a_failure_of_timm_is_told_by_its_cause(monkeypatch, error, says):
    def fails(*_arguments, **_options):
        raise error

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(UserError, match=f"could not be loaded .*{says}"):
        build_backbone("resnet18", classes=5, resolution=64, pretraining="a1_in1k")


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
        "from sweep.models import build_backbone; "
        "m = build_backbone('test_resnet', classes=3, resolution=160, pretraining='timm'); "
        "print(f'{float(m.layer4[0].conv1.weight.detach().double().sum()):.9f}')"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{float(thousand.layer4[0].conv1.weight.detach().double().sum()):.9f}"
