import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.data.dataset import Split
from sweep.data.decoded import Decoding
from sweep.data.images import decode_views, evaluation_images, training_images
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from sweep.data.pixels import training_pixels
from sweep.data.scratch import contents, keep_newest
from sweep.data.shelf import Shelf
from sweep.data.shown import evaluation_view, training_view
from sweep.data.view import View, study_view


def picture(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture
def tree(tmp_path):
    """Two classes, 80 + 80 training images of several shapes, 2 test images."""
    shapes = [(40, 60), (60, 40), (50, 50), (20, 24)]
    for part, count in (("train", 80), ("test", 1)):
        for label in ("cat", "dog"):
            directory = tmp_path / "pets" / part / label
            directory.mkdir(parents=True)
            for number in range(count):
                picture(*shapes[number % 4], seed=number + 1000 * (label == "dog")).save(
                    directory / f"{number:03d}.png"
                )
    return tmp_path / "pets"


def opened(tree, tmp_path):
    return open_dataset("pets", DatasetOptions("folder", path=str(tree)), cache_dir=tmp_path / "cache")


def truncate(path):
    path.write_bytes(path.read_bytes()[:60])


class CountingReader:
    """Stands before a reader and counts the images it yields."""

    def __init__(self, reader):
        self.reader, self.count = reader, 0

    def read_many(self, indices):
        for pair in self.reader.read_many(indices):
            self.count += 1
            yield pair


def counted(dataset):
    reader = CountingReader(dataset.train.reader)
    train = Split(dataset.train.labels, dataset.train.names, reader)
    return replace(dataset, train=train), reader


def test_evaluation_view_by_hand():
    image = picture(60, 40)
    # 256/224 × 32 = 36.6 → 37 px on the shorter side, 37 × 60/40 = 55.5 → 55 on the longer one
    expected = image.resize((55, 37), Image.Resampling.BICUBIC).crop((12, 2, 44, 34))
    assert np.array_equal(evaluation_view(image, study_view(32)), expected)


@pytest.mark.parametrize("shape", [(60, 40), (33, 77), (37, 37), (8, 8), (500, 400)])
@pytest.mark.parametrize("resolution", [32, 64, 224])
def test_evaluation_view_is_torchvisions(shape, resolution):
    image = picture(*shape)
    resized = resize(image, [round(256 / 224 * resolution)], interpolation=InterpolationMode.BICUBIC)
    assert np.array_equal(evaluation_view(image, study_view(resolution)), center_crop(resized, [resolution]))


@pytest.mark.parametrize(
    ("shape", "resolution", "expected"),
    [
        ((60, 40), 32, (60, 40)),  # smaller than 4 × 32: as it is
        ((60, 40), 8, (48, 32)),  # 4 × 8
        ((600, 400), 32, (192, 128)),  # 4 × 32
        ((600, 400), 224, (384, 256)),  # 256
        ((300, 200), 224, (300, 200)),  # original
        ((1200, 900), 384, (585, 439)),  # 256/224 × 384, as evaluation
        ((1200, 900), 518, (789, 592)),
    ],
)
def test_training_view_shorter_side(shape, resolution, expected):
    assert training_view(picture(*shape), resolution).size == expected


@pytest.mark.parametrize("resolution", [32, 64, 224, 225, 288, 384, 448, 518])
def test_training_sees_as_much_as_evaluation(resolution):
    """From the same original, the cache of training images is never smaller than what evaluation resizes to."""
    large = Image.new("RGB", (1600, 1200))
    assert min(training_view(large, resolution).size) >= round(256 / 224 * resolution)
    before = min(4 * resolution, 256)  # all resolutions up to 224 px are cached as they always were
    assert (min(training_view(large, resolution).size) == before) == (training_pixels(resolution) == 1)


def test_both_caches_hold_the_selection_in_its_order(tree, tmp_path):
    data = opened(tree, tmp_path)
    indices = np.array([150, 3, 81, 0, 42])
    evaluation = evaluation_images(data, "train", indices, view=study_view(16), cache_dir=tmp_path / "cache")
    training = training_images(data, "train", indices, resolution=8, cache_dir=tmp_path / "cache")
    assert evaluation.images_NHWC.shape == (5, 16, 16, 3)
    for images in (evaluation, training):
        assert len(images) == 5
        assert images.labels_N.tolist() == [1, 0, 1, 0, 0]
        assert images.names == tuple(data.train.names[index] for index in indices)
        assert images.kept_N.tolist() == [0, 1, 2, 3, 4]
        assert images.skipped == ()
    for position, index in enumerate(indices.tolist()):
        original = data.train.read(index)
        assert np.array_equal(evaluation.images_NHWC[position], evaluation_view(original, study_view(16)))
        image_CHW = training[position]
        assert image_CHW.dtype == torch.uint8
        assert np.array_equal(image_CHW.permute(1, 2, 0).numpy(), training_view(original, 8))


def test_decoded_once(tree, tmp_path):
    data, reader = counted(opened(tree, tmp_path))
    indices = np.arange(20)
    for _ in range(2):
        first = evaluation_images(data, "train", indices, view=study_view(16), cache_dir=tmp_path / "cache")
        assert reader.count == 20
    assert not first.images_NHWC.flags.writeable
    evaluation_images(data, "train", indices[:10], view=study_view(16), cache_dir=tmp_path / "cache")
    evaluation_images(data, "train", indices, view=study_view(24), cache_dir=tmp_path / "cache")
    training_images(data, "train", indices, resolution=16, cache_dir=tmp_path / "cache")
    assert reader.count == 20 + 10 + 20 + 20


def test_a_truncated_image_is_named_and_skipped(tree, tmp_path):
    truncate(tree / "train/cat/002.png")
    data = opened(tree, tmp_path)
    indices = np.arange(160)[::-1]
    evaluation = evaluation_images(data, "train", indices, view=study_view(16), cache_dir=tmp_path / "cache")
    training = training_images(data, "train", indices, resolution=16, cache_dir=tmp_path / "cache")
    for images in (evaluation, training):
        (skipped,) = images.skipped
        assert skipped.startswith("train/cat/002.png: ")
        assert images.kept_N.tolist() == [*range(157), 158, 159]
        assert "train/cat/002.png" not in images.names
    assert np.array_equal(evaluation.images_NHWC[157], evaluation_view(data.train.read(1), study_view(16)))
    assert np.array_equal(training[157].permute(1, 2, 0).numpy(), training_view(data.train.read(1), 16))


def test_too_many_broken_images_fail_with_the_list(tree, tmp_path):
    truncate(tree / "train/cat/002.png")
    truncate(tree / "train/dog/007.png")
    data = opened(tree, tmp_path)
    with pytest.raises(UserError, match="2 of 160 images cannot be read, more than 1%") as failure:
        evaluation_images(data, "train", np.arange(160), view=study_view(16), cache_dir=tmp_path / "cache")
    assert "train/cat/002.png" in str(failure.value)
    assert "train/dog/007.png" in str(failure.value)
    truncate_free = np.setdiff1d(np.arange(160), [2, 87])
    evaluation_images(data, "train", truncate_free, view=study_view(16), cache_dir=tmp_path / "cache")


def test_a_class_that_loses_its_last_image_is_named(tree, tmp_path):
    truncate(tree / "train/cat/002.png")
    data = opened(tree, tmp_path)
    (tree / "train/bird").mkdir()
    labels = data.train.labels.copy()
    labels[2] = 2
    data = replace(data, class_names=("cat", "dog", "bird"), train=Split(labels, data.train.names, data.train.reader))
    with pytest.raises(UserError, match="no readable image is left of class bird"):
        training_images(data, "train", np.arange(160), resolution=16, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("harm", ["short pixels", "no index", "torn index"])
def test_a_damaged_entry_is_made_again(tree, tmp_path, harm):
    data, reader = counted(opened(tree, tmp_path))
    cache = tmp_path / "cache"
    whole = np.array(evaluation_images(data, "train", np.arange(9), view=study_view(16), cache_dir=cache).images_NHWC)
    (entry,) = (path for path in (cache / "images").iterdir() if path.is_dir())
    pixels, index = entry / "pixels.u8", entry / "index.npz"
    if harm == "short pixels":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif harm == "no index":
        index.unlink()
    else:
        index.write_bytes(index.read_bytes()[:200])
    again = evaluation_images(data, "train", np.arange(9), view=study_view(16), cache_dir=cache)
    assert np.array_equal(again.images_NHWC, whole)
    assert reader.count == 18


def test_an_empty_or_repeating_selection_is_refused(tree, tmp_path):
    data = opened(tree, tmp_path)
    for indices in ([], [1, 1]):
        with pytest.raises(ValueError, match="each of them once"):
            evaluation_images(data, "train", np.array(indices), view=study_view(16), cache_dir=tmp_path / "cache")


# A process of its own, without torch: decodes slowly, writes a line per image, and may be told to die half-way.
DECODER = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from sweep.data.decoded import Wanted, decoded
from sweep.data.dataset import Split
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions

log, cache_dir, die_after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
options = DatasetOptions("builtin", generator="gratings", classes=4, train_per_class=5)
data = open_dataset("gratings", options, cache_dir=cache_dir)

class Slow:
    def read_many(self, indices):
        for number, pair in enumerate(data.train.reader.read_many(indices)):
            if number == die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            with open(log, "a") as file:
                file.write(f"{os.getpid()} {pair[0]}\\n")
            time.sleep(0.02)
            yield pair

slow = replace(data, train=Split(data.train.labels, data.train.names, Slow()))
view = ("evaluation", lambda image: image.resize((16, 16)))
entry = decoded(Wanted(slow, "train", np.arange(20), view, 16), cache_dir=cache_dir)
print(len(entry.kept_N), int(entry.pixels.sum(dtype=np.int64)))
"""


def decoder(tmp_path, die_after=-1):
    arguments = [str(tmp_path / "log"), str(tmp_path / "cache"), str(die_after)]
    return subprocess.Popen([sys.executable, "-c", DECODER, *arguments], stdout=subprocess.PIPE, text=True)


def test_concurrent_processes_decode_once(tmp_path):
    processes = [decoder(tmp_path) for _ in range(3)]
    outputs = [process.communicate(timeout=150)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(outputs)) == 1
    assert outputs[0].startswith("20 ")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 20
    assert len({line.split()[0] for line in lines}) == 1


def test_what_a_killed_process_left_is_made_again(tmp_path):
    killed = decoder(tmp_path, die_after=12)
    killed.communicate(timeout=150)
    assert killed.returncode == -signal.SIGKILL
    assert any(path.suffix == ".tmp" for path in (tmp_path / "cache" / "images").iterdir())
    second = decoder(tmp_path)
    assert second.communicate(timeout=150)[0].startswith("20 ")
    assert len((tmp_path / "log").read_text().splitlines()) == 12 + 20
    assert not any(path.suffix == ".tmp" for path in (tmp_path / "cache" / "images").iterdir())


def test_names_of_odd_files_survive(tmp_path):
    buffer = io.BytesIO()
    picture(20, 20).save(buffer, "PNG")
    for part in ("train", "test"):
        for label in ("ä b", "c'd"):
            (tmp_path / "odd" / part / label).mkdir(parents=True)
            for number in range(2):
                (tmp_path / "odd" / part / label / f"№ {number}.PNG").write_bytes(buffer.getvalue())
    data = opened(tmp_path / "odd", tmp_path)
    images = evaluation_images(data, "train", np.arange(4), view=study_view(16), cache_dir=tmp_path / "cache")
    assert images.names[0] == "train/c'd/№ 0.PNG"


class Dies:
    """Stands before a reader and is killed at an image, or counts."""

    def __init__(self, reader, at=None):
        self.reader, self.at, self.seen = reader, at, []

    def read_lazily(self, indices):
        for index, decode in self.reader.read_lazily(indices):
            if index == self.at:
                raise KeyboardInterrupt
            self.seen.append(index)
            yield index, decode


@pytest.fixture
def busy(monkeypatch):
    """As if images took so long that others are asked from the first on."""
    monkeypatch.setattr("sweep.data.parallel._TRIAL_SECONDS", 0.0)
    monkeypatch.setattr("sweep.data.parallel._WORTH_SECONDS", 1e-9)


@pytest.mark.parametrize(("processes", "kind"), [(1, "folder"), (1, "archive"), (2, "folder"), (3, "archive")])
def test_whoever_goes_on_loses_a_chunk_at_most_and_pixels_stay(tree, tmp_path, monkeypatch, busy, processes, kind):
    truncate(tree / "train/cat/002.png")
    if kind == "archive":
        with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as archive:
            archive.add(tree, "pets")  # in the order of the file system
        tree = tmp_path / "pets.tar.gz"
    data = opened(tree, tmp_path)
    monkeypatch.setattr("sweep.data.decoded._MAX_BROKEN", 0.1)
    indices = np.append(np.random.default_rng(0).permutation(np.arange(3, 160))[:29], 2)
    wanted = {"view": study_view(16)}
    expected = evaluation_images(data, "train", indices, cache_dir=tmp_path / "whole", **wanted)
    ragged = training_images(data, "train", indices, resolution=16, cache_dir=tmp_path / "whole")
    for index, image_HWC in zip(indices[expected.kept_N][:9], expected.images_NHWC, strict=False):  # as if one by one
        assert np.array_equal(image_HWC, evaluation_view(data.train.read(index), study_view(16)))
    monkeypatch.setattr("sweep.data.partial._CHUNK_SECONDS", 0.0)  # every image is a chunk
    monkeypatch.setattr("sweep.data.parallel._MOST", 1)
    told, how = [], Decoding(processes, told=lambda *state: told.append(state))
    reader = Dies(data.train.reader, at=int(sorted(indices)[20]))
    broken_off = replace(data, train=replace(data.train, reader=reader))
    with pytest.raises(KeyboardInterrupt):
        evaluation_images(broken_off, "train", indices, cache_dir=tmp_path / "cache", how=how, **wanted)
    (left,) = (tmp_path / "cache/images").glob("*.tmp")
    with open(left / "pixels.u8", "ab") as pixels:  # what was written after the last chunk
        pixels.write(b"half an image")
    done = len(list(left.glob("chunk-*.npz")))
    assert 2 in reader.seen[:3]  # the broken one is in a chunk too
    assert max(1, len(reader.seen) - 3 * processes - 1) <= done <= len(reader.seen) == 20
    first = set(reader.seen[:done])
    monkeypatch.setattr("sweep.data.partial._CHUNK_SECONDS", 10.0)
    reader = Dies(data.train.reader)
    gone_on = replace(data, train=replace(data.train, reader=reader))
    again = evaluation_images(gone_on, "train", indices, cache_dir=tmp_path / "cache", how=how, **wanted)
    assert set(reader.seen) == {*indices.tolist()} - first
    assert np.array_equal(again.images_NHWC, expected.images_NHWC)
    assert (again.names, again.skipped) == (expected.names, expected.skipped)
    assert [path.name for path in (tmp_path / "cache/images").iterdir() if path.is_dir()] == [left.stem]
    assert sorted(path.name for path in left.with_suffix("").iterdir()) == ["index.npz", "pixels.u8"]
    assert told[-1][:3] == ("pets, train part, evaluation, 16 px", len(indices), len(indices))
    crops = training_images(data, "train", indices, resolution=16, cache_dir=tmp_path / "cache", how=how)
    assert np.array_equal(crops.flat, ragged.flat)
    assert np.array_equal(crops.sizes_N2, ragged.sizes_N2)


def test_a_damaged_chunk_and_those_after_it_are_decoded_again(tree, tmp_path, monkeypatch):
    data = opened(tree, tmp_path)
    monkeypatch.setattr("sweep.data.partial._CHUNK_SECONDS", 0.0)
    reader = Dies(data.train.reader, at=9)
    with pytest.raises(KeyboardInterrupt):
        evaluation_images(
            replace(data, train=replace(data.train, reader=reader)),
            "train",
            np.arange(12),
            view=study_view(16),
            cache_dir=tmp_path / "cache",
        )
    (left,) = (tmp_path / "cache/images").glob("*.tmp")
    chunk = left / "chunk-000005.npz"
    chunk.write_bytes(chunk.read_bytes()[:-40])
    reader = Dies(data.train.reader)
    whole = replace(data, train=replace(data.train, reader=reader))
    images = evaluation_images(whole, "train", np.arange(12), view=study_view(16), cache_dir=tmp_path / "cache")
    assert reader.seen == list(range(5, 12))
    for index in range(12):
        assert np.array_equal(images.images_NHWC[index], evaluation_view(data.train.read(index), study_view(16)))


def test_a_full_disk_is_said_before_anything_is_decoded(tree, tmp_path, monkeypatch):
    data, reader = counted(opened(tree, tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=76_799))
    wanted = {"view": study_view(16), "cache_dir": tmp_path / "cache"}
    said = "pets, train part, evaluation, 16 px: decoding the other 100 images takes 7.68e-05 GB .* 7.68e-05 GB are"
    with pytest.raises(UserError, match=said):
        evaluation_images(data, "train", np.arange(100), **wanted)
    assert reader.count == 0
    assert len(evaluation_images(data, "train", np.arange(99), **wanted)) == 99
    monkeypatch.setattr("sweep.data.partial._CHUNK_SECONDS", 0.0)  # sizes of crops are known by the first ones
    with pytest.raises(UserError, match="decoding the other 159 images"):
        training_images(data, "train", np.arange(160), resolution=16, cache_dir=tmp_path / "cache")


def test_a_limited_cache_drops_what_was_used_longest_ago(tree, tmp_path):
    data, reader = counted(opened(tree, tmp_path))
    size = 10 * 16 * 16 * 3

    def images(first, most):
        how = Decoding(cache_bytes=most)
        indices = np.arange(first, first + 10)
        return evaluation_images(data, "train", indices, view=study_view(16), cache_dir=tmp_path / "cache", how=how)

    room = 3 * size + 3_000  # three entries with their indices
    held = [images(first, room) for first in (0, 10, 20)]
    before = np.array(held[1].images_NHWC)
    entries = [entry for entry in (tmp_path / "cache/images").iterdir() if entry.is_dir()]
    for entry in entries:  # long ago, whatever the file system's clock
        for file in entry.iterdir():
            os.utime(file, (1e9, 1e9))
    images(0, room), images(20, room)
    assert reader.count == 30
    images(30, room)  # in place of 10 … 19
    assert reader.count == 40
    assert np.array_equal(held[1].images_NHWC, before)  # whoever has it open keeps it
    images(0, room), images(20, room)
    assert reader.count == 40
    images(10, room)
    assert reader.count == 50
    with pytest.raises(UserError, match="which cache_limit = 5e-06 GB does not hold"):
        images(100, 5_000)
    assert keep_newest(tmp_path / "cache", most=0)[0] == 3


@pytest.fixture
def fast_switches():
    """Threads take turns often, as processes do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("fast_switches")
def test_a_cache_can_be_looked_at_while_others_write_and_publish(tmp_path):
    entry, ends, looks = tmp_path / "images" / "0a.tmp", threading.Event(), 0
    most = 2 * 2 * 8 * len(b"four")  # a slow look may meet an entry and its files under both of their names

    def write():
        while not ends.is_set():
            entry.mkdir(parents=True, exist_ok=True)
            for number in range(8):
                (entry / f"chunk-{number}.tmp").write_bytes(b"four")
                (entry / f"chunk-{number}.tmp").rename(entry / f"chunk-{number}.npz")
            entry.rename(entry.with_suffix(""))
            shutil.rmtree(entry.with_suffix(""))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sizes = set()  # an entry under way, and none
        while len(sizes) < 2 or looks < 1_000:
            looks, (_, size) = looks + 1, contents(tmp_path)["images"]
            sizes.add(size)
            assert keep_newest(tmp_path, most=most) == (0, 0)
            assert looks < 100_000
    finally:
        ends.set()
        writer.join()
    assert max(sizes) <= most


def test_several_views_come_from_one_decoding_and_are_those_of_each(tree, tmp_path, monkeypatch, busy):
    truncate(tree / "train/cat/002.png")
    monkeypatch.setattr("sweep.data.decoded._MAX_BROKEN", 0.1)
    data, indices = opened(tree, tmp_path), np.random.default_rng(1).permutation(24)
    monkeypatch.setattr("sweep.data.partial._CHUNK_SECONDS", 0.0)  # every image is a chunk
    monkeypatch.setattr("sweep.data.parallel._MOST", 1)
    views = (study_view(16), 8, study_view(24), 24)
    apart, together = ({"cache_dir": tmp_path / name, "how": Decoding(2)} for name in ("apart", "together"))
    evaluation_images(data, "train", indices, view=study_view(24), **together)  # is there already, and stays
    reader = Dies(data.train.reader, at=18)  # is killed in the middle: the views differ in what they have
    with pytest.raises(KeyboardInterrupt):
        decode_views(replace(data, train=replace(data.train, reader=reader)), "train", indices, views=views, **together)
    left = sorted((tmp_path / "together/images").glob("*.tmp"))
    assert len(left) == 3
    (left[0] / "chunk-000003.npz").unlink()
    counted_data, counting = counted(data)
    decode_views(counted_data, "train", indices, views=views, **together)
    assert 24 - 18 <= counting.count <= 24 - 3
    for view in views:
        of_view = {"view": view} if isinstance(view, View) else {"resolution": view}
        images = evaluation_images if isinstance(view, View) else training_images
        one, other = (images(counted_data, "train", indices, **of_view, **each) for each in (apart, together))
        both = [getattr(each, "flat", getattr(each, "images_NHWC", None)) for each in (one, other)]
        assert np.array_equal(*both)
        assert (one.names, one.skipped) == (other.names, other.skipped)
        assert len(one) == 23


def test_a_limited_cache_decodes_once_for_as_many_views_as_it_holds(tree, tmp_path):
    data, reader = counted(opened(tree, tmp_path))
    views, size = (study_view(16), study_view(24)), 24 * 3 * (16**2 + 24**2)
    older = 10 * 3 * 16**2
    for spare, decodings, stays in ((older + 8_000, 1, True), (8_000, 1, False), (-1, 2, False)):
        about = {"cache_dir": tmp_path / str(spare), "how": Decoding(cache_bytes=size + spare)}
        evaluation_images(data, "train", np.arange(100, 110), view=study_view(16), **about)
        for file in (tmp_path / str(spare)).rglob("*.*"):
            os.utime(file, (1e9, 1e9))
        before = reader.count
        decode_views(data, "train", np.arange(24), views=views, **about)
        assert reader.count - before == 24 * decodings
        there = contents(tmp_path / str(spare))["images"]
        assert there[0] == (1 if decodings == 2 else 2) + stays
        assert there[1] <= size + spare + 3_000  # indices beside pixels


def test_what_one_node_decoded_others_fetch_whole_or_decode_themselves(tree, tmp_path, monkeypatch):
    truncate(tree / "train/cat/002.png")
    monkeypatch.setattr("sweep.data.shelf._PART_BYTES", 5_000)
    data, reader = counted(opened(tree, tmp_path))
    how = Decoding(shelf=Shelf(Store(str(tmp_path / "store"))))

    def crops(cache):
        images = training_images(data, "train", np.arange(160), resolution=8, cache_dir=tmp_path / cache, how=how)
        return np.array(images.flat), images.names, images.skipped

    first = crops("one")
    assert reader.count == 160
    again = crops("two")
    assert reader.count == 160
    assert np.array_equal(again[0], first[0])
    assert again[1:] == first[1:]
    parts = sorted((tmp_path / "store/decoded").rglob("*.u8"))
    assert len(parts) == -(-len(first[0]) // 5_000) > 10
    parts[3].unlink()  # lost on the way
    assert np.array_equal(crops("three")[0], first[0])
    assert reader.count == 320
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000))
    with pytest.raises(UserError, match="GB are free"):
        crops("four")


def test_a_decoder_that_crashes_is_told_with_its_files_and_what_was_done_is_kept(tree, tmp_path, monkeypatch, busy):
    data = opened(tree, tmp_path)
    monkeypatch.setattr("sweep.data.partial._CHUNK_SECONDS", 0.0)
    monkeypatch.setattr("sweep.data.parallel._MOST", 1)
    reader = Crashes(data.train.reader, at=20)
    wanted = {"view": study_view(16), "cache_dir": tmp_path / "cache", "how": Decoding(2)}
    with pytest.raises(OSError, match=rf"died of SIGSEGV, decoding one of {data.train.names[20]}"):
        evaluation_images(replace(data, train=replace(data.train, reader=reader)), "train", np.arange(40), **wanted)
    reader = Dies(data.train.reader)
    evaluation_images(replace(data, train=replace(data.train, reader=reader)), "train", np.arange(40), **wanted)
    assert len(reader.seen) <= 40 - 12


class Crashes:
    """Stands before a reader; decoding an image ends the process that does it, as a fault of a library would."""

    def __init__(self, reader, at):
        self.reader, self.at = reader, at

    def read_lazily(self, indices):
        for index, decode in self.reader.read_lazily(indices):
            yield index, partial(signal.raise_signal, signal.SIGSEGV) if index == self.at else decode
