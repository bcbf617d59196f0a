"""What --weights says of weights that fit: dead and exploding layers, and the score of their own classifier."""

import itertools

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import yaml
from timm.data import ImageNetInfo
from torch import nn

from sweep import run as command
from sweep.cell.weights_report import look_at_weights, own_classes, run
from sweep.config.schema import WeightsEntry
from sweep.data.dataset import Dataset, Split
from sweep.data.view import study_view
from sweep.study.check import read_config
from sweep.study.sources import source_of

CONFIG = """
name: t
grid:
  - {architecture: test_resnet, id_dataset: gratings, pretraining: mine, resolution: 64}
datasets:
  gratings: {classes: 4, train_per_class: 8, test_per_class: 12}
weights:
  mine: {path: w.safetensors, trained_on: gratings}
"""


def network(*sizes):
    torch.manual_seed(0)
    pairs = itertools.pairwise(sizes)
    return nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in pairs), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def looked(model):
    return run(model, ["0", "1"], torch.randn(6, 3, 16, 16))[1]


def test_sound_layers_are_not_complained_of_and_logits_are_the_networks():
    model = network(3, 8, 4)
    images = torch.randn(60, 3, 16, 16)  # more than a batch
    logits, problems = run(model, ["0", "1"], images)
    assert problems == ""
    with torch.no_grad():
        torch.testing.assert_close(logits, model(images))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda layer: (layer.weight.zero_(), layer.bias.zero_()), "1 is dead (the same for all images)"),
        (lambda layer: (layer.weight.mul_(1e-8), layer.bias.fill_(1)), "1 is dead (the same for all images)"),
        (lambda layer: layer.weight.mul_(1e7), "1 explodes"),
        (lambda layer: layer.weight.fill_(torch.inf), "1 is not finite"),
    ],
)
def test_dead_and_exploding_layers_are_named(change, expected):
    model = network(3, 8, 4)
    with torch.no_grad():
        change(model[1])
    problems = looked(model)
    assert problems.startswith(expected)
    assert ";" not in problems  # the other layer is sound


def dataset(name, classes):
    empty = Split(np.zeros(0, dtype=np.int64), (), None)
    return Dataset(name, "0", tuple(classes), empty, empty, "official")


def source(**entry):
    return source_of(WeightsEntry(path="w.pt", **entry), "resnet18")


def test_imagenets_classes_are_known_by_their_synsets_in_timms_order():
    synsets = ImageNetInfo("imagenet1k").label_names()
    own, _ = own_classes(dataset("imagenet100", [synsets[7], synsets[3]]), source(), 1000)
    assert own == [7, 3]
    assert own_classes(dataset("birds", ["crow", "jay"]), source(), 1000)[0] is None


def test_classes_are_known_where_the_weights_were_last_trained_on_the_dataset():
    pets = dataset("pets", "abc")
    assert own_classes(pets, source(trained_on="pets"), 3)[0] == [0, 1, 2]
    chained = source(trained_on={"corpus": "imagenet1k + pets", "images": 3})
    assert own_classes(pets, chained, 3)[0] == [0, 1, 2]
    for classes, said in ((4, "pets"), (3, "cifar10"), (None, "pets")):
        assert own_classes(pets, source(trained_on=said), classes)[0] is None


def written(tmp_path, text=CONFIG):
    file = tmp_path / "c.yaml"
    file.write_text(text + f"cache_dir: {tmp_path / 'cache'}\n")
    return file


def fitted(tmp_path):
    """A network whose own head separates the classes of the generated gratings: least squares on its features."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=4).eval()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    from sweep.cell.weights_report import test_images  # a name that pytest would take for a test

    config = read_config(written(tmp_path))
    weights = source_of(config.weights["mine"], "test_resnet", root=str(tmp_path))
    shown = test_images(config, weights, "gratings", study_view(64), 4)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (weights.mean, weights.std))
    with torch.no_grad():
        pixels = (shown.pixels_NHWC.permute(0, 3, 1, 2).float() / 255 - mean) / std
        features = model.forward_head(model.forward_features(pixels), pre_logits=True).double()
        wanted = torch.eye(4, dtype=torch.float64)[torch.as_tensor(shown.labels_N)]
        padded = torch.cat([features, torch.ones(len(features), 1)], 1)
        solution = torch.linalg.lstsq(padded, wanted, driver="gelsd").solution.float()
        model.fc.weight.copy_(solution[:-1].T)
        model.fc.bias.copy_(solution[-1])
        right = (model(pixels).argmax(1).numpy() == shown.labels_N).mean()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    return 100 * right


def test_the_weights_own_classifier_is_scored_on_the_id_test_images(tmp_path):
    expected = fitted(tmp_path)
    assert expected > 60
    report = look_at_weights(read_config(written(tmp_path)), "mine", "test_resnet", 64, "gratings")
    assert report.fits
    assert f"its own classifier: {expected:.1f} % of 48 test images of gratings" in report.text
    assert "chance" not in report.text


def test_a_classifier_no_better_than_chance_is_doubted(tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=4).state_dict()
    safetensors.torch.save_file(state | {"fc.weight": state["fc.weight"] * 0}, tmp_path / "w.safetensors")
    report = look_at_weights(read_config(written(tmp_path)), "mine", "test_resnet", 64, "gratings")
    assert "25.0 % of 48 test images of gratings; that is chance" in report.text


def test_without_the_data_noise_is_shown_and_the_file_still_judged(tmp_path):
    torch.manual_seed(0)
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    text = CONFIG.replace("gratings: {classes: 4, train_per_class: 8, test_per_class: 12}", "cub200: {path: away}")
    config = read_config(written(tmp_path, text.replace("gratings", "cub200")))
    report = look_at_weights(config, "mine", "test_resnet", 64, "cub200")
    assert report.fits
    assert "forward pass of 8 images" in report.text
    assert "cub200 is not here" in report.text
    assert "12 probed layers" in report.text
    config = read_config(written(tmp_path, text.replace("gratings", "cub200") + "layers: {test_resnet: blocks}\n"))
    report = look_at_weights(config, "mine", "test_resnet", 64, "not known")
    assert "4 probed layers" in report.text
    assert "not scored: what the weights were trained on is not known; noise was shown" in report.text


# ------------------------------------------------------------------------------------------------- the command line


def test_the_printed_key_map_can_be_pasted(tmp_path, capsys):
    """Out of the terminal, into the config, and the checkpoint fits."""
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=4).state_dict()
    renamed = {name.replace("layer", "stage").replace(".bn1", ".norm_a"): value for name, value in state.items()}
    safetensors.torch.save_file(renamed, tmp_path / "w.safetensors")
    assert command.main(["--config", str(written(tmp_path)), "--weights", "mine"]) == 1
    said = capsys.readouterr().out
    block = said.split("to paste under weights:\n")[1]
    key_map = yaml.safe_load(block)["mine"]["key_map"]
    config = yaml.safe_load(CONFIG)
    config["weights"]["mine"]["key_map"] = key_map
    assert command.main(["--config", str(written(tmp_path, yaml.safe_dump(config))), "--weights", "mine"]) == 0
    assert "fits" in capsys.readouterr().out


def test_all_names_are_listed_on_request(tmp_path, capsys):
    state = timm.create_model("test_resnet").state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("layer3")}
    safetensors.torch.save_file(kept, tmp_path / "w.safetensors")
    missing = [name for name in state if name.startswith("layer3") and not name.endswith("tracked")]
    arguments = ["--config", str(written(tmp_path)), "--weights", "mine"]
    assert command.main(arguments) == 1
    assert not all(name in capsys.readouterr().out for name in missing)
    assert command.main([*arguments, "--names"]) == 1
    said = capsys.readouterr().out
    assert all(name in said for name in missing)
    assert "do not tell which is which" in said
