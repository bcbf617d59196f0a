"""best_layer as a user calls it: an answer on class folders, and mistakes in one line with exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
import torch

from sweep import best_layer
from sweep.answer.halving import Candidate, Round, _fitting, _patterns, seconds
from sweep.answer.names import Model
from sweep.answer.question import _own_weights
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.table import Plan, best_row, publish_plan
from tests.class_folders import write_classes
from tests.local_head import ray_environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("best")
    write_classes(found / "birds", train=40, test=8)
    for name in ("test_resnet", "test_vit"):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            torch.save(timm.create_model(name, num_classes=4).state_dict(), found / f"{name}.pt")
    return found


def called(root, *more):
    command = [
        sys.executable,
        str(ROOT / "sweep" / "best_layer.py"),
        "--data",
        str(root / "birds"),
        "--resolution",
        "160",
    ]
    command += ["--models", "test_resnet,test_vit", "--weights", str(root / "test_resnet.pt")]
    command += ["--weights", f"test_vit={root / 'test_vit.pt'}", "--out", str(root / "out"), *more]
    environment = ray_environment() | {"TUNNEL_SWEEP_CACHE": str(root / "cache")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=280)


@pytest.mark.slow
def test_an_answer_its_table_and_a_second_call_that_computes_nothing(root):
    done = called(root, "--budget", "1h")
    assert done.returncode == 0, done.stderr
    assert "test_resnet.test_resnet" in done.stdout
    assert "test_vit.test_vit" in done.stdout
    assert "round 1, " in done.stderr
    rows = pq.read_table(root / "out" / "probes.parquet").to_pylist()
    assert {row["n_train"] for row in rows} == {120}  # all of them, whatever the rounds saw
    assert {(row["dataset"], row["is_id"], row["id_dataset"]) for row in rows} == {("birds", False, "not known")}
    answer = json.loads((root / "out" / "best_layer.json").read_text())
    for model in answer["models"]:
        best = best_row([row for row in rows if row["curve_key"] == model["curve_key"]])
        assert (model["layer_name"], model["accuracy"]) == (best["layer_name"], best["top1"])
        assert model["flops"] > 0
        assert model["milliseconds"] > 0
    accuracies = [model["accuracy"] for model in answer["models"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert answer["sentence"] in done.stdout
    again = called(root, "--budget", "1h")
    assert again.returncode == 0
    assert "to do" not in again.stderr
    assert (
        again.stdout.split("GFLOPs and ms")[1].splitlines()[1:]
        == done.stdout.split("GFLOPs and ms")[1].splitlines()[1:]
    )


def one_class(folder):
    return write_classes(folder / "one", classes=1)


def one_image_each(folder):
    return write_classes(folder / "single", train=1, parts=("",))


def two_images_each(folder):
    return write_classes(folder / "pairs", train=2, parts=("",))


def empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


GOOD = {"--models": "test_resnet.r160_in1k"}


@pytest.mark.parametrize(
    ("make", "more", "said"),
    [
        (lambda folder: folder / "absent", {}, "absent: no such folder or archive"),
        (one_class, {}, "1 class directories with images found, at least 2 are needed"),
        (one_image_each, {}, "has a single image"),
        (two_images_each, {}, "has a single image"),
        (empty, {}, "at least 2 are needed"),
        (None, {"--models": "resnet5000"}, "no such architecture; the closest are"),
        (None, {"--models": "nonsense*"}, "no architecture with weights matches this pattern"),
        (None, {"--models": "test_resnet.mine"}, "has no weights named mine"),
        (None, {"--models": ""}, "which models?"),
        (None, {"--weights": "absent.pt"}, "absent.pt: no such file"),
        (None, {"--weights": "resnet5000=absent.pt"}, "no such file"),
        (None, {"--few-shot": "1"}, "at least 2 images of a class"),
        (None, {"--budget": "soon"}, "not a time; write 20m"),
        (None, {"--budget": "0m"}, "no time in it"),
        (None, {"--models": "absent.txt"}, "no such file of names"),
        (None, {"--resolution": "0"}, "the side of an image, px"),
        (None, {"--set": "probe.solver=nope"}, "no such probe solver ("),
        (None, {"--resolution": "7"}, "test_resnet.r160_in1k: test_resnet needs at least 32 px"),
        (None, {"--config": "absent.yaml"}, "no such config file"),
        (None, {"--set": "resources.cpus=no"}, "resources.cpus"),
        (None, {"--set": "nonsense"}, "expected key.path=value"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(root, tmp_path, monkeypatch, capsys, make, more, said):
    monkeypatch.setenv("TUNNEL_SWEEP_CACHE", str(tmp_path / "cache"))
    data = make(tmp_path) if make else root / "birds"
    asked = {"--data": data, "--out": tmp_path / "out", **GOOD, **more}
    assert best_layer.main([str(word) for pair in asked.items() for word in pair]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (tmp_path / "out" / "fragments").exists()


def test_files_that_are_called_alike_are_two_entries(tmp_path):
    files = {}
    for run in ("a", "b", "c"):
        (tmp_path / run).mkdir()
        files[run] = str(tmp_path / run / "best.pt")
        Path(files[run]).touch()
    assert _own_weights([files["a"], files["b"], files["a"]]) == {"best": files["a"], "b-best": files["b"]}
    said = [f"resnet18={files['a']}", f"resnet50={files['b']}", f"resnet18={files['c']}", files["b"]]
    assert _own_weights(said) == {
        "best": {"resnet18": files["a"], "resnet50": files["b"]},
        "c-best": {"resnet18": files["c"]},
        "b-best": files["b"],
    }


def test_the_store_of_another_sweep_is_left_alone(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TUNNEL_SWEEP_CACHE", str(tmp_path / "cache"))
    publish_plan(Store(str(tmp_path / "out")), Plan("demo", {}, ()))
    asked = ["--data", str(root / "birds"), "--models", GOOD["--models"], "--out", str(tmp_path / "out")]
    assert best_layer.main(asked) == 2
    assert "holds the sweep demo, whose table would be lost" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("45", 45), ("1.5h", 5400)])
def test_times(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "20 minutes", "1h30", "-5m", "0"])
def test_what_is_no_time(text):
    if text == "1h30":
        assert seconds(text) == 3630  # hours, then seconds, as it is written
        return
    with pytest.raises(UserError):
        seconds(text)


def test_as_many_of_the_best_go_on_as_fit():
    cheap, dear = (
        Candidate(Model(n, "w"), (0.5, 0.0), ("a",), ("a",), cost) for n, cost in (("cheap", 0.01), ("dear", 1.0))
    )
    this = Round((cheap, dear), 5.0, 100, 1000)
    assert _fitting(this, 2000) == [cheap, dear]
    assert _fitting(this, 1000) == [cheap]
    assert _fitting(this, 9.9) == []
    assert _fitting(Round((dear, cheap), 5.0, 100, 1000), 999) == []  # the best decides


def test_layers_of_one_architecture_are_joined_and_inputs_are_left_to_the_rule():
    a, b = (
        Candidate(Model("x", tag), (0.5, 0.0), layers, layers, 1.0)
        for tag, layers in (("v", ("l.1", "l.9")), ("w", ("l.2",)))
    )
    assert _patterns([a, b]) == {"x": r"l\.1|l\.9|l\.2"}
    assert _patterns([Candidate(Model("y", "w"), (0.5, 0.0), ("l.1 (input)",), ("l.1 (input)",), 1.0)]) == {}
