"""Standard datasets read by torchvision, from small files laid out like the originals; fetched over real HTTP."""

import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from sweep import commands
from sweep.base.errors import UserError
from sweep.data.kinds.standard import STANDARD
from sweep.data.library import Library
from sweep.data.open import open_dataset
from sweep.data.options import TORCHVISION, DatasetOptions
from sweep.data.view import study_view
from sweep.study.check import read_config
from sweep.study.resolve import data_identities, dataset_options, sizes
from tests.original_files import ORIGINALS, PER_CLASS, image, jpeg, labels, md5

FILES = ("flowers102", "pets", "aircraft")  # an image is a JPEG file


def options(name, root, **more):
    return DatasetOptions("torchvision", generator=name, path=str(root), **more)


def test_every_standard_dataset_has_a_layout_here():
    assert set(ORIGINALS) == set(TORCHVISION) == set(STANDARD)


@pytest.mark.parametrize("name", TORCHVISION)
def test_original_files_are_read(name, tmp_path, monkeypatch):
    classes = ORIGINALS[name](tmp_path, monkeypatch)
    dataset = open_dataset("mine", options(name, tmp_path), cache_dir=tmp_path / "cache")
    assert len(dataset.class_names) == classes
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        assert split.labels.tolist() == labels(part, classes).tolist()
        for label in (0, classes - 1):
            index = split.labels.tolist().index(label)
            side = {"stl10": 96}.get(name, 32)
            expected = Image.open(io.BytesIO(jpeg(label))).convert("RGB") if name in FILES else image(label, side)
            assert np.array_equal(np.asarray(split.read(index)), np.asarray(expected))


@pytest.mark.parametrize("name", ["cifar10", "pets"])
def test_the_fingerprint_is_of_the_content_that_is_used(name, tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    ORIGINALS[name](first, monkeypatch)
    ORIGINALS[name](second, monkeypatch)
    opened = [
        open_dataset("mine", options(name, root, **caps), cache_dir=tmp_path / "cache")
        for root, caps in ((first, {}), (second, {}), (second, {"train_per_class": 2}))
    ]
    assert opened[0].fingerprint == opened[1].fingerprint != opened[2].fingerprint
    assert np.bincount(opened[2].train.labels).tolist() == [2] * len(opened[2].class_names)


def test_a_changed_image_is_another_dataset_and_a_broken_one_is_named(tmp_path, monkeypatch):
    ORIGINALS["pets"](tmp_path, monkeypatch)
    before = open_dataset("mine", options("pets", tmp_path), cache_dir=tmp_path / "cache")
    (tmp_path / "oxford-iiit-pet/images/Abyssinian_train0.jpg").write_bytes(b"\xff\xd8 cut short")
    after = open_dataset("mine", options("pets", tmp_path), cache_dir=tmp_path / "cache")
    assert before.fingerprint != after.fingerprint
    read = dict(after.train.read_many(range(len(after.train))))
    assert isinstance(read[0], Exception)
    assert sum(isinstance(found, Exception) for found in read.values()) == 1


def test_missing_images_are_counted(tmp_path, monkeypatch):
    ORIGINALS["aircraft"](tmp_path, monkeypatch)
    (tmp_path / "fgvc-aircraft-2013b/data/images/train3.jpg").unlink()
    with pytest.raises(UserError, match=r"1 images are not there.*train3\.jpg"):
        open_dataset("mine", options("aircraft", tmp_path), cache_dir=tmp_path / "cache")


def test_a_wrong_checksum_is_refused(tmp_path, monkeypatch):
    ORIGINALS["cifar10"](tmp_path, monkeypatch)
    with open(tmp_path / "cifar-10-batches-py/data_batch_3", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="incomplete or damaged"):
        open_dataset("mine", options("cifar10", tmp_path), cache_dir=tmp_path / "cache")


def test_absent_files_without_download(tmp_path):
    with pytest.raises(UserError, match="set download: true"):
        open_dataset("mine", options("pets", tmp_path), cache_dir=tmp_path / "cache")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """CIFAR-10's archive on a real HTTP server, where torchvision then looks for it; the directory to fetch into."""
    origin = tmp_path / "origin"
    ORIGINALS["cifar10"](origin, monkeypatch)
    archive = origin / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(origin / "cifar-10-batches-py", "cifar-10-batches-py")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(origin))

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    yield tmp_path / "fetched"
    server.shutdown()
    server.server_close()


def test_a_download_is_checked_and_done_once(served, tmp_path, monkeypatch):
    fetch = options("cifar10", served, download=True)
    first = open_dataset("mine", fetch, cache_dir=tmp_path / "cache")
    assert len(first.train) == 10 * PER_CLASS["train"]
    assert [path.name for path in served.iterdir() if path.is_dir()] == ["cifar-10-batches-py"]
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/gone")
    assert open_dataset("mine", fetch, cache_dir=tmp_path / "cache").fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("tgz_md5", "0" * 32, "corrupted.*what came is not what its publisher put there"),
        ("url", "http://127.0.0.1:9/gone", "refused.*without a network, copy"),
        ("url", "missing", "404.*the host answered, without the file"),
    ],
)
def test_a_failed_download_is_told_by_its_cause_and_leaves_nothing(
    served, tmp_path, monkeypatch, attribute, value, says
):
    monkeypatch.setattr(datasets.CIFAR10, attribute, f"{datasets.CIFAR10.url}.gone" if value == "missing" else value)
    with pytest.raises(UserError, match=f"(?is)cannot download CIFAR10.*{says}"):
        open_dataset("mine", options("cifar10", served, download=True), cache_dir=tmp_path / "cache")
    assert not [path for path in served.iterdir() if path.is_dir()]


def write(tmp_path, datasets_section):
    path = tmp_path / "config.yaml"
    grid = "grid: [{architecture: vggm11, id_dataset: cifar10, width: 0.125}]"
    path.write_text(f"name: t\n{grid}\ncache_dir: {tmp_path / 'cache'}\ndatasets:\n{datasets_section}\n")
    return path


def test_a_config_needs_no_more_than_download(tmp_path, monkeypatch):
    config = read_config(write(tmp_path, "  cifar10: {download: true}"), need_data=True)
    found = dataset_options(config, "cifar10")
    assert (found.kind, found.generator, found.download) == ("torchvision", "cifar10", True)
    assert sizes(config, "cifar10") == (10, 50_000, 10_000)
    ORIGINALS["cifar10"](tmp_path / "cache/downloads/torchvision", monkeypatch)
    assert len(data_identities(config, ["cifar10"])["cifar10"]) > 64
    library = Library({"cifar10": found}, str(tmp_path / "cache"))
    assert library.images("cifar10", study_view(32)).train_NHWC.shape == (50, 32, 32, 3)


def test_a_plan_fetches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: pytest.fail("a plan fetched files"))
    text = commands.plan(read_config(write(tmp_path, "  cifar10: {download: true}")), str(tmp_path / "out"))
    assert "already done: not known (dataset 'cifar10': no directory cifar-10-batches-py" in text


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("cifar10: {source: torchvision/cifar11}", "no such dataset of torchvision"),
        ("cifar10: {source: kaggle/cifar10}", "no such source"),
        ("cifar10: {path: ., download: true, generator: glyphs}", "has no meaning beside"),
        ("mine: {download: true}", "give a source"),
        ("mine: {source: hfds/beans}", "comes over the network"),
        ("mine: {source: hfds}", "either a name of the hub"),
        ("mine: {source: wds/beans}", "source: wds and its path"),
        ("mine: {path: ., train_split: train}", "hfds and wds only"),
        ("cifar10: {source: torchvision/cifar10, classes: 9}", "knows how many classes"),
        ("cifar10: {source: torchvision/cifar10, path: nowhere}", "no such file or folder"),
        ("cifar10: {}", "or download: true"),
    ],
)
def test_impossible_sources_are_answered_at_once(tmp_path, entry, says):
    with pytest.raises(UserError, match=says):
        read_config(write(tmp_path, f"  {entry}"), need_data=True)
