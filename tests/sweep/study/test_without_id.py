"""Downloaded weights need no ID dataset: their corpus is a column, and only probe datasets are probed."""

import pytest

from sweep.config import ConfigError
from sweep.driver import sweep as driver
from sweep.study.check import read_config
from sweep.study.columns import labels

BLOCK = "{architecture: resnet50, pretraining: a1_in1k, resolution: 64}"


def config_of(folder, block=BLOCK, more="probe_datasets: [digits]"):
    file = folder / "mine.yaml"
    file.write_text(f"name: mine\n{more}\ngrid: [{block}]\n")
    return read_config(file)


def test_only_probe_datasets_are_probed_and_the_corpus_is_a_label(tmp_path):
    sweep = driver.prepare(config_of(tmp_path), str(tmp_path / "out"))
    (planned,) = sweep.planned
    found = labels(planned)
    assert (planned.curve.dataset, found["is_id"]) == ("digits", False)
    assert (found["id_dataset"], found["id_classes"]) == ("imagenet1k", 1000)
    assert (found["corpus"], found["corpus_classes"], found["objective"]) == ("imagenet1k", 1000, "supervised")
    assert found["id_images"] == 1_281_167


def test_the_key_is_that_of_the_same_weights_beside_an_id_dataset(tmp_path):
    alone = driver.prepare(config_of(tmp_path), str(tmp_path / "out"))
    beside = BLOCK.replace("resnet50,", "resnet50, id_dataset: gratings,")
    both = driver.prepare(config_of(tmp_path, beside), str(tmp_path / "out"))
    assert set(alone.curves) < set(both.curves)


@pytest.mark.parametrize(
    ("block", "more", "said"),
    [
        (BLOCK.replace("a1_in1k", "scratch"), "probe_datasets: [digits]", "this key is required"),
        (BLOCK, "", "nothing is probed"),
        (BLOCK.replace("resolution", "id_classes: 10, resolution"), "probe_datasets: [digits]", "no meaning without"),
    ],
)
def test_what_makes_no_sense_without_one_is_refused(tmp_path, block, more, said):
    with pytest.raises(ConfigError, match=said):
        config_of(tmp_path, block, more)


def test_weights_that_are_trained_here_have_their_id_dataset_as_corpus(tmp_path):
    config = config_of(tmp_path, "{architecture: vggm11, id_dataset: digits, width: 0.125}", "probe: {at_epochs: [0]}")
    before, after = sorted(map(labels, driver.prepare(config, str(tmp_path)).planned), key=lambda x: x["epoch"] != 0)
    assert (after["corpus"], after["corpus_classes"], after["objective"]) == ("digits", 10, "supervised")
    assert before["epoch"] == 0
    assert before["corpus"] is None
