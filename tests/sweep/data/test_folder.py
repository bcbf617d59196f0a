import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.base.errors import UserError
from sweep.data import listing
from sweep.data.open import fingerprint, open_dataset
from sweep.data.options import DatasetOptions
from tests.class_folders import write_classes

COUNTS = {"train/cat": 6, "train/dog": 5, "test/cat": 2, "test/dog": 3}


def png(seed, size=(12, 10), mode="RGB"):
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    content = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(content).save(buffer, "PNG")
    return buffer.getvalue()


def write_tree(root, counts):
    """Images root/<directory>/<number>.png, all different; returns root."""
    seed = 0
    for directory, count in counts.items():
        (root / directory).mkdir(parents=True)
        for number in range(count):
            (root / directory / f"{number:03d}.png").write_bytes(png(seed))
            seed += 1
    return root


def pack(tree, archive, *, top=None, backwards=False):
    files = sorted((path for path in tree.rglob("*") if path.is_file()), reverse=backwards)
    with tarfile.open(archive, "w:gz" if archive.suffix in (".gz", ".tgz") else "w") as tar:
        for path in files:
            tar.add(path, Path(top or ".") / path.relative_to(tree))
    return archive


def folder(path, **options):
    return DatasetOptions("folder", path=str(path), **options)


def pixels(split):
    read = dict(split.read_many(range(len(split))))
    return [np.asarray(read[index]).tolist() for index in range(len(split))]


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "pets", COUNTS)


def test_tree_and_archives_are_one_dataset(tmp_path, tree):
    (tree / "SOURCE.txt").write_text("stray")
    (tree / "train" / "cat" / ".hidden.png").write_bytes(b"")
    places = [
        tree,
        pack(tree, tmp_path / "flat.tar"),
        pack(tree, tmp_path / "topped.tar", top="pets"),
        pack(tree, tmp_path / "topped.tar.gz", top="pets"),
        pack(tree, tmp_path / "backwards.tgz", top="./other", backwards=True),
    ]
    opened = [open_dataset("pets", folder(place), cache_dir=tmp_path / "cache") for place in places]
    first = opened[0]
    assert first.class_names == ("cat", "dog")
    assert first.train.labels.tolist() == [0] * 6 + [1] * 5
    assert first.test.labels.tolist() == [0] * 2 + [1] * 3
    assert first.test.names[:2] == ("test/cat/000.png", "test/cat/001.png")
    assert first.split_note == "official"
    for other in opened[1:]:
        assert other.fingerprint == first.fingerprint
        assert other.train.names == first.train.names
        assert pixels(other.train) == pixels(first.train)
        assert pixels(other.test) == pixels(first.test)
        assert np.array_equal(np.asarray(other.test.read(4)), np.asarray(first.test.read(4)))


def test_fingerprint_is_of_content(tmp_path, tree):
    before = fingerprint("a", folder(tree), cache_dir=tmp_path / "cache")
    moved = tree.rename(tmp_path / "elsewhere")
    assert fingerprint("b", folder(moved), cache_dir=tmp_path / "cache") == before
    (moved / "train" / "cat" / "000.png").write_bytes(png(999))
    changed = fingerprint("b", folder(moved), cache_dir=tmp_path / "cache")
    (moved / "train" / "cat" / "001.png").rename(moved / "train" / "dog" / "001b.png")
    relabelled = fingerprint("b", folder(moved), cache_dir=tmp_path / "cache")
    assert len({before, changed, relabelled}) == 3


@pytest.mark.parametrize("packed", [False, True])
def test_an_unchanged_folder_is_read_once(tmp_path, tree, monkeypatch, packed):
    place = pack(tree, tmp_path / "pets.tar.gz") if packed else tree
    digests = []
    digest = listing.hashlib.file_digest
    monkeypatch.setattr(listing.hashlib, "file_digest", lambda *args: digests.append(args) or digest(*args))
    first = fingerprint("pets", folder(place), cache_dir=tmp_path / "cache")
    assert len(digests) == 16
    assert fingerprint("pets", folder(place), cache_dir=tmp_path / "cache") == first
    assert len(digests) == 16
    os.utime(place if packed else place / "train/cat/000.png", ns=(1, 1))
    assert fingerprint("pets", folder(place), cache_dir=tmp_path / "cache") == first
    assert len(digests) == 32


def test_a_damaged_listing_is_made_anew(tmp_path, tree):
    first = fingerprint("pets", folder(tree), cache_dir=tmp_path / "cache")
    (saved,) = (tmp_path / "cache" / "listings").glob("*.json")
    saved.write_bytes(saved.read_bytes()[:100])
    assert fingerprint("pets", folder(tree), cache_dir=tmp_path / "cache") == first


def test_unsplit_folder_is_split_reproducibly(tmp_path):
    tree = write_tree(tmp_path / "pets", {"cat": 20, "dog": 11})
    archive = pack(tree, tmp_path / "pets.tar", top="pets", backwards=True)
    a, b = (open_dataset("pets", folder(place), cache_dir=tmp_path / "cache") for place in (tree, archive))
    assert a.split_note == "stratified 80/20, seed 0"
    assert np.bincount(a.test.labels).tolist() == [4, 2]
    assert set(a.train.names).isdisjoint(a.test.names)
    assert len(a.train) + len(a.test) == 31
    assert (a.test.names, a.fingerprint) == (b.test.names, b.fingerprint)
    other = open_dataset("pets", folder(tree, seed=1, test_fraction=0.5), cache_dir=tmp_path / "cache")
    assert other.split_note == "stratified 50/50, seed 1"
    assert other.fingerprint != a.fingerprint


def test_caps_are_nested_and_change_the_fingerprint(tmp_path, tree):
    options = folder(tree, train_per_class=3)
    small = open_dataset("pets", options, cache_dir=tmp_path / "cache")
    large = open_dataset("pets", replace(options, train_per_class=5), cache_dir=tmp_path / "cache")
    whole = open_dataset("pets", replace(options, train_per_class=99), cache_dir=tmp_path / "cache")
    assert np.bincount(small.train.labels).tolist() == [3, 3]
    assert set(small.train.names) < set(large.train.names) < set(whole.train.names)
    assert len({small.fingerprint, large.fingerprint, whole.fingerprint}) == 3
    assert whole.fingerprint == fingerprint("pets", folder(tree, seed=5), cache_dir=tmp_path / "cache")


def test_every_mode_becomes_rgb_and_a_broken_image_is_handed_over(tmp_path, tree):
    (tree / "train/cat/000.png").write_bytes(png(0, mode="L"))
    deep = Image.fromarray(np.full((4, 4), 128 * 256, dtype=np.uint16))
    deep.save(tree / "train/cat/001.png")
    Image.new("1", (4, 4), 1).save(tree / "train/cat/002.png")
    (tree / "train/cat/003.png").write_bytes(png(3)[:150])
    split = open_dataset("pets", folder(tree), cache_dir=tmp_path / "cache").train
    read = dict(split.read_many(range(5)))
    assert {read[index].mode for index in (0, 1, 2, 4)} == {"RGB"}
    assert np.asarray(read[1]).max() == 128
    assert isinstance(read[3], OSError)
    with pytest.raises(OSError, match="truncated"):
        split.read(3)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"train/cat": 2, "train/dog": 2, "other/cat": 1}, {}, "no test part; valid names: test, val"),
        ({"train/cat": 2, "train/dog": 2, "val/cat": 1}, {}, "only one of the train and test parts: classes dog"),
        ({"cat": 3}, {}, "1 class directories"),
        ({"a/train/cat": 1, "b/train/cat": 1}, {}, "give the directory that holds it"),
        ({"cat": 3, "dog": 1}, {}, "class 'dog' has a single image"),
        (COUNTS, {"classes": 3}, "declared as 3, but 2 are there"),
    ],
)
def test_layouts_that_cannot_be_meant_are_explained(tmp_path, counts, options, message):
    tree = write_tree(tmp_path / "pets", counts)
    with pytest.raises(UserError, match=message):
        open_dataset("pets", folder(tree, **options), cache_dir=tmp_path / "cache")


def test_unreadable_places_are_explained(tmp_path, tree):
    with pytest.raises(UserError, match="does not exist"):
        open_dataset("pets", folder(tmp_path / "nowhere"), cache_dir=tmp_path)
    archive = pack(tree, tmp_path / "pets.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"pets\.tar\.gz cannot be read as a \.tar"):
        open_dataset("pets", folder(archive), cache_dir=tmp_path)
    (tree / "train/cat/link.png").symlink_to("000.png")
    with pytest.raises(UserError, match="as a link"):
        open_dataset("pets", folder(pack(tree, tmp_path / "linked.tar")), cache_dir=tmp_path)
    with pytest.raises(UserError, match="valid kinds: builtin, folder"):
        open_dataset("pets", DatasetOptions("hub"), cache_dir=tmp_path)


@pytest.mark.skipif("TUNNEL_SWEEP_DATA" not in os.environ, reason="needs the real image archives")
@pytest.mark.parametrize(
    ("name", "classes", "train", "test"), [("trashnet", 6, 2016, 505), ("omniglot_small", 242, 3630, 1210)]
)
def test_real_archives(tmp_path, name, classes, train, test):
    path = Path(os.environ["TUNNEL_SWEEP_DATA"], f"{name}.tar.gz")
    data = open_dataset(name, folder(path, classes=classes), cache_dir=tmp_path)
    assert (len(data.train), len(data.test), data.split_note) == (train, test, "official")
    assert not any(isinstance(image, Exception) for _, image in data.test.read_many(range(test)))


def test_some_classes_of_a_folder_are_a_dataset_of_their_own(tmp_path):
    root = write_classes(tmp_path / "data", classes=5)
    whole = DatasetOptions(kind="folder", path=str(root))
    some = open_dataset("some", replace(whole, only=("class1..class2", "class4")), cache_dir=tmp_path / "cache")
    (tmp_path / "copied").mkdir()
    for part in ("train", "test"):
        for name in ("class1", "class2", "class4"):
            (tmp_path / "copied" / part).mkdir(exist_ok=True)
            (tmp_path / "copied" / part / name).symlink_to(root / part / name)
    alone = open_dataset(
        "alone", DatasetOptions(kind="folder", path=str(tmp_path / "copied")), cache_dir=tmp_path / "cache"
    )
    assert some.class_names == alone.class_names == ("class1", "class2", "class4")
    assert some.fingerprint == alone.fingerprint != fingerprint("all", whole, cache_dir=tmp_path / "cache")
    assert (len(some.train), len(some.test)) == (36, 18)
    assert "3 of 5 classes" in " ".join(some.notes)
    for only in (("class7",), ("class6..class8",)):
        with pytest.raises(UserError, match=rf"only: {only[0]} is none of its 5 classes: class0"):
            open_dataset("x", replace(whole, only=only), cache_dir=tmp_path / "cache")
