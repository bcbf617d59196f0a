"""Hugging Face datasets and webdataset shards through timm's readers: real files, real packages, no network."""

import io
import json
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image

from sweep.base.errors import UserError
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from sweep.study.check import read_config
from sweep.study.resolve import dataset_options
from tests.original_files import PER_CLASS, jpeg, labels

NAMES = ["ant", "bee", "wasp"]


def hugging_face(home, *, names=NAMES, image="image", label="label", tests=None):
    """Parquet files as the hub stores them: bytes of images and a class label."""
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({image: datasets.Image(), label: kind})
    (home / "data").mkdir(parents=True)
    for part in PER_CLASS:
        of = tests if tests and part == "test" else labels(part, 3).tolist()
        rows = {image: [{"bytes": jpeg(label), "path": None} for label in of], label: of}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(home / "data" / f"{part}-00000-of-00001.parquet")
    return home


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def shards(home, *, info=True, label="cls", broken=()):
    """Two training shards and a test shard, as webdataset writes them, with timm's ``_info.json``."""
    home.mkdir(parents=True)
    splits = {}
    for part, count in (("train", 2), ("test", 1)):
        found = labels(part, 3)
        order = np.random.default_rng(0).permutation(len(found))
        chunks = np.array_split(order, count)
        files = [f"bugs-{part}-{number:04d}.tar" for number in range(count)]
        for file, chunk in zip(files, chunks, strict=True):
            with tarfile.open(home / file, "w") as tar:
                for index in chunk.tolist():
                    name = f"{part}{index:05d}"
                    add(tar, f"{name}.jpg", b"broken" if name in broken else jpeg(int(found[index])))
                    if label == "cls":
                        add(tar, f"{name}.cls", str(found[index]).encode())
                    else:
                        add(tar, f"{name}.json", json.dumps({label: int(found[index])}).encode())
        lengths = [len(chunk) for chunk in chunks]
        splits[part] = {"name": part, "num_samples": len(found), "filenames": files, "shard_lengths": lengths}
    if info:
        (home / "_info.json").write_text(json.dumps({"splits": splits}))
    return home


def hfds(path, **more):
    return DatasetOptions("hfds", path=str(path), **more)


def wds(path, **more):
    return DatasetOptions("wds", path=str(path), **more)


MADE = {"hfds": (hugging_face, hfds), "wds": (shards, wds)}


@pytest.mark.parametrize("kind", MADE)
def test_labels_and_images_belong_together(kind, tmp_path):
    write, options = MADE[kind]
    dataset = open_dataset("bugs", options(write(tmp_path / "a")), cache_dir=tmp_path / "cache")
    assert dataset.class_names == (tuple(NAMES) if kind == "hfds" else ("0", "1", "2"))
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        assert sorted(split.labels.tolist()) == labels(part, 3).tolist()
        read = dict(split.read_many(reversed(range(len(split)))))
        for index, label in enumerate(split.labels.tolist()):
            expected = Image.open(io.BytesIO(jpeg(label))).convert("RGB")
            assert np.array_equal(np.asarray(read[index]), np.asarray(expected))


@pytest.mark.parametrize("kind", MADE)
def test_the_fingerprint_knows_the_content_not_the_place(kind, tmp_path):
    write, options = MADE[kind]
    write(tmp_path / "a")
    write(tmp_path / "b")
    same = {open_dataset("x", options(tmp_path / place), cache_dir=tmp_path / "c").fingerprint for place in "ab"}
    capped = open_dataset("x", options(tmp_path / "a", train_per_class=2), cache_dir=tmp_path / "c")
    assert len(same | {capped.fingerprint}) == 2
    assert np.bincount(capped.train.labels).tolist() == [2, 2, 2]
    assert [capped.train.read(index).size for index in range(6)] == [(16, 16)] * 6


@pytest.mark.parametrize("kind", MADE)
def test_samples_are_listed_once(kind, tmp_path, monkeypatch):
    write, options = MADE[kind]
    write(tmp_path / "a")
    first = open_dataset("x", options(tmp_path / "a"), cache_dir=tmp_path / "c")
    monkeypatch.setattr("sweep.data.kinds.hub._list", lambda source: pytest.fail(f"{source.place} was read again"))
    again = open_dataset("other name", options(tmp_path / "a"), cache_dir=tmp_path / "c")
    assert again.fingerprint == first.fingerprint


def test_a_broken_image_is_named_and_shifts_no_label(tmp_path):
    shards(tmp_path / "a", broken=("train00004",))
    dataset = open_dataset("x", wds(tmp_path / "a"), cache_dir=tmp_path / "c")
    read = dict(dataset.train.read_many(range(len(dataset.train))))
    broken = [index for index, found in read.items() if isinstance(found, Exception)]
    assert [dataset.train.labels[index] for index in broken] == [labels("train", 3)[4]]
    for index in set(read) - set(broken):
        expected = Image.open(io.BytesIO(jpeg(dataset.train.labels[index]))).convert("RGB")
        assert np.array_equal(np.asarray(read[index]), np.asarray(expected))


def test_columns_and_fields_by_other_names(tmp_path):
    hugging_face(tmp_path / "a", names=None, image="img", label="fine")
    found = hfds(tmp_path / "a", image_key="img", label_key="fine")
    assert open_dataset("x", found, cache_dir=tmp_path / "c").class_names == ("0", "1", "2")
    shards(tmp_path / "b", label="species")
    found = wds(tmp_path / "b", label_key="species")
    assert len(open_dataset("x", found, cache_dir=tmp_path / "c").train) == 15


def test_shards_without_info_by_pattern(tmp_path):
    shards(tmp_path / "a", info=False)
    patterns = {"train_split": "bugs-train-{0000..0001}.tar|15", "test_split": "bugs-test-0000.tar|6"}
    dataset = open_dataset("x", wds(tmp_path / "a", **patterns), cache_dir=tmp_path / "c")
    assert (len(dataset.train), len(dataset.test)) == (15, 6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (lambda root: hfds(root / "hf", test_split="validation"), "validation"),
        (
            lambda root: hfds(root / "hf", label_key="breed"),
            "no column breed; set label_key to one of image, label",
        ),
        (lambda root: hfds(root / "hf", image_key="img"), "no column img; set image_key"),
        (lambda root: wds(root / "wds", test_split="validation"), "split validation not found"),
        (lambda root: wds(root / "wds", label_key="species"), "has no json with a field species: it has .*cls"),
        (lambda root: wds(root / "wds", image_key="tiff"), "has no tiff: it has jpg"),
        (lambda root: wds(root / "wds", train_split="bugs-train-{0000..0004}.tar|15"), "3 shards are not there"),
        (lambda root: hfds(root / "hidden"), "-1 means that the labels are withheld"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, options, says):
    hugging_face(tmp_path / "hf")
    hugging_face(tmp_path / "hidden", names=None, tests=[-1, -1])
    shards(tmp_path / "wds")
    with pytest.raises(UserError, match=says):
        open_dataset("x", options(tmp_path), cache_dir=tmp_path / "c")


def test_a_shard_cut_short_is_named(tmp_path):
    shard = shards(tmp_path / "a") / "bugs-train-0001.tar"
    shard.write_bytes(shard.read_bytes()[:1300])
    with pytest.raises(UserError, match=r"bugs-train-0001\.tar is damaged"):
        open_dataset("x", wds(tmp_path / "a"), cache_dir=tmp_path / "c")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("timm.data.readers.reader_wds.wds", None)
    with pytest.raises(UserError, match=r"tunnel-sweep\[hub\]"):
        open_dataset("x", wds(shards(tmp_path / "a")), cache_dir=tmp_path / "c")


def test_no_network_is_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no_such_owner/bugs"):
        open_dataset(
            "x", DatasetOptions("hfds", generator="no_such_owner/bugs", download=True), cache_dir=tmp_path / "c"
        )


def test_a_config_names_source_and_splits(tmp_path):
    hugging_face(tmp_path / "hf")
    (tmp_path / "config.yaml").write_text(
        "name: t\ndatasets:\n  bugs: {source: hfds, path: hf, test_split: train}\n"
        "grid: [{architecture: vggm11, id_dataset: bugs, width: 0.125}]\n"
    )
    found = dataset_options(read_config(tmp_path / "config.yaml", need_data=True), "bugs")
    assert (found.kind, found.path, found.test_split) == ("hfds", str(tmp_path / "hf"), "train")
