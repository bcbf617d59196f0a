"""Probes that are fitted on the ID dataset and tested on shifted sets of its classes."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis import load
from analysis.tables import database, stored
from analysis.tables.sweep import read_sweep
from sweep.base.errors import UserError
from sweep.cell.cell import library_of, run_cell
from sweep.config import ConfigError, Shifted
from sweep.data import dataset_options
from sweep.data.corrupt import KINDS, Corrupted
from sweep.data.open import open_dataset
from sweep.driver import sweep as driver
from sweep.study import costs, sizes
from sweep.study.check import read_config
from tests.labelled import labelled

CONFIG = """
name: t
data_root: {root}
cache_dir: {root}/cache
grid:
  - {{architecture: vggm11, id_dataset: fractals, width: 0.0625, id_classes: 3}}
probe_datasets: [glyphs{more}]
datasets:
  fractals: {{classes: 4, train_per_class: 20, test_per_class: 12}}
  glyphs: {{classes: 3, train_per_class: 8, test_per_class: 4}}
  {folder}
recipe: {{epochs: 2, warmup_epochs: 1, batch_size: 16, train_on: all, checkpoint_on: last}}
holdout: 0.2
"""
MORE = """,
  {name: copy, labels_of: id, fit: id},
  {name: noisy, labels_of: id, fit: id, corruption: gaussian_noise, severity: 5},
  {name: jpeg, labels_of: id, fit: id, corruption: jpeg, severity: 1}"""


def written(root, more=MORE, folder="copy: {path: copy}"):
    (root / "c.yaml").write_text(CONFIG.format(root=root, more=more, folder=folder))
    return root / "c.yaml"


def copied(config, root):
    """The ID test images of all classes as a tree of files, every class behind its name."""
    dataset = open_dataset("fractals", dataset_options(config, "fractals"), cache_dir=root / "cache")
    for index, image in dataset.test.read_many(range(len(dataset.test))):
        place = root / "copy" / dataset.class_names[dataset.test.labels[index]]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{index}.png")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("shifted")
    config = read_config(written(root))
    copied(config, root)
    sweep = driver.prepare(config, str(root / "out"))
    (cell,) = sweep.cells
    result = run_cell(driver.task_of(sweep, cell, gpu=False))
    assert (len(result.done), result.failed) == (5, ())
    driver.table.publish_plan(sweep.store, driver.plan_of(sweep))
    driver.export(sweep, done=set(result.done))
    return root, sweep


def test_a_copy_of_the_id_test_images_is_scored_as_these(swept):
    rows = labelled(swept[1]).to_pandas()
    layers = {name: part.set_index("layer")["top1"] for name, part in rows.groupby("dataset")}
    assert dict(rows.groupby("dataset")["fit_on"].first()) == {
        "copy": "id", "fractals": "own", "glyphs": "own", "jpeg": "id", "noisy": "id",
    }  # fmt: skip
    assert (layers["copy"] == layers["fractals"]).all()  # the same probes, the same images in another order
    assert (layers["noisy"] <= layers["jpeg"] + 0.1).mean() > 0.8
    assert layers["noisy"].mean() < layers["fractals"].mean()
    assert set(rows[rows["fit_on"] == "id"]["classes"]) == {3}
    assert set(rows[rows["fit_on"] == "id"]["n_test"]) == {36}  # of the fourth class none
    assert not rows[rows["fit_on"] == "id"]["is_id"].any()


def test_older_cells_keep_their_keys_and_the_plan_counts(swept, tmp_path):
    root, sweep = swept
    (root / "plain").mkdir()
    plain = driver.prepare(read_config(written(root / "plain", more="", folder="")), str(tmp_path))
    old = {planned.curve.dataset: planned.key for planned in plain.planned}
    new = {planned.curve.dataset: planned.key for planned in sweep.planned}
    assert {name: new[name] for name in old} == old
    assert len(set(new.values())) == 5
    counts = {c.curve.dataset: costs.curve_sizes(sweep.config, c.curve) for c in sweep.planned}
    assert counts["copy"] == (3, 60, 48)  # before anyone has looked which classes it has
    assert counts["noisy"] == counts["fractals"] == (3, 60, 36)
    assert sizes(sweep.config, "copy").test < 48


def test_the_analysis_keeps_both_kinds_apart(swept):
    out = str(swept[0] / "out")
    experiments = read_sweep(out, accuracy="heldout")
    assert list(experiments.frame["dataset"]) == ["glyphs"]
    assert not len(experiments.incomplete)
    assert any("3 curves were fitted on ID images" in note for note in experiments.notes)
    connection = database.connect(stored.find(out))
    assert connection.execute("SELECT dataset FROM experiments").fetchall() == [("glyphs",)]
    shifted = connection.execute("SELECT dataset FROM curves WHERE fit_on = 'id' ORDER BY dataset").fetchall()
    assert shifted == [("copy",), ("jpeg",), ("noisy",)]
    assert set(load.experiments(out)["dataset"]) == {"glyphs"}
    assert "fit_on" in pq.read_schema(f"{out}/probes.parquet").names


def test_corruptions_are_graded_seeded_and_small_pieces_are_the_whole():
    assert set(KINDS) == set(Shifted.model_fields["corruption"].annotation.__args__[0].__args__)
    rng = np.random.default_rng(0)
    ramp_HW1 = np.linspace(60, 180, 32 * 32).reshape(32, 32, 1)
    images_NHWC = np.clip(ramp_HW1 + rng.normal(0, 20, (4, 32, 32, 3)), 0, 255).astype(np.uint8)
    for kind in KINDS:
        off = []
        for severity in (1, 3, 5):
            made = Corrupted(images_NHWC, kind, severity, seed=7)
            whole = made[0:4]
            assert (whole.dtype, whole.shape, len(made)) == (np.uint8, images_NHWC.shape, 4)
            assert np.array_equal(whole[2:], made[2:9])
            off.append(np.abs(whole.astype(float) - images_NHWC).mean())
        assert 0 < off[0] < off[1] < off[2], kind
    noisy = Corrupted(np.full((1, 64, 64, 3), 128, np.uint8), "gaussian_noise", 1, seed=0)[0:1]
    assert noisy.std() == pytest.approx(255 * 0.08, rel=0.05)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (", {name: noisy, labels_of: id, fit: own}", "shifted.noisy.fit"),
        (", {name: noisy, labels_of: id, fit: id, corruption: fog}", "shifted.noisy.corruption"),
        (", {name: noisy, labels_of: id, fit: id, corruption: jpeg, severity: 6}", "shifted.noisy.severity"),
        (", {name: noisy, labels_of: id, fit: id}", "no such dataset"),
        (", {name: digits, labels_of: id, fit: id, corruption: jpeg}", "corrupted images need another"),
    ],
)
def test_mistakes_are_named(tmp_path, more, said):
    with pytest.raises(ConfigError, match=said):
        read_config(written(tmp_path, more=more, folder=""))


def test_classes_are_matched_by_name(swept):
    sweep = swept[1]
    library = library_of(driver.task_of(sweep, sweep.cells[0], gpu=False))
    view = sweep.cells[0].backbone.view
    with pytest.raises(UserError, match="has none of the classes of fractals"):
        library.shifted(
            "glyphs", Shifted(labels_of="id", fit="id"), view, own="fractals", classes=3, images_per_class=None
        )
