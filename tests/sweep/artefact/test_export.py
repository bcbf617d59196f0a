"""Exported probes in a fresh process without our code: right and wrong on the test images as the table is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from sweep import driver, export_probe, table
from sweep.artefact import find
from sweep.artefact.load_probe import Probe
from sweep.cell.cell import run_cell
from sweep.data.decode import decode_image
from sweep.data.shown import evaluation_view
from sweep.data.view import View, exact_view, study_view
from sweep.study.check import read_config
from tests.class_folders import write_classes

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
name: exported
datasets: {{mine: {{path: {root}/images}}}}
probe_datasets: [mine]
cache_dir: {root}/cache
keep_probes: {keep}
weights: {{own: {{path: {{test_resnet: {root}/test_resnet.pt, test_vit: {root}/test_vit.pt}}}}}}
probe: {{epochs: 5, batch_size: 16, lr: 1e-2}}
rules:
  - {{when: {{pooling: mean}}, probe: {{solver: adamw}}}}
  - {{when: {{pooling: gem}}, probe: {{solver: adamw, standardize: feature}}}}
grid:
  - {{architecture: test_resnet, pretraining: own, resolution: 64, pooling: [default, gem]}}
  - {{architecture: test_vit, pretraining: own, resolution: 160, pooling: [mean, class], evaluation_view: exact}}
  - {{architecture: vggm11, width: 0.05, id_dataset: mine, seed: 7, epochs: 1, warmup_epochs: 0}}
"""
# as a user would: the images from their files, by nothing but what lies in the folder
FRESH = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from PIL import Image
from load_probe import Probe
probe = Probe()
with torch.inference_mode():
    images = torch.stack([probe.prepared(Image.open(file)) for file in sys.argv[2:]])
    print(json.dumps([probe.labels[int(number)] for number in probe(images).argmax(1)]))
assert "sweep" not in sys.modules
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("exported")
    write_classes(found / "images", train=10, test=5, mode="RGB")
    for name in ("test_resnet", "test_vit"):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            torch.save(timm.create_model(name, num_classes=4).state_dict(), found / f"{name}.pt")
    return found


@pytest.fixture(scope="module")
def sweep(root):
    (root / "mine.yaml").write_text(CONFIG.format(root=root, keep="null"))
    prepared = driver.prepare(read_config(root / "mine.yaml"), str(root / "out"))
    for cell in prepared.cells:
        assert run_cell(driver.task_of(prepared, cell, gpu=False)).failed == ()
    return prepared


def label(sweep, architecture, pooling):
    return next(
        planned.curve.backbone.label
        for planned in sweep.planned
        if (planned.curve.backbone.architecture, planned.curve.backbone.pooling) == (architecture, pooling)
    )


def exported(root, sweep, architecture, pooling, *more):
    to = root / f"{architecture}-{pooling}{''.join(more).replace('--', '-')}"
    asked = ["--results", str(root / "out"), "--config", str(root / "mine.yaml"), "--to", str(to), *more]
    assert export_probe.main([*asked, "--model", label(sweep, architecture, pooling)]) == 0
    return to


def said_elsewhere(folder, files):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, str(folder), *map(str, files)],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("architecture", "pooling", "layer"),
    [
        ("test_resnet", "default", None),  # 2x2, converged
        ("test_resnet", "gem", "2"),  # AdamW on standardised embeddings
        ("test_vit", "mean", None),  # AdamW
        ("test_vit", "class", "1"),  # converged
        ("vggm11", "default", "3"),  # timm has no such network
    ],
)
def test_a_fresh_process_predicts_what_the_table_says(root, sweep, architecture, pooling, layer):
    folder = exported(root, sweep, architecture, pooling, "--no-onnx", *(["--layer", layer] if layer else []))
    files = sorted((root / "images" / "test").rglob("*.png"))
    predicted = said_elsewhere(folder, files)
    right_N = np.array([said == file.parent.name for said, file in zip(predicted, files, strict=True)])
    about = json.loads((folder / "probe.json").read_text())
    rows = table.read_fragments(sweep.store, [about["about"]["curve_key"]]).to_pylist()
    best = table.best_row(rows)
    row = next(r for r in rows if r["layer"] == (int(layer) if layer else best["layer"]))
    stated_N = np.unpackbits(np.frombuffer(row["correct"], np.uint8))[: len(files)].astype(bool)
    assert (right_N == stated_N).all()
    assert right_N.sum() > 0
    assert about["pooling"] == row["layer_pooling"]


def test_what_comes_after_the_layer_is_not_in_the_files(root, sweep):
    sizes = [
        (exported(root, sweep, "test_resnet", "default", "--no-onnx", "--layer", layer) / "probe.safetensors").stat()
        for layer in ("1", "8")
    ]
    assert sizes[0].st_size < 0.2 * sizes[1].st_size
    sizes = [
        (exported(root, sweep, "vggm11", "default", "--no-onnx", "--layer", layer) / "network.pt2").stat()
        for layer in ("1", "10")
    ]
    assert sizes[0].st_size < 0.7 * sizes[1].st_size


def test_onnx_gives_the_logits_of_the_loader(root, sweep):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = exported(root, sweep, "test_resnet", "default")
    images = np.random.default_rng(0).random((5, 3, 64, 64), dtype=np.float32)
    (theirs,) = runtime.InferenceSession(str(folder / "probe.onnx")).run(None, {"images": images})
    code = FRESH.split("probe = Probe()")[0] + "print(json.dumps(Probe()(torch.load(sys.argv[2])).tolist()))"
    torch.save(torch.from_numpy(images), root / "images.pt")
    command = [sys.executable, "-I", "-c", code, str(folder), str(root / "images.pt")]
    ours = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    np.testing.assert_allclose(theirs, np.array(ours), atol=1e-3)


def test_a_kept_probe_and_one_that_is_fitted_again_are_the_same_bytes(root, sweep, capsys):
    again = exported(root, sweep, "test_vit", "class", "--no-onnx")
    before = (again / "probe.safetensors").read_bytes()
    assert "fitted again by its seed" in capsys.readouterr().out
    (root / "mine.yaml").write_text(CONFIG.format(root=root, keep="best"))
    keeping = driver.prepare(read_config(root / "mine.yaml"), str(root / "out"))
    for cell in keeping.cells:
        assert run_cell(driver.task_of(keeping, cell, gpu=False)).failed == ()
    kept = exported(root, keeping, "test_vit", "class", "--no-onnx")
    assert "its weights were kept" in capsys.readouterr().out
    assert (kept / "probe.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--model": "resnet18"}, "no finished curve of it is in"),
        ({"--layer": "99"}, "no such layer; 1 to"),
        ({"--model": "test_vit"}, "take a whole label"),
        ({"--dataset": "birds"}, "has no finished curve on it"),
        ({"--to": "."}, "holds something else"),
        ({"--config": "absent.yaml"}, "no such config file"),
        ({"--config": None}, "give --config"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(root, sweep, capsys, change, said):
    asked = {"--results": root / "out", "--config": root / "mine.yaml", "--to": root / "never"}
    asked |= {"--model": label(sweep, "test_resnet", "gem")} | change
    words = [str(word) for pair in asked.items() if pair[1] is not None for word in pair]
    capsys.readouterr()
    assert export_probe.main(words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (root / "never").exists()


def odd_files(folder):
    """Images of every kind of file that people have."""
    rng, tags = np.random.default_rng(0), Image.Exif()
    tags[0x0112] = 6  # the camera was held upright
    colour = Image.fromarray(rng.integers(0, 256, (50, 71, 3), dtype=np.uint8)).resize((142, 100), 3)
    under = Image.fromarray(rng.integers(0, 256, (100, 142), dtype=np.uint8))
    clear = colour.copy()
    clear.putalpha(under)
    deep_HW = rng.integers(0, 2**16, (60, 40), dtype=np.uint16)
    made = {
        "rgb.jpg": (colour, {}), "turned.jpg": (colour, {"exif": tags}), "turned.png": (clear, {"exif": tags}),
        "cmyk.jpg": (colour.convert("CMYK"), {}), "alpha.png": (clear, {}), "alpha.webp": (clear, {"lossless": True}),
        "palette.png": (colour.quantize(16), {}), "clear.png": (clear.quantize(16), {}), "clear.gif": (clear, {}),
        "grey.png": (under, {}), "grey_alpha.png": (clear.convert("LA"), {}), "bits.png": (under.convert("1"), {}),
        "deep.png": (Image.fromarray(deep_HW), {}), "deep.tiff": (Image.fromarray(deep_HW), {}),
        "whole.tiff": (Image.fromarray(deep_HW.astype(np.int32)), {}),
        "deep-clear.png": (Image.fromarray(deep_HW), {"transparency": int(deep_HW[30, 20])}),
        "unit.tiff": (Image.fromarray((deep_HW / 65535).astype(np.float32)), {}),
        "bytes.tiff": (Image.fromarray((deep_HW / 257).astype(np.float32)), {}),
    }  # fmt: skip
    for name, (image, more) in made.items():
        image.save(folder / name, **more)
    (folder / "deep.pgm").write_bytes(b"P5\n40 60\n65535\n" + deep_HW.astype(">u2").tobytes())
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "view",
    [
        study_view(32),
        exact_view(32),
        View(40, 44, "bilinear", "squash"),
        View(48, 48, "bicubic", "border", (124, 116, 104)),
        View(48, 32, "bilinear"),
    ],
    ids=str,
)
def test_the_loader_shows_every_kind_of_file_as_the_table_saw_it(tmp_path, view):
    probe = Probe.__new__(Probe)  # its pixels alone
    probe.about = {"resize": view.side, "resize_mode": view.mode, "interpolation": view.interpolation,
                   "crop": view.resolution, "fill": view.fill, "background": 128}  # fmt: skip
    for file in odd_files(tmp_path):
        seen_HWC = np.asarray(evaluation_view(decode_image(file.read_bytes(), "grey"), view))
        with Image.open(file) as image:
            shown_HWC = (probe.prepared(image).permute(1, 2, 0) * 255).round().numpy()
        np.testing.assert_array_equal(shown_HWC, seen_HWC, file.name)


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_classified(root, sweep, tmp_path):
    folder = exported(root, sweep, "test_resnet", "default", "--no-onnx")
    good = next((root / "images" / "test").rglob("*.png"))
    Image.fromarray(np.float32([[-1, 2], [0, 1]])).save(tmp_path / "floats.tiff")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    command = [sys.executable, "-I", str(folder / "load_probe.py"), *map(str, sorted(tmp_path.iterdir())), str(good)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "floats.tiff: cannot be read: floats from -1 to 2" in done.stderr
    assert "cut.png: cannot be read: " in done.stderr
    assert done.stdout.startswith(f"{good}: class")


def test_the_loader_is_of_plain_torch_and_timm(root, sweep):
    assert "sweep" not in (ROOT / "sweep" / "artefact" / "load_probe.py").read_text()
    found = find(
        str(root / "out"), label(sweep, "test_vit", "class"), layer=None, config=root / "mine.yaml", dataset=None
    )
    assert found.row["layer_name"].startswith("blocks.")
