"""Layers of a trained backbone set to other weights, probed like any backbone; without Ray."""

import pytest

from sweep import driver
from sweep.cell import run_cell
from sweep.study.check import read_config
from sweep.study.interventions import span_of
from tests.labelled import labelled

TINY = """
name: tiny
grid: [{architecture: vggm11, id_dataset: glyphs, width: 0.0625}]
datasets: {glyphs: {classes: 4, train_per_class: 16, test_per_class: 8}}
recipe: {epochs: 2, warmup_epochs: 1, lr: 4e-3, batch_size: 16}
probe: {folds: 1, at_epochs: [0, 1]}
holdout: 0.25
roles: {intervention: nuisance}
intervene:
  - {layers: all, to: initial}
  - {layers: 3..8, to: {seed: 0}}
  - {layers: all, to: {epoch: 1}}
  - {layers: 9.., to: {seed: 1}}
  - {layers: ..2, to: random}
"""
ALL, ITSELF, EPOCH, OTHER, RANDOM = (
    "all to initial", "layers 3..8 to seed=0", "all to epoch=1", "layers 9.. to seed=1", "layers 1..2 to random",
)  # fmt: skip
MEASURED = ("layer", "top1", "heldout_top1", "test_loss", "correct", "within_variance")


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """Rows of each curve, by epoch and intervention."""
    folder = tmp_path_factory.mktemp("intervene")
    file = folder / "c.yaml"
    file.write_text(TINY + f"cache_dir: {folder / 'cache'}\n")
    sweep = driver.prepare(read_config(file), str(folder / "out"))
    (cell,) = sweep.cells
    result = run_cell(driver.task_of(sweep, cell, gpu=False))
    assert result.failed == ()
    found = {}
    for row in labelled(sweep).to_pylist():
        found.setdefault((row["epoch"], row["intervention"]), []).append(row)
    return found


def measured(rows):
    return [{name: row[name] for name in MEASURED} for row in rows]


def test_each_is_a_backbone_of_its_own_with_keys_of_its_own(curves):
    assert curves.keys() == {(None, None), (0, None), (1, None)} | {
        (None, said) for said in (ALL, ITSELF, EPOCH, OTHER, RANDOM)
    }
    for column in ("curve_key", "embedding_key", "weights_key", "backbone_key"):
        assert len({rows[0][column] for rows in curves.values()}) == len(curves)
    assert curves[None, None][0]["head_refit_top1"] is None


def test_reset_to_initial_of_all_layers_is_the_untrained_network(curves):
    assert measured(curves[None, ALL]) == measured(curves[0, None])
    assert curves[None, ALL][0]["backbone_test_top1"] == curves[0, None][0]["backbone_test_top1"]


def test_layers_of_itself_change_nothing_and_those_of_an_epoch_are_that_epoch(curves):
    assert measured(curves[None, ITSELF]) == measured(curves[None, None])
    assert measured(curves[None, EPOCH]) == measured(curves[1, None])
    for said, twin in ((ITSELF, (None, None)), (EPOCH, (1, None))):
        for column in ("backbone_test_top1", "backbone_heldout_top1"):
            assert curves[None, said][0][column] == curves[twin][0][column]


def test_only_what_comes_after_the_layers_changes(curves):
    whole, other = measured(curves[None, None]), measured(curves[None, OTHER])
    assert other[:8] == whole[:8]
    assert all(a != b for a, b in zip(other[8:], whole[8:], strict=True))
    assert all(a != b for a, b in zip(measured(curves[None, RANDOM]), whole, strict=True))
    assert all(0 <= rows[0]["head_refit_top1"] <= 1 for (_, said), rows in curves.items() if said)


def test_keys_without_interventions_are_those_of_ever(tmp_path):
    (tmp_path / "c.yaml").write_text(TINY)
    (tmp_path / "d.yaml").write_text(TINY.partition("intervene:")[0])
    with_, without = (
        {each.key: each for each in driver.prepare(read_config(tmp_path / name), str(tmp_path)).planned}
        for name in ("c.yaml", "d.yaml")
    )
    assert without.keys() < with_.keys()
    assert len(with_) == len(without) + 5


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (7, (7, 7, False)),
        ("9..10", (9, 10, False)),
        ("9..", (9, None, False)),
        ("..4", (1, 4, False)),
        ("all", (1, None, True)),
        ("0..2", None),
        ("last", None),
    ],
)
def test_words_for_layers(said, meant):
    assert span_of(said) == meant
