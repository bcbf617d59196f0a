"""The ``plugin`` kind: datasets that a user's module registered.

Legend: N samples of one split, H, W pixels.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from sweep import register
from sweep.base.errors import UserError
from sweep.data.dataset import Dataset, Split
from sweep.data.options import DatasetOptions

_NOT_DECIDING = ("path", "background")  # pixels are a plug-in's own affair
_PARTS: tuple[Literal["train", "test"], ...] = ("train", "test")


@dataclass(frozen=True, eq=False)
class _Reader:
    samples: register.Samples

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        for index in indices:
            try:
                yield int(index), _image(self.samples.read(int(index)))
            except Exception as error:  # a user's code may raise anything; the caller counts broken images
                yield int(index), error


def _image(pixels: object) -> Image.Image:
    if isinstance(pixels, Image.Image):
        return pixels.convert("RGB")
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return Image.fromarray(pixels)
    shape = f"{pixels.dtype} array {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    raise TypeError(f"an image must be a PIL image or a uint8 array (H, W, 3), not {shape}")


def _split(
    name: str, part: Literal["train", "test"], plugin: register.Plugin, options: DatasetOptions
) -> tuple[Split, str]:
    """One part and the digest of its files; its labels are checked: every class from 0 on has images."""
    where = f"dataset {name!r} ({plugin.label} of {plugin.module})"
    samples = plugin.make(part, options)
    if not isinstance(samples, register.Samples):
        raise UserError(f"{where} gives a {type(samples).__name__}, not sweep.plugins.Samples")
    labels_N = np.asarray(samples.labels, dtype=np.int64)
    if labels_N.ndim != 1 or not np.array_equal(np.unique(labels_N), np.arange(options.classes or 0)):
        raise UserError(f"{where}: the {part} labels must be 0 to {(options.classes or 0) - 1}, each with images")
    if options.path is not None and not samples.fingerprint:
        raise UserError(f"{where}: files decide its images, so Samples needs a fingerprint of what is read from them")
    names = tuple(f"{part}/{label}/{index:06d}" for index, label in enumerate(labels_N.tolist()))
    return Split(labels_N, names, _Reader(samples)), samples.fingerprint


def open_registered(name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
    """Ask a plug-in for its samples; ``cache_dir`` is not used."""
    plugin = register.find_plugin("dataset", options.generator)
    if plugin is None:
        registered = ", ".join(register.plugin_names("dataset")) or "none"
        raise UserError(f"dataset {name!r}: {options.generator!r} is not registered (there is {registered})")
    facts = plugin.facts
    filled = replace(
        options,
        classes=options.classes or facts["classes"],
        train_per_class=options.train_per_class or facts["train"] // facts["classes"],
        test_per_class=options.test_per_class or facts["test"] // facts["classes"],
    )
    (train, train_files), (test, test_files) = (_split(name, part, plugin, filled) for part in _PARTS)
    decided = [plugin.code, {key: value for key, value in asdict(filled).items() if key not in _NOT_DECIDING}]
    found = [train.names, train_files, test.names, test_files]
    return Dataset(
        name=name,
        fingerprint=hashlib.sha256(json.dumps([*decided, *found]).encode()).hexdigest(),
        class_names=tuple(map(str, range(filled.classes or 0))),
        train=train,
        test=test,
        split_note="official",
    )
