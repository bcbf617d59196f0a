"""Which view a backbone gets, what it does to keys, and weights whose ID dataset is not here."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
from safetensors.torch import save_file

from sweep import commands, driver
from sweep.cell.cell import run_cell
from sweep.config.problem import ConfigError
from sweep.config.schema import Config
from sweep.study.check import check, read_config
from sweep.study.grid import Sizes, expand
from sweep.study.keys import Keyring

KEYRING = Keyring(data={"digits": "d", "fractals": "f"}, split_seed=0, holdout=0.1, rank_threshold=1e-3)


def curves(block=None, **top):
    grid = [{"architecture": "resnet18", "id_dataset": "fractals", **(block or {})}]
    config = Config.model_validate({"name": "t", "grid": grid, "probe_datasets": ["digits"], **top})
    assert not check(config)
    return expand(config, lambda _name: Sizes(10, 100, 50)).curves


def keys(*args, **top):
    planned = KEYRING.planned(curves(*args, **top)[-1])
    return planned.weights, planned.embedding


TIMM = {"pretraining": "a1_in1k", "resolution": 224}  # bicubic, crop 0.95


def test_weights_are_shown_images_as_their_own_evaluation_does_and_trained_networks_as_the_study_does():
    assert {str(c.backbone.view) for c in curves(TIMM)} == {"shorter side to 235 px, bicubic, centre 224 px"}
    assert {c.backbone.evaluation_view for c in curves(TIMM)} == {"weights"}
    (scratch, *_) = curves()
    assert (scratch.backbone.evaluation_view, scratch.backbone.view.side) == ("study", round(256 / 224 * 32))
    assert curves(TIMM, evaluation_view="study")[0].backbone.view.side == 256
    assert curves(TIMM | {"evaluation_view": "exact"}, evaluation_view="study")[0].backbone.view.side == 224
    assert curves(evaluation_view="weights")[0].backbone.evaluation_view == "study"  # it has none


def test_a_view_by_its_numbers_is_the_named_one_where_they_are_its_own():
    one = curves(evaluation_view={"resize": 1.1})[0].backbone
    assert (one.evaluation_view, one.view.side, one.view.mode) == ("resize 1.1 center", 35, "center")
    both = curves({"resolution": 224, "evaluation_view": ["study", {"resize": 1.25, "crop": "squash"}]})
    assert {c.backbone.view.side for c in both} == {256, 280}
    for numbers, name in (({"resize": "256/224"}, "study"), ({"resize": 1.0, "crop": "center"}, "exact")):
        assert keys(TIMM, evaluation_view=numbers) == keys(TIMM, evaluation_view=name)
    for wrong in ({"resize": "1/0"}, {"resize": 0.0}, {"crop": "center"}, {"resize": 1.1, "crop": "five"}, "zoomed"):
        with pytest.raises(ValueError, match="evaluation_view"):
            curves(evaluation_view=wrong)


def test_a_view_is_a_part_of_keys_only_where_images_come_out_otherwise_than_the_studys():
    study = keys(TIMM, evaluation_view="study")
    assert keys(TIMM)[0] == study[0]  # the same weights
    assert keys(TIMM)[1] != study[1]
    same = TIMM | {"architecture": "resnet50", "pretraining": "tv_in1k"}  # bilinear
    assert keys(same)[1] != keys(same, evaluation_view="study")[1]
    tiny = {"architecture": "vit_base_patch16_224", "pretraining": "dino", "resolution": 224}  # 0.9
    assert keys(tiny)[1] != keys(tiny, evaluation_view="study")[1]
    swin = {"architecture": "convnext_base", "pretraining": "fb_in1k", "resolution": 224}  # 0.875, bicubic
    assert keys(swin) == keys(swin, evaluation_view="study")
    assert keys() == keys(evaluation_view="study") == keys(evaluation_view="weights")
    assert keys(evaluation_view="exact")[0] != keys()[0]  # trained without augmentation on these very images


def test_a_block_may_vary_the_view_and_a_view_nobody_states_is_refused():
    both = curves(TIMM | {"evaluation_view": ["study", "weights", "exact"]})
    assert [c.backbone.evaluation_view for c in both[::2]] == ["study", "weights", "exact"]
    block = {"architecture": "vit_tiny_patch8", "id_dataset": "fractals", "pretraining": "mine"}
    config = {"name": "t", "grid": [block], "weights": {"mine": {"path": "x.pt"}}, "evaluation_view": "weights"}
    (problem,) = check(Config.model_validate(config))
    assert "nobody says how mine of vit_tiny_patch8 is evaluated" in problem.message


LOCAL = """
name: local
data_root: {root}
cache_dir: {root}/cache
datasets: {{few: {{generator: glyphs, classes: 3, train_per_class: 20, test_per_class: 10}}}}
probe_datasets: [few]
weights: {{mine: {{path: mine.safetensors{trained}}}}}
grid: [{{architecture: tf_efficientnet_lite0, pretraining: mine, resolution: 32{id}}}]
"""


@pytest.fixture
def local(tmp_path):
    """A config of local weights, whose ID dataset is nowhere."""
    model = timm.create_model("tf_efficientnet_lite0")
    save_file(model.state_dict(), tmp_path / "mine.safetensors")

    def write(*, id_dataset="", trained=""):
        file = tmp_path / "local.yaml"
        file.write_text(LOCAL.format(root=tmp_path, id=id_dataset, trained=trained))
        return read_config(file, need_data=True)

    return write


def test_local_weights_are_probed_without_their_id_dataset_and_the_plan_says_so(local, tmp_path):
    config = local(trained=", trained_on: {corpus: secret, images: 5000, classes: 7}")
    text = commands.plan(config, str(tmp_path / "out"))
    assert "1 backbones, 1 curves" in text
    assert "no ID curve of 1 backbones with weights: the config has no dataset secret" in text
    line = "mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5] (timm's config of tf_efficientnet_lite0)"
    assert f"{line}; study view: shorter side to 37 px" in text
    sweep = driver.prepare(config, str(tmp_path / "out"))
    (cell,) = sweep.cells
    assert len(run_cell(driver.task_of(sweep, cell, gpu=False)).done) == 1
    driver.export(sweep, done=sweep.curves)
    table = pq.read_table(tmp_path / "out" / "probes.parquet").to_pandas()
    (row,) = (
        table[["id_dataset", "id_classes", "id_images", "dataset", "evaluation_view", "view"]].drop_duplicates().values
    )
    assert list(row) == ["secret", 7, 5000, "few", "study", "shorter side to 37 px, bicubic, centre 32 px"]
    assert not table.is_id.any()
    assert np.isfinite(table.top1).all()


def test_local_weights_are_shown_images_as_the_study_does_unless_they_are_asked_for_their_own_view(local):
    config = local(id_dataset=", id_dataset: imagenet21k, evaluation_view: [study, weights, exact]")
    own = expand(config, lambda _n: Sizes(3, 60, 30)).curves
    assert [c.backbone.view.side for c in own] == [37, 36, 32]  # 32 / 0.875 of timm's config of the architecture
    (default,) = expand(local(id_dataset=", id_dataset: imagenet21k"), lambda _n: Sizes(3, 60, 30)).curves
    assert default.backbone == own[0].backbone


def test_named_corpora_are_id_datasets_of_weights_and_a_given_dataset_gets_its_curve(local):
    (curve,) = expand(local(id_dataset=", id_dataset: imagenet21k"), lambda _n: Sizes(3, 60, 30)).curves
    assert (curve.backbone.id_classes, curve.is_id) == (21841, False)
    both = expand(local(id_dataset=", id_dataset: fractals"), lambda _n: Sizes(10, 100, 50)).curves
    assert [c.is_id for c in both] == [True, False]
    (unsaid,) = expand(local(), lambda _n: Sizes(10, 100, 50)).curves
    assert (unsaid.backbone.id_dataset, unsaid.backbone.id_classes, unsaid.is_id) == ("not known", None, False)
    with pytest.raises(ConfigError, match="no such dataset or corpus"):
        local(id_dataset=", id_dataset: nonsense")
