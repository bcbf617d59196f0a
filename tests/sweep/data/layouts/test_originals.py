"""The original layouts, from small files laid out like them and, where they are at hand, from the real lists."""

import csv
import shutil
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sweep.base.errors import UserError
from sweep.data import place
from sweep.data.archive import open_tar
from sweep.data.facts import sheets
from sweep.data.layouts import synsets
from sweep.data.layouts.originals import LAYOUTS as LAYOUT_NAMES
from sweep.data.layouts.originals import original
from sweep.data.layouts.setid import read_split
from sweep.data.listing import ImageFile, Listing, OtherFile
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from sweep.data.place import Place
from sweep.data.splits import hold_out
from tests import original_layouts
from tests.original_layouts import LAYOUTS, WNIDS, pixels
from tests.shared_files import STUDY, needs_study


def opened(path, tmp_path, name="mine", **options):
    return open_dataset(name, DatasetOptions("folder", path=str(path), **options), cache_dir=tmp_path / "cache")


def packed(root, archive):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, ".")
    return archive


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_original_is_read_as_a_tree_and_as_its_archive(layout, tmp_path):
    make, classes, train, test = LAYOUTS[layout]
    root = make(tmp_path / "data")
    tree, archive = opened(root, tmp_path), opened(packed(root, tmp_path / "data.tgz"), tmp_path)
    for data in (tree, archive):
        assert (len(data.class_names), len(data.train), len(data.test)) == (classes, train, test)
        for split in (data.train, data.test):
            assert len(set(split.names)) == len(split)
            assert set(split.labels.tolist()) == set(range(classes))
            assert not any(isinstance(image, Exception) for _, image in split.read_many(range(len(split))))
    assert tree.fingerprint == archive.fingerprint
    assert np.array_equal(np.asarray(tree.test.read(test - 1)), np.asarray(archive.test.read(test - 1)))


@pytest.mark.parametrize("layout", ["cub200", "aircraft", "flowers102", "pets", "stl10", "cifar10", "cifar100"])
def test_the_lists_of_an_archive_are_read_in_one_pass(layout, tmp_path, monkeypatch):
    archive = packed(LAYOUTS[layout][0](tmp_path / "data"), tmp_path / "data.tgz")
    opened(archive, tmp_path)
    passes = []
    monkeypatch.setattr(place, "open_tar", lambda path: passes.append(path) or open_tar(path))
    opened(archive, tmp_path)
    assert len(passes) == 1


def test_every_layout_of_a_sheet_has_a_loader_and_a_test():
    known = {*LAYOUT_NAMES, "classes", "torchvision"}
    for sheet in sheets().values():
        assert set(sheet.layouts) <= known, sheet.name
        assert any(layout.split()[0] in (sheet.name, "imagenet1k") for layout in LAYOUTS), sheet.name


def test_cub_follows_its_four_lists(tmp_path):
    data = opened(original_layouts.cub200(tmp_path / "data"), tmp_path)
    assert data.class_names[2] == "003.Sooty_Albatross"
    assert data.train.names[0] == "images/001.Black_footed_Albatross/Black_footed_Albatross_0001_1.jpg"
    assert data.test.names[0] == "images/001.Black_footed_Albatross/Black_footed_Albatross_0002_2.jpg"
    assert "read as CUB-200-2011 (list files)" in data.notes


def test_aircraft_has_classes_that_are_no_directories(tmp_path):
    data = opened(original_layouts.aircraft(tmp_path / "data"), tmp_path)
    assert data.class_names == ("An-12", "Boeing 717", "F-16A/B", "F/A-18")
    assert data.train.names[:2] == ("images/1000000.jpg", "images/1000001.jpg")


def test_flowers_use_train_and_val(tmp_path):
    data = opened(original_layouts.flowers102(tmp_path / "data"), tmp_path)
    assert data.train.names[:2] == ("jpg/image_00001.jpg", "jpg/image_00004.jpg")
    assert data.test.names[:2] == ("jpg/image_00002.jpg", "jpg/image_00005.jpg")


def test_ninco_is_one_of_three_trees(tmp_path):
    data = opened(original_layouts.ninco(tmp_path / "data"), tmp_path)
    assert data.class_names == ("Caracal caracal caracal", "high heels", "waiter")
    assert "left out: 8 images of the archive's other trees" in data.notes
    assert data.split_note == "stratified 80/20, seed 0"
    alone = opened(tmp_path / "data/NINCO/NINCO_OOD_classes", tmp_path)
    assert alone.fingerprint == data.fingerprint


def test_three_forms_of_imagenet_are_one_dataset(tmp_path):
    found = {}
    for form in ("kaggle", "devkit", "folders"):
        root = getattr(original_layouts, f"imagenet1k_{form}")(tmp_path / form)
        found[form] = opened(root, tmp_path)
    assert len({data.fingerprint for data in found.values()}) == 1
    assert found["kaggle"].test.names == found["folders"].test.names
    assert found["kaggle"].test.names[0] == "val/n01440764/ILSVRC2012_val_00000001.JPEG"


@pytest.mark.parametrize("form", ["kaggle", "devkit", "folders"])
def test_imagenet100_is_cut_from_imagenet_by_its_synsets(tmp_path, form, monkeypatch):
    root = getattr(original_layouts, f"imagenet1k_{form}")(tmp_path / form)
    few = replace(sheets()["imagenet100"], wnids=tuple(WNIDS[1:]))
    assert set(few.wnids) <= set(sheets()["imagenet100"].wnids)
    monkeypatch.setattr(synsets, "sheets", lambda: {"imagenet100": few})
    data = opened(root, tmp_path, name="imagenet100", classes=3)
    assert data.class_names == tuple(WNIDS[1:])
    assert (len(data.train), len(data.test)) == (15, 9)
    assert "3 of 4 class directories: the synsets of imagenet100" in data.notes


def test_a_flat_validation_part_without_its_classes_is_refused(tmp_path):
    root = original_layouts.imagenet1k_kaggle(tmp_path / "data")
    (root / "LOC_val_solution.csv").unlink()
    with pytest.raises(UserError, match=r"put LOC_val_solution\.csv \(Kaggle\) or ILSVRC2012_devkit_t12/"):
        opened(root, tmp_path)


@pytest.mark.parametrize(("name", "side"), [("stl10", 96), ("cifar10", 32), ("cifar100", 32)])
def test_records_are_the_pixels_that_were_written(tmp_path, name, side):
    data = opened(LAYOUTS[name][0](tmp_path / "data"), tmp_path)
    seed = 5 if name != "stl10" else 105
    assert np.array_equal(np.asarray(data.train.read(5)), pixels(seed, side))
    assert data.train.labels[5] == (1 if name == "stl10" else 2)


@pytest.mark.parametrize(
    ("layout", "damage", "message"),
    [
        ("cub200", lambda root: (root / "CUB_200_2011/images.txt").write_text("1\n"), "line 1 of .* has not 2 fields"),
        (
            "cub200",
            lambda root: next((root / "CUB_200_2011/images/001.Black_footed_Albatross").iterdir()).unlink(),
            "name 1 images that are not there",
        ),
        (
            "cub200",
            lambda root: (root / "CUB_200_2011/train_test_split.txt").write_text("1 1\n"),
            "17 images of images.txt have no class or no part",
        ),
        ("flowers102", lambda root: (root / "setid.mat").write_bytes(b"cut"), r"setid\.mat cannot be read"),
        (
            "pets",
            lambda root: (root / "images/american_bulldog_1.jpg").unlink(),
            r"name 1 images that are not there, the first is images/american_bulldog_1\.jpg",
        ),
        (
            "stl10",
            lambda root: (root / "stl10_binary/test_X.bin").write_bytes(bytes(27648 * 5)),
            "has 5 images and 6 labels",
        ),
        (
            "cifar10",
            lambda root: (root / "cifar-10-batches-bin/data_batch_2.bin").write_bytes(bytes(3073 * 5 + 1)),
            "it is cut short",
        ),
        (
            "cifar10",
            lambda root: (root / "cifar-10-batches-bin/data_batch_2.bin").write_bytes(bytes([9] * 3073)),
            "labels of .* do not fit the 3 class names",
        ),
    ],
)
def test_damaged_originals_are_refused_in_words(tmp_path, layout, damage, message):
    root = LAYOUTS[layout][0](tmp_path / "data")
    damage(root)
    with pytest.raises(UserError, match=message):
        opened(root, tmp_path)


def test_the_python_version_of_cifar_is_sent_to_torchvision(tmp_path):
    for name in ("batches.meta", "data_batch_1"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="source: torchvision/cifar10"):
        opened(tmp_path, tmp_path)


@needs_study
def test_a_real_damaged_copy_of_cub(tmp_path):
    """The first fifty classes: two stray images, a split list longer than the list of images."""
    data = opened(STUDY / "images/cub200_first50_128px.tar.gz", tmp_path)
    assert (len(data.class_names), len(data.train), len(data.test)) == (50, 1500, 1389)
    official = {f"images/{line.split()[1]}" for line in (STUDY / "cub200/images.txt").read_text().splitlines()}
    assert set(data.train.names) | set(data.test.names) < official


class ListedPlace(Place):
    """A place with the real list files and the images they name, without pixels."""

    def read(self, name):
        return (self.path / name.removeprefix("data/")).read_bytes()


def listed_place(directory, images, *, below=""):
    names = [file.name for file in directory.iterdir() if file.is_file()]
    files = sorted(ImageFile(path, 1, 0, path) for path in images)
    return ListedPlace(directory, Listing(files, sorted(OtherFile(below + name, 1, 0) for name in names), []))


def counts(samples):
    per_class = Counter(sample.class_name for sample in samples).values()
    return len(samples), (min(per_class), max(per_class))


@needs_study
@pytest.mark.parametrize("name", ["cub200", "aircraft", "flowers102"])
def test_sheets_agree_with_their_loaders_on_the_real_lists(name):
    if name == "cub200":
        lines = (STUDY / "cub200/images.txt").read_text().splitlines()
        there = listed_place(STUDY / "cub200", [f"images/{line.split()[1]}" for line in lines])
    elif name == "aircraft":
        lists = [STUDY / f"aircraft/images_variant_{part}.txt" for part in ("trainval", "test")]
        numbers = [line.split()[0] for file in lists for line in file.read_text().splitlines()]
        there = listed_place(STUDY / "aircraft", [f"data/images/{n}.jpg" for n in numbers], below="data/")
    else:
        there = listed_place(STUDY / "flowers102", [f"jpg/image_{n:05d}.jpg" for n in range(1, 8190)])
    parts, sheet = original("it", there), sheets()[name]
    assert counts(parts.train) == (sheet.train, sheet.per_class["train"])
    assert counts(parts.test) == (sheet.test, sheet.per_class["test"])
    names = {sample.class_name for sample in parts.train}
    assert len(names) == sheet.classes
    assert not sheet.class_names or names == set(sheet.class_names)


@needs_study
def test_flowers_are_split_by_the_real_setid():
    files = [(STUDY / f"flowers102/{name}").read_bytes() for name in ("setid.mat", "imagelabels.mat")]
    ids, labels_N = read_split(*files, "it")
    assert (len(labels_N), labels_N.min(), labels_N.max()) == (8189, 1, 102)
    assert not set(ids["train"].tolist()) & set(ids["test"].tolist())
    for part in ids.values():
        assert np.bincount(labels_N[part - 1])[1:].tolist() == [10] * 102


@needs_study
def test_the_sheet_of_ninco_says_what_our_split_gives():
    rows = list(csv.DictReader((STUDY / "ninco/NINCO_OOD_classes.csv").read_text(encoding="utf-8").splitlines()))
    names, labels_N = np.unique([row["class"] for row in rows], return_inverse=True)
    held_N, sheet = hold_out(labels_N, fraction=0.2, seed=0), sheets()["ninco"]
    assert tuple(names) == sheet.class_names
    assert (int((~held_N).sum()), int(held_N.sum()), len(rows)) == (sheet.train, sheet.test, sheet.total)
    for part, chosen_N in (("train", ~held_N), ("test", held_N)):
        per_class = np.bincount(labels_N[chosen_N])
        assert (per_class.min(), per_class.max()) == sheet.per_class[part]


@needs_study
def test_synsets_of_the_sheets_are_the_published_lists():
    def lines(name):
        return {line.strip() for line in (STUDY / name).read_text().splitlines() if line.strip()}

    assert set(sheets()["imagenet100"].wnids) == lines("imagenet100/imagenet100.txt")
    assert set(sheets()["imagenet_r"].wnids) == lines("imagenet_r/imagenet_r_wnids.txt")
    assert set(sheets()["imagenet1k"].wnids) == lines("imagenet_r/imagenet1k_wnids_sorted.txt")


def test_strays_beside_listed_images_are_left_out_and_said(tmp_path):
    root = original_layouts.cub200(tmp_path / "data")
    home = root / "CUB_200_2011/images/001.Black_footed_Albatross"
    shutil.copy(next(home.iterdir()), home / "copy_rgb.jpg")
    data = opened(root, tmp_path)
    assert any("1 images that stand in no list" in note and "copy_rgb.jpg" in note for note in data.notes)
    shutil.rmtree(root / "CUB_200_2011/images/003.Sooty_Albatross")
    data = opened(root, tmp_path)
    assert len(data.class_names) == 2
    assert any("left out: 1 classes of the lists without an image" in note for note in data.notes)
