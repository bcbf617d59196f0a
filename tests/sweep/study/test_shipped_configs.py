"""The configs that come along: each can be planned offline in every size, says its price, and names known weights."""

import functools
import json
import time
from pathlib import Path

import pytest
import timm

from sweep import commands
from sweep.base.errors import UserError
from sweep.cell.cell import run_cell
from sweep.driver import sweep as driver
from sweep.models import facts, study_weights, trained_on
from sweep.models.augmentations import LEVELS
from sweep.models.catalogue_more import build, text
from sweep.study import expand, sizes
from sweep.study.check import read_config
from sweep.study.subset import subset
from tests.labelled import labelled

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
STUDIES = {
    "paper": (8, 72, 72),
    "pretrained": (8, 24, 24),
    "pretrained-200": (10, 101, 254),
    "ssl": (8, 42, 42),
    "alignment": (7, 19, 19),
    "augmentation": (6, 36, 216),
    "class-diversity": (4, 100, 292),
    "temperature": (6, 36, 216),
    "balanced": (8, 48, 288),
    "smoke": (4, 4, 4),
}


def cells(config):
    return {cell.backbone for cell in expand(config, functools.cache(lambda name: sizes(config, name))).cells}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_plan_of_every_config(file, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNNEL_SWEEP_CACHE", str(tmp_path))  # as on a machine that has fetched nothing
    started = time.process_time()
    config = read_config(file)
    text = commands.plan(config, str(tmp_path / "out"))
    assert "already done" in text
    assert time.process_time() - started < 20
    if file.stem not in STUDIES:
        return
    nested = [cells(subset(config, size=size)) for size in ("10", "100", "all")]
    assert tuple(map(len, nested)) == STUDIES[file.stem]
    assert nested[0] <= nested[1] <= nested[2] == cells(config)
    assert all(block.block for block in config.grid)
    assert all(f"\n{block.block} " in text for block in config.grid)
    head = file.read_text().partition("\nname:")[0]
    assert head.startswith("#")
    for part in ("python sweep/run.py --config", "xpect", "scratch" if file.stem != "smoke" else "MB"):
        assert part in head, part


def test_blocks_by_name():
    paper = ROOT / "configs" / "paper.yaml"
    config = read_config(paper, only=["cifar10", "subsets"])
    assert (config.name, len(cells(config))) == ("paper-cifar10-subsets", 16)
    assert read_config(paper, size="all").name == "paper"
    assert len(cells(read_config(paper, only=["cifar100"], size="10"))) == 4
    with pytest.raises(UserError, match=r"--only cifar: paper has no such block; cifar10"):
        read_config(paper, only=["cifar"])
    with pytest.raises(UserError, match=r"--size 10: no block of weights of paper belongs to that size; they have 100"):
        read_config(paper, only=["weights"], size="10")


def test_the_catalogue_covers_every_tag_of_the_configs():
    files = {(known.architecture, known.name) for known in study_weights() if known.file}
    found = set()
    for name in STUDIES:
        for backbone in cells(read_config(ROOT / "configs" / f"{name}.yaml")):
            if backbone.weights is None or (backbone.architecture, backbone.pretraining) in files:
                continue
            known = trained_on(backbone.architecture, backbone.weights.name)
            assert known is not None, backbone
            assert known.corpus, backbone
            assert known.objective, backbone
            assert known.augmentation in LEVELS, backbone
            assert known.images or known.corpus == "webli", backbone  # nobody says which part of WebLI's 10 G
            found.add((backbone.architecture, backbone.weights.name))
    assert len(found) > 250
    stored = {*facts._stored()["described"], *facts._more()}
    assert {architecture for architecture, _ in found} <= stored  # so that plans need no torch


def test_the_smoke_study_runs_to_its_end(tmp_path, monkeypatch):
    """A cell of each block, without Ray, which the tests of the driver have."""
    monkeypatch.setenv("TUNNEL_SWEEP_CACHE", str(tmp_path / "cache"))
    sweep = driver.prepare(read_config(ROOT / "configs" / "smoke.yaml"), str(tmp_path / "out"))
    results = [run_cell(driver.task_of(sweep, cell, gpu=False)) for cell in (sweep.cells[1], sweep.cells[3])]
    assert [(len(result.done), result.failed) for result in results] == [(8, ())] * 2
    rows = labelled(sweep).to_pylist()
    assert len({row["curve_key"] for row in rows}) == 16
    assert {(row["mixup"], row["cutmix"], row["temperature"]) for row in rows} == {(0, 0, 1), (0.2, 1, 2)}
    assert {row["problem"] for row in rows} == {None}
    assert {row["epoch"] for row in rows} == {None, 0}


def test_the_larger_catalogue_is_what_the_installed_timm_gives():
    written = json.loads(facts.MORE.read_text(encoding="utf-8"))
    assert text(written) == facts.MORE.read_text(encoding="utf-8")
    if written["timm_version"] != timm.__version__:
        pytest.skip(f"it was made with timm {written['timm_version']}, {timm.__version__} is installed")
    names = ["hiera_tiny_224", "regnetx_004", "vit_small_patch16_dinov3"]
    assert json.loads(text(build(names)))["described"] == {name: written["described"][name] for name in names}
