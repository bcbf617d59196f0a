"""The ``torchvision`` kind: standard datasets in their original files, found, checked and read by torchvision.

Torchvision compares the files with the checksums of their publishers, but for Pets (where it checks the archives it
fetches) and Aircraft (nothing). A download goes into a directory aside and gets its name when it is whole.

Legend: N samples of one part, H, W pixels.
"""

import functools
import hashlib
import importlib
import shutil
import urllib.error
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sweep.base.errors import UserError
from sweep.data.dataset import Dataset, Decode, Split
from sweep.data.decode import decode_image
from sweep.data.files import aside, locked
from sweep.data.listing import ImageFile, list_tree
from sweep.data.options import TORCHVISION, Background, DatasetOptions, Part
from sweep.data.pixels import pixels_identity
from sweep.data.splits import capped


@dataclass(frozen=True)
class _Standard:
    """A class of :mod:`torchvision.datasets`: its directory, arguments for each part, where labels and images are."""

    name: str
    directory: str
    parts: Mapping[Part, Mapping[str, Any]]
    labels: str
    images: str  # attribute of an array of pixels, or of paths

    def read(self, root: Path, part: Part, *, download: bool = False) -> Any:
        """The part as torchvision reads it; RuntimeError if files are missing or damaged."""
        made = getattr(importlib.import_module("torchvision.datasets"), self.name)
        return made(str(root), **self.parts[part], download=download)


def _splits(train: str, test: str) -> Mapping[Part, Mapping[str, Any]]:
    return {"train": {"split": train}, "test": {"split": test}}


_CIFAR: Mapping[Part, Mapping[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
STANDARD: Mapping[str, _Standard] = dict(
    zip(
        TORCHVISION,
        (  # parts as in protocol §7
            _Standard("CIFAR10", "cifar-10-batches-py", _CIFAR, "targets", "data"),
            _Standard("CIFAR100", "cifar-100-python", _CIFAR, "targets", "data"),
            _Standard("STL10", "stl10_binary", _splits("train", "test"), "labels", "data"),
            _Standard("Flowers102", "flowers-102", _splits("train", "val"), "_labels", "_image_files"),
            _Standard("OxfordIIITPet", "oxford-iiit-pet", _splits("trainval", "test"), "_labels", "_images"),
            _Standard("FGVCAircraft", "fgvc-aircraft-2013b", _splits("trainval", "test"), "_labels", "_image_files"),
        ),
        strict=True,
    )
)


@dataclass(frozen=True, eq=False)
class _Reader:
    samples: Any
    paths: Sequence[Path] | None  # of image files; None where the images are an array
    indices_N: np.ndarray
    background: Background

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        return ((index, decode()) for index, decode in self.read_lazily(indices))

    def read_lazily(self, indices: Iterable[int]) -> Iterator[tuple[int, Decode]]:
        for index in sorted(indices):
            own = int(self.indices_N[index])
            if self.paths is None:
                yield index, functools.partial(_in_memory, self.samples[own][0])
            else:
                yield index, functools.partial(_decode_file, self.paths[own], self.background)


def _in_memory(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _decode_file(file: Path, background: Background) -> Image.Image | Exception:
    try:
        return decode_image(file.read_bytes(), background)
    except OSError as error:  # one file that cannot be read; the caller counts and names broken images
        return error


def _advice(error: Exception, standard: _Standard, root: Path) -> str:
    """What to do about a download that failed, by its cause."""
    if isinstance(error, RuntimeError):
        return f"what came is not what its publisher put there; try again, or copy {standard.directory} into {root}"
    if isinstance(error, urllib.error.HTTPError):
        return f"the host answered, without the file; try again later, or copy {standard.directory} into {root}"
    if isinstance(error, urllib.error.URLError | ConnectionError | TimeoutError):
        return (
            f"without a network, copy its directory {standard.directory} into {root} from a machine that has one, or "
            "set a proxy ($https_proxy)"
        )
    return f"mend that, and look at the free space and the rights of {root}"


def _download(where: str, standard: _Standard, root: Path) -> None:
    """Fetch into a directory aside, then give it its name."""
    home = root / standard.directory
    temporary = aside(home)
    with locked(home):
        if home.exists():
            return  # fetched by another process in the meantime
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            standard.read(temporary, "train", download=True)
            (temporary / standard.directory).replace(home)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum is a RuntimeError
            raise UserError(
                f"{where}: torchvision cannot download {standard.name}: {error}; {_advice(error, standard, root)}"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _read(where: str, standard: _Standard, root: Path, part: Part, *, download: bool) -> Any:
    home = root / standard.directory
    if download and not home.exists():
        _download(where, standard, root)
    if not home.exists():
        raise UserError(f"{where}: no directory {standard.directory} in {root}; set download: true to have it fetched")
    try:
        return standard.read(root, part)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{where}: {home} is incomplete or damaged ({error}); remove it and have it fetched again"
        ) from error


def _content(where: str, standard: _Standard, samples: Any, home: Path, cache_dir: Path) -> list[ImageFile]:
    """Each image of a part with a digest: of its pixels, or of its file."""
    images = getattr(samples, standard.images)
    if isinstance(images, np.ndarray):
        digests = (hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() for pixels in images)
        return [ImageFile("", 0, 0, digest) for digest in digests]
    files = {home / file.path: file for file in list_tree(home, cache_dir=cache_dir).images}
    missing = [str(path) for path in map(Path, images) if path not in files]
    if missing:
        raise UserError(f"{where}: {len(missing)} images are not there, the first is {missing[0]}; fetch the set again")
    return [files[Path(path)] for path in images]


def open_standard(name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
    """Open a standard dataset below ``options.path``; no JPEG is decoded."""
    standard = STANDARD[str(options.generator)]
    root = Path(str(options.path))
    where = f"dataset {name!r}"
    total = hashlib.sha256()
    splits: dict[Part, Split] = {}
    class_names: tuple[str, ...] = ()
    odd: set[str] = set()
    for part in standard.parts:
        samples = _read(where, standard, root, part, download=options.download)
        labels_N = np.asarray(getattr(samples, standard.labels), dtype=np.int64)
        limit = options.train_per_class if part == "train" else options.test_per_class
        kept_N = capped(labels_N, limit=limit, seed=options.seed)
        files = _content(where, standard, samples, root / standard.directory, cache_dir)
        for index in kept_N.tolist():
            total.update(f"{part} {labels_N[index]} {files[index].digest}\n".encode())
        odd |= {files[index].odd for index in kept_N.tolist()} - {""}
        names = tuple(f"{part}/{index:06d}" for index in kept_N.tolist())
        images = getattr(samples, standard.images)
        paths = None if isinstance(images, np.ndarray) else tuple(map(Path, images))
        reader = _Reader(samples, paths, kept_N, options.background)
        digests = tuple(files[index].digest for index in kept_N.tolist())
        splits[part] = Split(labels_N[kept_N], names, reader, digests)
        class_names = tuple(map(str, samples.classes))
    pixels = pixels_identity(odd, options.background)
    return Dataset(name, total.hexdigest(), class_names, splits["train"], splits["test"], "official", pixels)
