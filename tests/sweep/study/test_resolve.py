"""What a config says of its datasets against their files; a dataset is opened once, however many backbones ask."""

import os

import pytest

from sweep import commands
from sweep.base.errors import UserError
from sweep.data import Library, dataset_options, glance, listing, summaries
from sweep.data import open as opening
from sweep.data.once import forget_datasets
from sweep.study import expand, keyring, keys
from sweep.study.check import read_config
from sweep.study.resolve import data_identities, said_of_sizes, sizes
from tests.original_files import ORIGINALS, labels
from tests.sweep.data.test_folder import png, write_tree


def config_of(tmp_path, grid, datasets):
    path = tmp_path / "config.yaml"
    path.write_text(f"name: t\ngrid: [{{{grid}}}]\ncache_dir: {tmp_path / 'cache'}\ndatasets: {{{datasets}}}\n")
    return read_config(path)


@pytest.fixture
def calls(monkeypatch):
    """How often a folder was looked through, opened, and an image digested."""
    counts = {"scan": 0, "open": 0, "digest": 0}

    def counted(name, function):
        def call(*arguments, **named):
            counts[name] += 1
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(listing, "scan", counted("scan", listing.scan))
    monkeypatch.setattr(summaries, "scan", counted("scan", summaries.scan))
    monkeypatch.setattr(listing, "image_file", counted("digest", listing.image_file))
    kinds = {name: counted("open", function) for name, function in opening.KINDS.items()}
    monkeypatch.setattr(opening, "KINDS", kinds)
    return counts


def test_forty_backbones_list_an_undeclared_dataset_once(tmp_path, calls):
    tree = write_tree(tmp_path / "bugs", {"train/ant": 8, "train/bee": 8, "test/ant": 3, "test/bee": 3})
    seeds = ", ".join(map(str, range(40)))
    config = config_of(
        tmp_path,
        f"architecture: vggm11, id_dataset: bugs, probe_datasets: [bugs], width: 0.0625, seed: [{seeds}]",
        f"bugs: {{path: {tree}}}",
    )
    text = commands.plan(config, str(tmp_path / "out"))
    assert "40 backbones" in text
    assert (calls["open"], calls["digest"]) == (1, 22)
    assert calls["scan"] <= 2  # its state, its files
    calls |= dict.fromkeys(calls, 0)
    forget_datasets()
    assert commands.plan(config, str(tmp_path / "out")) == text
    assert calls == {"scan": 0, "open": 0, "digest": 0}  # a second plan looks at the directories' times only
    forget_datasets()
    expand(config, lambda name: sizes(config, name))
    keyring(config)
    assert calls == {"scan": 1, "open": 0, "digest": 0}  # a run looks at every file, and opens what has changed


def test_a_glance_sees_new_files_and_a_run_sees_changed_ones(tmp_path):
    tree = write_tree(tmp_path / "bugs", {"ant": 8, "bee": 8})
    config = config_of(tmp_path, "architecture: vggm11, id_dataset: bugs", f"bugs: {{path: {tree}}}")

    def identity():
        forget_datasets()
        return data_identities(config, ["bugs"])["bugs"]

    first = identity()
    (tree / "ant/000.png").write_bytes(png(999))
    second = identity()
    assert first != second
    (tree / "ant/new.png").write_bytes(png(1000))
    with glance():
        assert identity() not in (first, second)
    (tree / "ant/new.png").unlink()
    assert identity() == second


def test_a_damaged_summary_is_made_anew(tmp_path):
    tree = write_tree(tmp_path / "bugs", {"ant": 8, "bee": 8})
    config = config_of(tmp_path, "architecture: vggm11, id_dataset: bugs", f"bugs: {{path: {tree}}}")
    first = data_identities(config, ["bugs"])
    (saved,) = (tmp_path / "cache/summaries").glob("*.json")
    for damaged in (b"", b"{}", b'{"state": 1, "glanced": [], "summary": {"classes": 3}}', saved.read_bytes()[:-9]):
        saved.write_bytes(damaged)
        forget_datasets()
        assert data_identities(config, ["bugs"]) == first


def test_the_files_count_and_not_what_is_declared(tmp_path):
    tree = write_tree(tmp_path / "bugs", {"train/ant": 9, "train/bee": 8, "test/ant": 3, "test/bee": 3})
    grid = "architecture: vggm11, id_dataset: bugs"
    declared = config_of(tmp_path, grid, f"bugs: {{path: {tree}, classes: 2, train: 1000, test: 100}}")
    assert sizes(declared, "bugs") == (2, 17, 6)
    (said,) = said_of_sizes(declared)
    assert "its files hold 17 + 6 images of 2 classes; declared or known are 1,000 + 100 of 2" in said
    planned = commands.plan(declared, str(tmp_path / "out"))
    assert f"notice: {said}" in planned
    assert "dataset bugs: 2 classes, 17 + 6 images\n" in planned
    (tree / "train/ant/list.txt").write_text("left out")
    forget_datasets()
    assert "dataset bugs: 1 files are no images: 1 with .txt\n" in commands.plan(declared, str(tmp_path / "out"))
    capped = config_of(tmp_path, grid, f"bugs: {{path: {tree}, train_per_class: 5}}")
    assert sizes(capped, "bugs") == (2, 10, 6)
    assert said_of_sizes(capped) == []
    os.rename(tree, tmp_path / "away")
    absent = config_of(tmp_path, grid, f"bugs: {{path: {tree}, classes: 2, train: 1000, test: 100}}")
    assert sizes(absent, "bugs") == (2, 1000, 100)


def test_a_plan_counts_what_other_readers_have(tmp_path, monkeypatch):
    ORIGINALS["cifar10"](tmp_path / "tv", monkeypatch)
    sources = f"tv: {{source: torchvision/cifar10, path: {tmp_path / 'tv'}, train: 7}}, "
    sources += f"absent: {{source: torchvision/pets, path: {tmp_path / 'tv'}}}"
    grid = "architecture: vggm11, id_dataset: tv, width: 0.0625, probe_datasets: [absent]"
    planned = commands.plan(config_of(tmp_path, grid, sources), str(tmp_path / "out"))
    train, test = (len(labels(part, 10)) for part in ("train", "test"))
    assert f"dataset tv: 10 classes, {train} + {test} images\n" in planned
    assert f"tv: its files hold {train} + {test} images" in planned
    assert "dataset absent" not in planned


def test_a_plan_names_classes_that_a_run_refuses_and_curves_beyond_the_memory(tmp_path, monkeypatch):
    parts = {"train/ant": 9, "train/bee": 1, "test/ant": 3, "test/bee": 3}
    tree = write_tree(tmp_path / "bugs", parts)
    config = config_of(tmp_path, "architecture: vggm11, id_dataset: bugs, width: 0.0625", f"bugs: {{path: {tree}}}")
    planned = commands.plan(config, str(tmp_path / "out"))
    assert "warning: dataset bugs: class 'bee': a single training image: two are needed" in planned
    assert "may hold in memory" not in planned
    asked = config_of(
        tmp_path,
        "architecture: vggm11, id_dataset: bugs, width: 0.0625, id_classes: 3, images_per_class: 9",
        f"bugs: {{path: {tree}}}",
    )
    said = commands.plan(asked, str(tmp_path / "out"))
    assert "warning: dataset bugs: id_classes: 3 are asked for; a run refuses curves with it" in said
    assert "images_per_class: 9 are asked for, class 'bee' has 1; a run refuses" in said
    forget_datasets()
    with pytest.raises(UserError, match="'bee' has a single image"):
        Library({"bugs": dataset_options(config, "bugs")}, str(tmp_path / "cache")).select("bugs")
    monkeypatch.setattr("sweep.study.costs_said.host_memory", lambda: (1000, 1000))
    for in_flight, said in (
        (1, "700 B, resources.memory of this machine's)"),
        (2, "350 B, resources.memory of this machine's,"),
    ):
        here = config.resources.model_copy(update={"gpus": 0, "max_in_flight": in_flight})
        monkeypatch.setattr("sweep.study.costs_said.os.cpu_count", lambda: 4)
        planned = commands.plan(config.model_copy(update={"resources": here}), str(tmp_path / "out"))
        assert f"embeddings of 1 curves are more than a task may hold in memory here ({said}" in " ".join(
            planned.split()
        )


def test_a_known_name_on_other_files_is_noticed(tmp_path):
    """CIFAR-10 by name, on a copy of 40 images: neither plan nor γ may count 50,000."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    tree = write_tree(tmp_path / "c", {f"{part}/{name}": 2 for part in ("train", "test") for name in names})
    config = config_of(tmp_path, "architecture: vggm11, id_dataset: cifar10", f"cifar10: {{path: {tree}}}")
    assert sizes(config, "cifar10") == (10, 20, 20)
    assert "declared or known are 50,000 + 10,000" in said_of_sizes(config)[0]


def test_only_augmented_training_above_224_px_names_the_version_of_the_pixels(tmp_path, monkeypatch):
    config = config_of(
        tmp_path,
        "architecture: vggm11, id_dataset: gratings, width: 0.0625, resolution: [224, 384], augmentation: [off, on]",
        "",
    )
    grid = expand(config, lambda name: sizes(config, name))

    def found():
        ring = keyring(config)
        backbones = [cell.backbone for cell in grid.cells]
        return {(each.resolution, each.augmentation): ring.weights(each) for each in backbones}

    now = found()
    monkeypatch.setattr(keys, "training_pixels", lambda resolution: 1)  # as before pixels had a version
    assert {cell for cell, key in found().items() if key != now[cell]} == {(384, "on")}
