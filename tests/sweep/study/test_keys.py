"""What is stored under a key is a function of the key, whatever a config calls it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweep import driver, table
from sweep.cell import run_cell
from sweep.config import Probe
from sweep.study import read_config
from sweep.study.keys import _points, content_key
from sweep.table.schema import LABELS, RUN_COLUMNS
from tests.labelled import labelled
from tests.sweep.study.test_grid import grid_of, keys, make

ROOT = Path(__file__).resolve().parents[3]
ONE = """
name: one
grid: [{architecture: vggm11, id_dataset: fractals, width: 0.0625, augmentation: on}]
probe_datasets: [glyphs]
recipe: {epochs: 1, batch_size: 8, warmup_epochs: 0}
probe: {solver: adamw, epochs: 1}
datasets:
  fractals: {classes: 3, train_per_class: 8, test_per_class: 2}
  glyphs: {classes: 3, train_per_class: 8, test_per_class: 2}
"""
# the same images under other names: ID and OOD dataset, and a backbone that differs in what OOD curves do not see
OTHER = (
    ONE.replace("name: one", "name: other")
    .replace("id_dataset: fractals", "id_dataset: mine")
    .replace("probe_datasets: [glyphs]", "probe_datasets: [letters]")
    .replace("  fractals: {", "  mine: {generator: fractals, ")
    .replace("  glyphs: {", "  letters: {generator: glyphs, ")
)


def run(text, tmp_path, out):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    sweep = driver.prepare(read_config(file, [f"cache_dir={tmp_path / 'cache'}"]), str(tmp_path / out))
    for cell in driver.missing_cells(sweep, table.listing(sweep.store).done):
        result = run_cell(driver.task_of(sweep, cell, gpu=False))
        assert not result.failed
    return sweep


def stored(sweep):
    return {key: table.read_fragments(sweep.store, [key]).drop_columns(list(RUN_COLUMNS)) for key in sweep.curves}


def test_every_stored_column_is_a_function_of_the_key(tmp_path):
    one, other = (run(text, tmp_path, out) for text, out in ((ONE, "a"), (OTHER, "b")))
    assert list(one.curves) == list(other.curves)
    for key, rows in stored(one).items():
        assert not set(rows.schema.names) & set(LABELS)
        assert rows.equals(stored(other)[key])


def test_two_configs_on_one_store_share_fragments_and_keep_their_names(tmp_path):
    one = run(ONE, tmp_path, "both")
    before = stored(one)
    other = run(OTHER, tmp_path, "both")
    assert stored(other) == before
    columns = ("dataset", "id_dataset")
    named = [labelled(sweep)[name].unique().to_pylist() for sweep in (one, other) for name in columns]
    assert named == [["fractals", "glyphs"], ["fractals"], ["mine", "letters"], ["mine"]]


def test_backbones_that_share_a_curve_have_it_computed_once_and_shown_twice(tmp_path):
    """Downloaded weights: OOD embeddings do not know how many ID images a probe is fitted on."""
    ring = keys()
    block = {"architecture": "resnet18", "pretraining": "a1_in1k", "id_dataset": "fractals"}
    grid = grid_of(make(grid=[block | {"images_per_class": [5, 20]}], probe_datasets=["glyphs"]))
    planned = [planned for cell in ring.cells(grid) for planned in cell.curves]
    assert [(p.curve.backbone.images_per_class, p.curve.dataset) for p in planned] == [
        (5, "fractals"),
        (5, "glyphs"),
        (20, "fractals"),
        (20, "glyphs"),
    ]
    assert planned[1].key == planned[3].key
    assert len({p.key for p in planned}) == 3
    assert planned[1].weights == planned[0].weights == planned[2].weights


@pytest.mark.parametrize("solver", ["ridge", "lbfgs"])
def test_what_an_exact_solver_does_not_read_is_in_no_key(solver):
    def curve_keys(**more):
        probe = {"solver": solver, "weight_decay": 1e-2} | more.pop("probe", {})
        return [p.key for cell in keys().cells(grid_of(make(probe=probe, **more))) for p in cell.curves]

    assert curve_keys(probe={"epochs": 7, "lr": 0.5, "batch_size": 4}) == curve_keys()
    assert curve_keys(probe={"weight_decay": 1e-3}) != curve_keys()


def test_choices_of_a_probe_that_are_at_their_defaults_are_in_no_key():
    def curve_keys(**probe):
        grid = grid_of(make(probe={"solver": "adamw"} | probe))
        return {p.key for cell in keys().cells(grid) for p in cell.curves}

    found = [curve_keys(), curve_keys(epochs="auto"), curve_keys(check=0.05), curve_keys(epochs=31)]
    assert curve_keys(epochs=30, check=0.0) == found[0]
    assert sum(map(len, found)) == len(set.union(*found))
    assert Probe().identity == {
        "solver": "adamw",
        "epochs": 30,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "batch_size": 128,
        "label_smoothing": 0.1,
        "standardize": "none",
    }


def test_embeddings_of_initial_weights_alone_have_a_new_key():
    cells = keys().cells(grid_of(make(probe={"solver": "adamw", "at_epochs": [0, 1]})))
    found = {planned.curve.backbone.epoch: planned for planned in cells[0].curves}
    for epoch, part in ((0, {"stored": 2}), (1, {}), (None, {})):
        planned = found[epoch]
        images = {"data": keys().data[planned.curve.dataset]}
        images = keys().selection(planned.curve.backbone) if planned.curve.is_id else images
        points = _points(planned.curve.backbone)
        own = content_key("embedding", weights=planned.weights, images=images, resolution=32, **points, **part)
        assert planned.embedding == own


def test_a_recipe_key_is_declared_in_one_place(tmp_path):
    """A line in config.Recipe makes it a key of blocks and searches and a column; older keys stay."""
    shutil.copytree(ROOT / "sweep", tmp_path / "sweep", ignore=shutil.ignore_patterns("__pycache__"))
    schema = tmp_path / "sweep" / "config" / "recipe.py"
    before = "    data_parallel: Annotated"
    line = '    heat: Annotated[Positive, Column("softmax temperature", (1.0, 2.0), new=True)] = 1.0\n'
    schema.write_text(schema.read_text().replace(before, line + before, 1))
    asks = ONE.replace("width:", "heat: [1.0, 2.0], width:")
    (tmp_path / "c.yaml").write_text(asks)
    code = """
from sweep import driver
from sweep.config.schema import Search
from sweep.config import Probe
from sweep.study import read_config
from sweep.study.keys import _points, content_key
from sweep.table.schema import SCHEMA
config = read_config("c.yaml")
sweep = driver.prepare(config, "out")
field = SCHEMA.field("heat")
assert (str(field.type), field.metadata[b"description"]) == ("double", b"softmax temperature")
assert Search(recipe=["heat"]).recipe["heat"] == (1.0, 2.0)
print([curve.labels["heat"] for curve in driver.plan_of(sweep).curves], *sweep.curves, sep=";")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heats, *curve_keys = done.stdout.strip().split(";")
    assert heats == "[1.0, 1.0, 2.0, 2.0]"
    (tmp_path / "c.yaml").write_text(ONE)
    plain = driver.prepare(read_config(tmp_path / "c.yaml"), str(tmp_path / "out")).curves
    assert curve_keys[:2] == list(plain)
