"""Datasets whose images are records of a binary file: STL-10, CIFAR-10 and CIFAR-100 in their binary version.

Legend: N records, H, W pixels.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sweep.base.errors import UserError
from sweep.data.archive import open_tar
from sweep.data.layouts.parts import Parts, Sample
from sweep.data.listing import ImageFile
from sweep.data.place import Place

_CIFAR_SIDE, _STL_SIDE = 32, 96
_CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))


@dataclass(frozen=True, eq=False)
class RecordReader:
    """Images that are records: channel planes of rows (CIFAR) or of columns (STL-10)."""

    path: Path
    records: tuple[ImageFile, ...]
    side: int
    by_columns: bool

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        """Images with their indices, file by file and record by record."""
        order = sorted(indices, key=lambda index: (self.records[index].path, self.records[index].offset))
        for name, group in itertools.groupby(order, key=lambda index: self.records[index].path):
            with open(self.path / name, "rb") if self.path.is_dir() else open_tar(self.path) as stream:
                for index in group:
                    stream.seek(self.records[index].offset)
                    yield index, self._image(stream.read(self.records[index].size))

    def _image(self, record: bytes) -> Image.Image:
        planes_CHW = np.frombuffer(record, dtype=np.uint8).reshape(3, self.side, self.side)
        axes = (2, 1, 0) if self.by_columns else (1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(planes_CHW.transpose(axes)))


def _records(place: Place, name: str, data: bytes, *, skip: int, size: int) -> list[ImageFile]:
    """The images of a binary file, each after ``skip`` bytes of labels."""
    start = 0 if place.is_tree else place.others[name].offset
    offsets = range(skip, len(data), skip + size)
    return [
        ImageFile(name, size, start + offset, hashlib.sha256(data[offset : offset + size]).hexdigest())
        for offset in offsets
    ]


def _whole(where: str, name: str, data: bytes, record: int) -> bytes:
    if not data or len(data) % record:
        raise UserError(f"{where}: {name} has {len(data):,} bytes, no multiple of {record:,}: it is cut short")
    return data


def _parts(place: Place, train: list[Sample], test: list[Sample], layout: str, side: int, columns: bool) -> Parts:
    def reader(samples: Sequence[Sample]) -> RecordReader:
        """The reader of some of these samples."""
        return RecordReader(place.path, tuple(sample.file for sample in samples), side, columns)

    return Parts(train, test, layout, reader=reader)


def stl10_binaries(where: str, place: Place) -> Parts | None:
    """STL-10: ``train_X.bin``, ``train_y.bin`` (labels from 1) and the same of the test part."""
    files = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
    homes = place.homes(*files)
    if not homes:
        return None
    home, size = homes[0], 3 * _STL_SIDE**2
    place.load(*(home + file for file in files))
    names = place.lines(home + "class_names.txt")
    found = {}
    for part in ("train", "test"):
        images = f"{home}{part}_X.bin"
        labels_N = np.frombuffer(place.read(f"{home}{part}_y.bin"), dtype=np.uint8).astype(np.int64) - 1
        records = _records(place, images, _whole(where, images, place.read(images), size), skip=0, size=size)
        _check_labels(where, images, records, labels_N, names)
        found[part] = _named(part, records, labels_N, names)
    return _parts(place, found["train"], found["test"], "STL-10 (binary)", _STL_SIDE, True)


def cifar_binaries(where: str, place: Place) -> Parts | None:
    """CIFAR-10 and CIFAR-100 in their binary version: one or two label bytes, then three planes of rows."""
    tens = place.homes("batches.meta.txt", *_CIFAR10_TRAIN, "test_batch.bin")
    hundreds = place.homes("fine_label_names.txt", "train.bin", "test.bin")
    if not tens and not hundreds:
        _refuse_pickles(where, place)
        return None
    home, skip = (tens[0], 1) if tens else (hundreds[0], 2)  # CIFAR-100: a coarse label, then the fine one
    files = {"train": _CIFAR10_TRAIN, "test": ("test_batch.bin",)} if tens else _CIFAR100_FILES
    name_list = home + ("batches.meta.txt" if tens else "fine_label_names.txt")
    place.load(name_list, *(home + batch for batches in files.values() for batch in batches))
    names = place.lines(name_list)
    size, found = 3 * _CIFAR_SIDE**2, {}
    for part, batches in files.items():
        records, labels = [], []
        for name in (home + batch for batch in batches):
            data = _whole(where, name, place.read(name), skip + size)
            records += _records(place, name, data, skip=skip, size=size)
            labels.append(np.frombuffer(data, dtype=np.uint8)[skip - 1 :: skip + size].astype(np.int64))
        labels_N = np.concatenate(labels)
        _check_labels(where, home + batches[0], records, labels_N, names)
        found[part] = _named(part, records, labels_N, names)
    title = "CIFAR-10 (binary)" if tens else "CIFAR-100 (binary)"
    return _parts(place, found["train"], found["test"], title, _CIFAR_SIDE, False)


_CIFAR100_FILES = {"train": ("train.bin",), "test": ("test.bin",)}


def _check_labels(where: str, name: str, records: list[ImageFile], labels_N: np.ndarray, names: list[str]) -> None:
    if len(records) != len(labels_N):
        raise UserError(f"{where}: {name} has {len(records)} images and {len(labels_N)} labels; fetch the set again")
    if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < len(names):
        raise UserError(f"{where}: labels of {name} do not fit the {len(names)} class names; fetch the set again")


def _named(part: str, records: list[ImageFile], labels_N: np.ndarray, names: list[str]) -> list[Sample]:
    return [
        Sample(record, f"{part}/{index:06d}", names[label])
        for index, (record, label) in enumerate(zip(records, labels_N.tolist(), strict=True))
    ]


def _refuse_pickles(where: str, place: Place) -> None:
    """The Python version of CIFAR is read by torchvision, which compares it with the publisher's checksums."""
    for name, marks in (("cifar10", ("batches.meta", "data_batch_1")), ("cifar100", ("meta", "train", "test"))):
        if not place.images and place.homes(*marks):
            raise UserError(
                f"{where} holds the Python version of {name}; give the directory above it and set "
                f"source: torchvision/{name}"
            )
