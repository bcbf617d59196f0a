"""Folders as people have them: split directories by many names, links to nowhere, endings, names that are no text."""

import gzip
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from sweep.base.errors import UserError
from sweep.data.images import evaluation_images
from sweep.data.layouts.classes import split_word
from sweep.data.open import open_dataset
from sweep.data.view import study_view
from tests.sweep.data.test_folder import folder, pack, png, write_tree

CLASSES = ("ant", "bee", "wasp")


def opened(place, tmp_path, **options):
    return open_dataset("bugs", folder(place, **options), cache_dir=tmp_path / "cache")


def split_tree(root, train, test, classes=CLASSES):
    return write_tree(root, {f"{part}/{name}": count for part, count in ((train, 6), (test, 3)) for name in classes})


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("trainset", "testset"),
        ("train_images", "test_images"),
        ("train", "Val"),
        ("train", "dev"),
        ("Training", "Validation"),
        ("train2017", "val2017"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_split_directories_go_by_many_names(tmp_path, train, test, packed):
    tree = split_tree(tmp_path / "bugs", train, test)
    data = opened(pack(tree, tmp_path / "bugs.tar", top="top") if packed else tree, tmp_path)
    assert data.class_names == CLASSES
    assert (len(data.train), len(data.test), data.split_note) == (18, 9, "official")
    assert data.train.names[0] == f"{train}/ant/000.png"


@pytest.mark.parametrize("name", ["ant", "test_tube", "trainer", "images", "set", "contest", "n01440764", "dev_kit"])
def test_names_of_classes_are_no_splits(name):
    assert split_word(name) is None


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"images/ant": 2, "images/bee": 2, "masks/ant": 2, "masks/bee": 2}, "images, masks look like images beside"),
        ({"images": 3, "annotations": 3}, "annotations, images look like images beside"),
        ({"JPEGImages": 3, "SegmentationClass": 3}, "JPEGImages, SegmentationClass look like images beside"),
        ({"train/images": 3, "train/masks": 3, "test/images": 3, "test/masks": 3}, "images, masks look like images"),
        ({f"{top}/{c}": 2 for top in ("X_train", "X_test") for c in ("ant", "bee")}, r"hold the same .*\(ant, bee\)"),
        ({f"{top}/{c}": 2 for top in ("fold1", "fold2") for c in ("ant", "bee")}, "look like parts, not like classes"),
        ({"train": 3, "test": 3}, "test, train hold images but no class directories"),
        ({"Train/ant": 2, "training/ant": 2, "test/ant": 2}, "Train, training all look like the same part"),
        ({"test/ant": 2, "val/ant": 2}, "look like test parts and there is no training part"),
        ({"Training/ant": 2, "Training/bee": 2, "extra/ant": 2}, "there is Training/ but no test part"),
    ],
)
def test_what_looks_like_splits_or_masks_is_never_a_two_class_problem(tmp_path, counts, message):
    with pytest.raises(UserError, match=message):
        opened(write_tree(tmp_path / "bugs", counts), tmp_path)


def test_the_plain_names_win_and_the_rest_is_said(tmp_path):
    tree = split_tree(tmp_path / "bugs", "train", "test")
    write_tree(tree, {"val/ant": 1, "Test/ant": 1, "extra/ant": 1})
    data = opened(tree, tmp_path)
    assert (len(data.train), len(data.test)) == (18, 9)
    assert "left out: directories Test, extra, val beside train and test" in data.notes


@pytest.mark.parametrize(
    ("ending", "kind"),
    [("jfif", "JPEG"), ("JPG", "JPEG"), ("avif", "AVIF"), ("jp2", "JPEG2000"), ("tga", "TGA"), ("pnm", "PPM")],
)
def test_what_pillow_reads_is_read(tmp_path, ending, kind):
    tree = split_tree(tmp_path / "bugs", "train", "test")
    for file in [*tree.glob("*/wasp/*.png")]:
        Image.open(file).save(file.with_suffix(f".{ending}"), kind)
        file.unlink()
    data = opened(tree, tmp_path)
    assert (data.class_names, len(data.train), len(data.test)) == (CLASSES, 18, 9)
    assert not any(isinstance(image, Exception) for _, image in data.train.read_many(range(18)))


@pytest.mark.parametrize("parts", [("train", "test"), None])
def test_a_class_of_pictures_that_are_not_read_does_not_vanish(tmp_path, parts):
    tree = split_tree(tmp_path / "bugs", *parts) if parts else write_tree(tmp_path / "bugs", dict.fromkeys(CLASSES, 6))
    for file in [*tree.rglob("wasp/*.png")]:
        file.rename(file.with_suffix(".HEIC"))
    with pytest.raises(UserError, match=r"without an image that can be read: wasp \(6 \.heic\)"):
        opened(tree, tmp_path)


def test_what_is_left_out_is_counted_and_named(tmp_path):
    tree = split_tree(tmp_path / "bugs", "train", "test")
    for number in range(12):  # of an ending that nobody knows
        (tree / "train/moth").mkdir(exist_ok=True)
        (tree / f"train/moth/{number}.img").write_bytes(b"?")
    for name in ("README", "a.txt", "b.txt"):
        (tree / name).write_text("stray")
    (tree / "train/ant/._000.png").write_bytes(b"macOS")
    (tree / "train/ant/zz.png").symlink_to("../../.git/annex/objects/absent.png")
    data = opened(tree, tmp_path)
    assert (len(data.train), len(data.test)) == (18, 9)
    assert "15 files are no images: 12 with .img, 2 with .txt, 1 with no ending" in data.notes
    assert "left out: directories without an image: moth (12 .img)" in data.notes
    assert "1 images are links to nowhere, left out: train/ant/zz.png" in data.notes


@pytest.mark.parametrize("name", ["moth", "St. Bernard"])
def test_links_to_an_unmounted_disk_are_refused_with_their_target(tmp_path, name):
    tree = split_tree(tmp_path / "bugs", "train", "test")
    (tree / "train" / name).symlink_to(f"/mnt/not_mounted/train/{name}")
    with pytest.raises(UserError, match=f"{name} is a link to /mnt/not_mounted/train/{name}, which is not there"):
        opened(tree, tmp_path)
    (tree / "train" / name).unlink()
    for number in range(3):
        (tree / f"train/ant/x{number}.png").symlink_to("absent.png")
    with pytest.raises(UserError, match="3 files are links to what is not there"):
        opened(tree, tmp_path)


def test_a_link_that_leads_back_up_is_refused(tmp_path):
    tree = split_tree(tmp_path / "bugs", "train", "test")
    (tree / "train/ant/loop").symlink_to("../..")
    with pytest.raises(UserError, match="is a link to a directory above it"):
        opened(tree, tmp_path)


@pytest.mark.parametrize("packed", ["bugs.tar", "bugs.tar.gz"])
def test_an_archive_cut_at_a_members_border_is_refused(tmp_path, packed):
    tree = write_tree(tmp_path / "bugs", {"ant": 4, "bee": 4})
    whole = pack(tree, tmp_path / "whole.tar")
    with tarfile.open(whole) as tar:
        border = tar.getmembers()[-1].offset
    rest = whole.read_bytes()[:border]
    if packed.endswith("gz"):
        rest = gzip.compress(rest)
    (tmp_path / packed).write_bytes(rest)
    with pytest.raises(UserError, match="ends after 7 images without the mark that ends a tar archive"):
        opened(tmp_path / packed, tmp_path)


def test_a_broken_image_of_a_name_that_is_no_text_is_one_skipped_image(tmp_path):
    """A zip from Windows, unpacked on Linux: the name reaches every table as text."""
    tree = write_tree(tmp_path / "bugs", {"train/ant": 110, "train/bee": 110, "test/ant": 2, "test/bee": 2})
    odd = os.fsencode(tree / "train/ant") + b"/fourm\xee.png"
    with open(odd, "wb") as file:
        file.write(png(1)[:60])
    data = opened(tree, tmp_path)
    assert all(name.encode() for name in data.train.names)
    images = evaluation_images(data, "train", np.arange(221), view=study_view(8), cache_dir=tmp_path / "cache")
    (skipped,) = images.skipped
    assert skipped.startswith(r"train/ant/fourm\xee.png: ")
    assert len(images) == 220


def test_an_image_too_long_to_resize_is_one_skipped_image(tmp_path):
    tree = write_tree(tmp_path / "bugs", {"train/ant": 110, "train/bee": 110, "test/ant": 2, "test/bee": 2})
    Image.new("RGB", (1, 30_000)).save(tree / "train/ant/divider.png")
    data = opened(tree, tmp_path)
    images = evaluation_images(data, "train", np.arange(221), view=study_view(224), cache_dir=tmp_path / "cache")
    assert images.skipped == ("train/ant/divider.png: 1 × 30000 px would be resized to 256 × 7,680,000",)


def test_the_background_is_in_the_identity_only_where_something_is_transparent(tmp_path):
    tree = split_tree(tmp_path / "bugs", "train", "test")
    plain = [opened(tree, tmp_path, background=colour) for colour in ("white", "black")]
    assert [data.pixels for data in plain] == ["", ""]
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tree / "train/ant/000.png")
    clear = [opened(tree, tmp_path, background=colour) for colour in ("white", "black")]
    assert [data.pixels for data in clear] == ["pixels 2 on white", "pixels 2 on black"]
    means = []
    for data in clear:
        images = evaluation_images(data, "train", np.arange(18), view=study_view(8), cache_dir=tmp_path / "cache")
        means.append(images.images_NHWC[0].mean())
    assert means == [255, 0]
