"""Expansion, keys and plans."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.base.seeds import derive_seed
from sweep.config.recipe import PENALTIES
from sweep.config.schema import Config
from sweep.study.check import read_config
from sweep.study.columns import derived, variables
from sweep.study.confounding import correlations, varied_roles
from sweep.study.costs import cost, curve_sizes, embedded_bytes, layer_widths
from sweep.study.costs_said import memory_lines
from sweep.study.grid import Sizes, expand
from sweep.study.keys import Keyring, content_key
from sweep.study.plan import render_plan
from sweep.study.resolve import sizes

ROOT = Path(__file__).resolve().parents[3]


def make(**changes):
    base = {
        "name": "t",
        "grid": [{"architecture": ["vggm11", "vggm17"], "id_dataset": "fractals", "seed": [0, 1]}],
        "probe_datasets": ["glyphs"],
    }
    return Config.model_validate(base | changes)


def grid_of(config):
    return expand(config, lambda name: Sizes(10, 100, 50))


def keys(**changes):
    base = {
        "data": {"fractals": "f", "glyphs": "g"},
        "split_seed": 0,
        "holdout": 0.1,
        "rank_threshold": 1e-3,
    }
    return Keyring(**(base | changes))


def test_blocks_are_products_and_their_union_merges_duplicates():
    block = {"architecture": "vggm11", "id_dataset": "fractals", "seed": [0, 7]}
    grid = grid_of(
        make(grid=[{**block, "architecture": ["vggm11", "vggm17"]}, {**block, "probe_datasets": ["digits"]}])
    )
    assert len(grid.cells) == 4
    assert grid.merged == 2
    datasets = [tuple(curve.dataset for curve in cell.curves) for cell in grid.cells]
    assert datasets == [("fractals", "glyphs", "digits")] * 2 + [("fractals", "glyphs")] * 2
    assert grid.cells[0].blocks == (0, 1)
    assert [curve.is_id for curve in grid.cells[0].curves] == [True, False, False]


def test_rules_and_grid_values_override_the_recipe():
    config = make(
        grid=[{"architecture": ["vggm11", "vggm17"], "id_dataset": "fractals", "lr": [1e-4, 1e-5]}],
        rules=[
            {
                "when": {"architecture": "vggm17"},
                "recipe": {"epochs": 30, "lr": 1.0},
                "probe": {"solver": "adamw", "lr": 0.5},
            },
            {"when": {"architecture": "vggm17", "seed": 3}, "recipe": {"epochs": 40}},
        ],
    )
    found = {(c.backbone.architecture, c.backbone.recipe.lr): c for c in grid_of(config).cells}
    assert set(found) == {("vggm11", 1e-4), ("vggm11", 1e-5), ("vggm17", 1e-4), ("vggm17", 1e-5)}
    assert found["vggm17", 1e-4].backbone.recipe.epochs == 30
    assert found["vggm11", 1e-4].backbone.recipe.epochs == 100
    assert found["vggm17", 1e-4].curves[0].probe.lr == 0.5


def test_keys_are_chained_and_hold_what_matters_and_nothing_else():
    config = make()
    cell, ring = grid_of(config).cells[0], keys()
    id_curve, ood_curve = cell.curves
    weights = ring.weights(cell.backbone)
    other_probe = grid_of(make(probe={"solver": "adamw", "lr": 0.5})).cells[0]
    assert ring.weights(other_probe.backbone) == weights
    assert ring.embedding(other_probe.curves[1]) == ring.embedding(ood_curve)
    assert ring.curve(other_probe.curves[1]) != ring.curve(ood_curve)
    other_recipe = grid_of(make(recipe={"lr": 0.5})).cells[0]
    assert ring.weights(other_recipe.backbone) != weights
    assert ring.embedding(other_recipe.curves[1]) != ring.embedding(ood_curve)
    other_glyphs = keys(data={"fractals": "f", "glyphs": "G"})
    assert other_glyphs.weights(cell.backbone) == weights
    assert other_glyphs.curve(id_curve) == ring.curve(id_curve)
    assert other_glyphs.curve(ood_curve) != ring.curve(ood_curve)
    assert keys(rank_threshold=0.1).embedding(ood_curve) == ring.embedding(ood_curve)
    assert keys(rank_threshold=0.1).curve(ood_curve) != ring.curve(ood_curve)
    workers = grid_of(make(resources={"cpus": 2, "max_in_flight": 7}, cache_dir="/elsewhere")).cells[0]
    assert ring.curve(workers.curves[0]) == ring.curve(id_curve)


def test_keys_differ_between_all_cells_and_stay_the_same_for_ever():
    grid = grid_of(make())
    assert len({keys().curve(curve) for curve in grid.curves}) == len(grid.curves) == 8
    assert content_key("curve", a=1) == content_key("curve", a=1) != content_key("embedding", a=1)
    assert 0 <= derive_seed("x") < 2**63


def test_heldout_share_matters_to_weights_only_if_it_is_used():
    everything = make(recipe={"train_on": "all", "checkpoint_on": "test"})
    backbone = grid_of(everything).cells[0].backbone
    assert keys(holdout=0.2).weights(backbone) == keys().weights(backbone)
    backbone = grid_of(make()).cells[0].backbone
    assert keys(holdout=0.2).weights(backbone) != keys().weights(backbone)


def test_columns_of_a_backbone():
    config = make(grid=[{"architecture": "resnet50", "id_dataset": "imagenet1k", "pretraining": "tv2_in1k"}])
    downloaded = variables(grid_of(config).cells[0].backbone)
    assert downloaded["augmentation"] is downloaded["lr"] is None
    backbone = grid_of(make(grid=[{"architecture": "vggm11", "id_dataset": "fractals"}])).cells[0].backbone
    facts = derived(backbone, 1000)
    assert (facts["family"], facts["stem"], facts["depth"], facts["spatial_reduction"]) == ("CNN", 3, 11, 0.5)
    assert facts["overparametrization"] == facts["parameters"] / 1000


def test_paper_has_72_backbones_648_curves_10584_probes():
    config = read_config(ROOT / "configs" / "paper.yaml")
    grid = expand(config, lambda name: sizes(config, name))
    total = cost(config, grid.cells)
    assert (total.backbones, total.curves, total.probes) == (72, 648, 10_584)
    scratch = cost(config, [cell for cell in grid.cells if cell.backbone.recipe])
    assert (scratch.backbones, scratch.curves, scratch.probes) == (64, 576, 8_604)
    assert all(len(cell.curves) == 9 for cell in grid.cells)
    assert grid.merged == 0


def test_paper_recipes_are_those_of_the_protocol():
    config = read_config(ROOT / "configs" / "paper.yaml")
    grid = expand(config, lambda name: sizes(config, name))

    def one(**wanted):
        found = [c for c in grid.cells if all(getattr(c.backbone, k) == v for k, v in wanted.items())]
        return found[0].backbone.recipe, found[0].curves[0].probe

    recipe, probe = one(architecture="vggm11", id_dataset="imagenet100", augmentation="on")
    assert (recipe.lr, recipe.weight_decay, recipe.batch_size, recipe.epochs) == (6e-3, 5e-2, 512, 100)
    assert (probe.lr, probe.weight_decay, probe.batch_size, probe.epochs) == (1e-3, 0, 128, 30)
    assert (recipe.train_on, recipe.checkpoint_on) == ("all", "test")
    assert one(architecture="vggm11", id_dataset="cifar10", augmentation="on")[0].epochs == 70
    assert one(architecture="vggm17", id_dataset="cifar100", augmentation="on")[0].epochs == 100
    assert one(architecture="vggm11", id_classes=50)[0].lr == 8e-3
    assert one(architecture="resnet18", augmentation="on")[0].epochs == 80
    recipe, probe = one(architecture="vit_tiny_plus_patch8", augmentation="on")
    assert (recipe.lr, recipe.batch_size, recipe.epochs) == (8e-4, 96, 60)
    assert (probe.lr, probe.weight_decay, probe.batch_size) == (1e-2, 1e-4, 512)
    assert one(pretraining="tv2_in1k")[1].lr == 5e-4
    assert one(pretraining="swav")[1].lr == one(architecture="convnext_base")[1].lr == 3e-5


@pytest.mark.parametrize("name", ["paper", "demo"])
def test_plan_command(name, tmp_path):
    command = [sys.executable, "sweep/run.py", "--config", f"configs/{name}.yaml", "--plan", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"paper": "72 backbones, 648 curves, 10,584 probes", "demo": "already done: 0 curves"}[name] in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_plan_says_the_largest_curve():
    config = read_config(ROOT / "configs" / "paper.yaml", need_data=False)
    grid = expand(config, lambda name: sizes(config, name))
    curves = [c for c in grid.curves if (c.backbone.architecture, c.backbone.resolution) == ("resnet34", 224)]
    widths = layer_widths(curves[0].backbone)
    assert max(embedded_bytes(widths, curve_sizes(config, c)) for c in curves) == 2 * sum(widths) * 131_689
    said = memory_lines(config, curves)[0]
    assert re.fullmatch(r"embeddings of a curve: at most resnet34 imagenet100\S* 224px .* imagenet100 \(8 GB\)", said)


def test_plan_warns_of_confounded_variables():
    confounded = {"architecture": "vggm11", "id_dataset": "fractals"}
    config = make(
        grid=[
            {**confounded, "id_classes": 2, "resolution": 32, "augmentation": ["off", "on"]},
            {**confounded, "id_classes": 5, "resolution": 64, "augmentation": ["off", "on"]},
        ]
    )
    grid = grid_of(config)
    found = {(a, b): rho for a, b, rho in correlations(config, grid)}
    assert found["id_classes", "resolution"] == pytest.approx(1)
    assert found["id_classes", "augmentation"] == pytest.approx(0)
    text = render_plan(config, grid, done=None, why_unknown="no data", out="x")
    assert "warning: this grid confounds these pairs" in text
    assert "id_classes ~ resolution 1.00" in text
    assert "to tell id_classes from resolution, add: id_classes 2 with resolution 64, id_classes 5 with" in text
    assert "not known (no data)" in text


def test_plan_says_which_cells_to_drop():
    """Four crossed cells, two on the diagonal: ranks 0 0 1 1 2 3 and 0 1 0 1 2 3 have ρ 0.85, the first five 0.64."""
    plain = {"architecture": "vggm11", "id_dataset": "fractals"}
    crossed = {**plain, "id_classes": [2, 3], "resolution": [32, 64]}
    diagonal = [{**plain, "id_classes": 5, "resolution": 96}, {**plain, "id_classes": 6, "resolution": 128}]
    config = make(grid=[crossed, *diagonal])
    text = render_plan(config, grid_of(config), done=None, why_unknown="no data", out="x")
    assert "id_classes ~ resolution 0.85" in text
    assert "or drop: id_classes 5 with resolution 96 (1 of 6 backbones), which leaves |ρ| 0.64" in " ".join(
        text.split()
    )
    alone = make(grid=diagonal)
    assert "drop:" not in render_plan(alone, grid_of(alone), done=None, why_unknown="no data", out="x")


def test_roles():
    config = make(roles={"architecture": "nuisance"})
    assert varied_roles(config, grid_of(config)) == {"architecture": "nuisance", "seed": "replicate"}


def test_lists_of_the_probe_section_are_crossed_inside_a_curve():
    adamw = {"solver": "adamw"}
    alone = grid_of(make(probe=adamw)).cells[0].curves[0]
    lists = {"lr": [1e-3, 1e-2], "weight_decay": [0, 0.1], "seeds": 3}
    curve = grid_of(make(probe=adamw | lists)).cells[0].curves[0]
    assert [(probe.lr, probe.weight_decay) for probe in curve.probes] == [
        (a, b) for a in (1e-3, 1e-2) for b in (0, 0.1)
    ]
    assert curve.probes_per_layer == 12
    assert alone.probes_per_layer == 1
    ring = keys()
    assert ring.curve(curve) != ring.curve(alone)
    assert ring.embedding(curve) == ring.embedding(alone)
    assert ring.curve(grid_of(make(probe=adamw | {"lr": [1e-3]})).cells[0].curves[0]) == ring.curve(alone)


def test_precision_is_part_of_keys_and_float32_of_none():
    curve = grid_of(make(probe={"solver": "adamw"})).cells[0].curves[0]
    found = {keys(extraction=precision).embedding(curve) for precision in ("float32", "tf32", "bfloat16", "float16")}
    assert len(found) == 4
    assert keys(extraction="bfloat16").embedding(curve) == "e32e12d20a877e1ead92"  # as of `autocast: bfloat16`
    assert keys(extraction="bfloat16").weights(curve.backbone) == keys().weights(curve.backbone)
    other = grid_of(make(recipe={"precision": "bfloat16"})).cells[0].backbone
    assert keys().weights(other) != keys().weights(curve.backbone)
    assert (variables(other)["precision"], variables(curve.backbone)["precision"]) == ("bfloat16", "float32")
    assert keys().embedding(curve) == "02a614cd7d109e8a60e4"
    assert keys().curve(curve) == "e684fc42a333821fd649"  # as in version 0.1.0


def test_the_converged_solver_is_the_default_one_probe_that_chooses_and_keys_of_others_stay():
    curve = grid_of(make()).cells[0].curves[0]
    (probe,) = curve.probes
    assert (probe.solver, probe.penalties) == ("converged", PENALTIES["converged"])
    assert (probe.standardize, probe.label_smoothing) == ("feature", 0)
    ring = keys()
    key = ring.curve(curve)
    assert key == ring.curve(grid_of(make(probe={"weight_decay": [*reversed(probe.penalties)]})).cells[0].curves[0])
    for other in ({"weight_decay": 1e-3}, {"standardize": "none"}, {"label_smoothing": 0.1}, {"solver": "lbfgs"}):
        assert ring.curve(grid_of(make(probe=other)).cells[0].curves[0]) != key
    lbfgs = grid_of(make(probe={"solver": "lbfgs", "weight_decay": 1e-3})).cells[0].curves[0]
    assert ring.curve(lbfgs) == "da53efaf4f51ce163d46"


def test_solvers_without_a_rate_have_penalties_of_their_own():
    for solver in ("lbfgs", "ridge"):
        curve = grid_of(make(probe={"solver": solver})).cells[0].curves[0]
        assert tuple(probe.weight_decay for probe in curve.probes) == PENALTIES[solver]
    assert [
        p.weight_decay for p in grid_of(make(probe={"solver": "ridge", "weight_decay": 2})).cells[0].curves[0].probes
    ] == [2]
