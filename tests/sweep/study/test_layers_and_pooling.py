"""``layers``, ``pooling`` and ``norm`` of a config: cells, keys, plan, columns."""

import pytest

from sweep import driver, table
from sweep.base.errors import UserError
from sweep.cell import run_cell
from sweep.config import ConfigError
from sweep.study import layer_widths, read_config, varied_roles
from tests.labelled import labelled
from tests.sweep.study.test_grid import grid_of, keys, make

VIT = {"architecture": "vit_tiny_patch16_224", "pretraining": "augreg_in21k", "id_dataset": "fractals"}
VIT["resolution"] = 224


def embeddings(layers=None, **block):
    """Embedding keys of the ID curves of one block."""
    config = make(grid=[VIT | block], probe_datasets=[], **({} if layers is None else {"layers": layers}))
    return [p.embedding for cell in keys().cells(grid_of(config)) for p in cell.curves]


def test_what_is_the_default_anyway_has_its_key():
    (default,) = embeddings()
    assert embeddings(layers="blocks") == [default]
    assert embeddings(layers={"vit_tiny_patch16_224": "blocks"}) == [default]
    assert embeddings(layers={"resnet18": "blocks"}) == [default]
    assert embeddings(pooling="default", norm="none") == [default]
    others = [
        *embeddings(layers="modules"),
        *embeddings(layers=r"blocks\.\d+"),
        *embeddings(pooling=["mean", "class"]),
        *embeddings(norm="model"),
    ]
    assert len({default, *others}) == 6


def test_a_kind_is_not_the_pattern_of_the_same_letters():
    block = {"architecture": "resnet50", "pretraining": "a1_in1k", "resolution": 224}
    kind, pattern = embeddings(layers="blocks", **block), embeddings(layers="(blocks)|layer1", **block)
    assert kind != pattern


def test_keys_change_only_where_the_embedding_was_wrong():
    """Digests of what version 0.1 hashed, and of that with a rule where its rule was wrong."""
    from sweep.study.keys import _points

    def parts(name, layers=None):
        config = make(grid=[VIT | {"architecture": name, "pretraining": "scratch"}], probe_datasets=[])
        if layers:
            config = config.model_copy(update={"layers": {name: layers}})
        return _points(grid_of(config).cells[0].backbone)

    for right in ("vggm11", "resnet34", "vit_tiny_patch8", "resnet50", "vit_base_patch16_224", "convnextv2_base"):
        assert parts(right) == {"layers": None}
    for wrong in ("repvgg_a0", "pit_ti_224", "mixer_s32_224"):
        assert parts(wrong) == {"layers": None, "rule": 2}
    assert parts("vggm11", r"features\.(0|3)") == {"layers": r"features\.(0|3)"}
    assert parts("vit_tiny_patch16_224", r"blocks\.0") == {"layers": r"blocks\.0"}
    mixed = r"blocks\.0|patch_embed\.proj"  # the convolution's map was taken for tokens
    assert parts("vit_tiny_patch16_224", mixed) == {"layers": mixed, "rule": 2}


def test_one_training_serves_every_pooling():
    config = make(grid=[{"architecture": "vggm11", "id_dataset": "fractals", "pooling": ["default", "mean", "max"]}])
    grid = grid_of(config)
    (cell,) = grid.cells
    assert [backbone.pooling for backbone in cell.backbones] == ["default", "mean", "max"]
    assert len({keys().weights(backbone) for backbone in cell.backbones}) == 1
    assert varied_roles(config, grid) == {"pooling": "treatment"}
    widths = {backbone.pooling: layer_widths(backbone) for backbone in cell.backbones}
    assert widths["default"][-1] == 512 * 4 == 4 * widths["mean"][-1]
    assert widths["max"] == widths["mean"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("layers: '('", "neither a kind of layers nor a regular expression"),
        ("layers: {vggm5: conv}", "no such architecture"),
        ("layers: {vggm11: '['}", "neither a kind of layers nor a regular expression"),
    ],
)
def test_mistakes_are_named(tmp_path, extra, said):
    file = tmp_path / "c.yaml"
    file.write_text(f"name: x\ngrid: [{{architecture: vggm11, id_dataset: fractals}}]\n{extra}\n")
    with pytest.raises(ConfigError, match=said):
        read_config(file)
    file.write_text("name: x\ngrid: [{architecture: vggm11, id_dataset: fractals, pooling: median}]\n")
    with pytest.raises(ConfigError, match=r"pooling.*2x2"):
        read_config(file)


def test_a_pooling_that_a_network_has_not_ends_the_plan_in_words():
    config = make(grid=[{"architecture": "vggm11", "id_dataset": "fractals", "pooling": "class"}])
    (cell,) = grid_of(config).cells
    (backbone,) = cell.backbones
    with pytest.raises(UserError, match=r"vggm11 at 32 px: layer features\.0: pooling class: it has no class token"):
        layer_widths(backbone)


def test_rows_say_what_was_probed_and_how(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        """
name: pooled
grid: [{architecture: vit_tiny_patch8, id_dataset: few, width: 0.0625, pooling: [default, max]}]
layers: modules
datasets: {few: {generator: glyphs, classes: 3, train_per_class: 6, test_per_class: 3}}
recipe: {epochs: 1, warmup_epochs: 0, batch_size: 16}
probe: {solver: ridge, weight_decay: 1.0}
"""
        + f"cache_dir: {tmp_path / 'cache'}\n"
    )
    sweep = driver.prepare(read_config(file), str(tmp_path / "out"))
    (cell,) = driver.missing_cells(sweep, table.listing(sweep.store).done)
    result = run_cell(driver.task_of(sweep, cell, gpu=False))
    assert not result.failed
    rows = labelled(sweep).to_pandas()
    assert len(rows) == 2 * 12 * 8
    assert set(zip(rows["pooling"], rows["layer_pooling"], strict=True)) == {("default", "mean"), ("max", "max")}
    assert rows["weights_key"].nunique() == 1
    assert rows["backbone_key"].nunique() == 2
    assert list(rows["layer_point"].head(8)) == [
        "norm 1",
        "attention",
        "residual 1",
        "norm 2",
        "FC1",
        "activation",
        "FC2",
        "residual 2",
    ]
    assert list(rows["layer_width"].head(8)) == [12, 12, 12, 12, 48, 48, 12, 12]
    assert rows["layer_name"].head(8).nunique() == 8
    assert set(rows["norm"]) == {"none"}
