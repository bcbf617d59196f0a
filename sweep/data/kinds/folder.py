"""The ``folder`` kind: an ImageFolder tree, or a ``.tar`` / ``.tar.gz`` of one read in place.

Layouts: ``train/CLASS/*`` beside one of ``test|val|valid|validation``, or ``CLASS/*`` alone, which is split here;
either may lie below a single top directory. Other files are ignored.

Legend: N samples of one split.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sweep.base.errors import UserError
from sweep.data.dataset import Dataset, Split
from sweep.data.decode import decode_image
from sweep.data.listing import ImageFile, list_images, open_tar
from sweep.data.options import DatasetOptions
from sweep.data.splits import capped, hold_out

_TEST_DIRECTORIES = ("test", "val", "valid", "validation")  # the first that is there


class _Sample(NamedTuple):
    file: ImageFile
    name: str  # path below the root of the dataset
    class_name: str


@dataclass(frozen=True, eq=False)
class _FolderReader:
    path: Path
    files: tuple[ImageFile, ...]

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        """Images with their indices in the order they are stored, or why one cannot be decoded."""
        order = sorted(indices, key=lambda index: (self.files[index].offset, self.files[index].path))
        if self.path.is_dir():
            for index in order:
                yield index, decode_image((self.path / self.files[index].path).read_bytes())
            return
        with open_tar(self.path) as stream:
            for index in order:  # by offset: one pass forward through a compressed archive
                stream.seek(self.files[index].offset)
                yield index, decode_image(stream.read(self.files[index].size))


def _below_root(files: list[ImageFile]) -> list[tuple[str, ImageFile]]:
    """Paths from the dataset's root on: a single top directory with directories in it is stepped over."""
    rows = [(file.path, file) for file in files]
    while len({path.split("/", 1)[0] for path, _ in rows if "/" in path}) == 1:
        if not any(path.count("/") >= 2 for path, _ in rows):
            break
        rows = [(path.split("/", 1)[1], file) for path, file in rows if "/" in path]
    return rows


def _samples(rows: list[tuple[str, ImageFile]], depth: int) -> list[_Sample]:
    """Samples whose class is directory ``depth`` of their path, sorted by name."""
    kept = [(name, file) for name, file in sorted(rows, key=lambda row: row[0]) if name.count("/") > depth]
    return [_Sample(file, name, name.split("/")[depth]) for name, file in kept]


def _find_parts(where: str, files: list[ImageFile]) -> tuple[list[_Sample], list[_Sample] | None]:
    """Train and test samples; test is None where the folder has no split directories."""
    rows = _below_root(files)
    tops = {name.split("/")[0] for name, _ in rows if name.count("/") >= 2}
    if "train" not in tops:
        if any(name.split("/")[1] == "train" for name, _ in rows if name.count("/") >= 2):
            raise UserError(f"{where}: train/ lies beside {', '.join(sorted(tops))}; give the directory that holds it")
        return _samples(rows, 0), None
    test_directory = next((name for name in _TEST_DIRECTORIES if name in tops), None)
    if test_directory is None:
        raise UserError(
            f"{where}: there is train/ but no test part; valid names: {', '.join(_TEST_DIRECTORIES)} "
            "(or give the folder that holds the class directories, to have it split)"
        )
    train = _samples([row for row in rows if row[0].startswith("train/")], 1)
    return train, _samples([row for row in rows if row[0].startswith(test_directory + "/")], 1)


def _check_classes(where: str, train: list[_Sample], test: list[_Sample] | None, declared: int | None) -> list[str]:
    names = sorted({sample.class_name for sample in train})
    if len(names) < 2:
        raise UserError(
            f"{where}: {len(names)} class directories with images found, at least 2 are needed; expected "
            "train/CLASS/* and test/CLASS/*, or CLASS/*"
        )
    if test is not None and (odd := set(names) ^ {sample.class_name for sample in test}):
        raise UserError(f"{where}: in only one of the train and test parts: classes {', '.join(sorted(odd))}")
    if declared is not None and declared != len(names):
        raise UserError(f"{where}: classes is declared as {declared}, but {len(names)} are there; correct it")
    return names


def _labels(samples: list[_Sample]) -> np.ndarray:
    """Class of each sample as its place among the sorted class names; int64."""
    _, labels_N = np.unique([sample.class_name for sample in samples], return_inverse=True)
    return labels_N.astype(np.int64)


def _split(path: Path, samples: list[_Sample]) -> Split:
    files = tuple(sample.file for sample in samples)
    return Split(_labels(samples), tuple(sample.name for sample in samples), _FolderReader(path, files))


def _cut(
    samples: list[_Sample], class_names: list[str], options: DatasetOptions
) -> tuple[list[_Sample], list[_Sample]]:
    """Stratified, seeded train and test part of a folder that has none."""
    held_N = hold_out(_labels(samples), fraction=options.test_fraction, seed=options.seed, class_names=class_names)
    train = [sample for sample, held in zip(samples, held_N, strict=True) if not held]
    return train, [sample for sample, held in zip(samples, held_N, strict=True) if held]


def _cap(samples: list[_Sample], limit: int | None, seed: int) -> list[_Sample]:
    """At most ``limit`` samples of each class, nested and seeded."""
    return [samples[index] for index in capped(_labels(samples), limit=limit, seed=seed)]


def _fingerprint(parts: dict[str, list[_Sample]]) -> str:
    """Digest of (part, class, file name below the root, bytes) of every sample, in order."""
    total = hashlib.sha256()
    for part, samples in parts.items():
        for sample in samples:
            fields = (part, sample.class_name, sample.name, sample.file.digest)
            total.update("\0".join(fields).encode(errors="surrogateescape") + b"\n")
    return total.hexdigest()


def open_folder(name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
    """Open an image folder or archive; decodes nothing, reads every byte once (then cached)."""
    if options.path is None:
        raise UserError(f"dataset {name!r}: kind folder needs a path")
    path = Path(options.path)
    where = f"dataset {name!r} at {path}"
    train, test = _find_parts(where, list_images(path, cache_dir=cache_dir))
    class_names = _check_classes(where, train, test, options.classes)
    note = "official"
    if test is None:
        train, test = _cut(train, class_names, options)
        percent = round(100 * options.test_fraction)
        note = f"stratified {100 - percent}/{percent}, seed {options.seed}"
    train = _cap(train, options.train_per_class, options.seed)
    test = _cap(test, options.test_per_class, options.seed)
    return Dataset(
        name=name,
        fingerprint=_fingerprint({"train": train, "test": test}),
        class_names=tuple(class_names),
        train=_split(path, train),
        test=_split(path, test),
        split_note=note,
    )
