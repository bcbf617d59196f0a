"""The ``builtin`` kind: image sets generated from a seed, no files needed.

Legend: N samples of one split.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sweep import register
from sweep.base.errors import UserError
from sweep.data.dataset import Dataset, Split
from sweep.data.kinds.builtin.generator import Generator
from sweep.data.options import DatasetOptions, Part

_BATCH = 256  # images rendered at once: enough to amortise numpy's overhead, little memory


@dataclass(frozen=True, eq=False)
class _GeneratedReader:
    generator: Generator
    part: Part
    per_class: int
    size: int
    seed: int

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        wanted = np.asarray(list(indices), dtype=np.int64)
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            classes_N, indices_N = np.divmod(batch, self.per_class)
            images = self.generator.render(self.part, classes_N, indices_N, size=self.size, seed=self.seed)
            for index, pixels in zip(batch.tolist(), images, strict=True):
                yield index, Image.fromarray(pixels)


def _generator(name: str, options: DatasetOptions) -> Generator:
    generator = register.find_ours("dataset", options.generator)
    if generator is None:
        raise UserError(
            f"dataset {name!r}: generator {options.generator!r} is unknown; "
            f"valid generators: {', '.join(sorted(register.OURS['dataset']))}"
        )
    return generator


def _resolve(name: str, generator: Generator, options: DatasetOptions) -> dict[str, int]:
    """Options with the generator's defaults filled in, checked."""
    resolved = {
        key: getattr(generator, key) if getattr(options, key) is None else getattr(options, key)
        for key in ("classes", "train_per_class", "test_per_class", "size")
    }
    where = f"dataset {name!r} (generator {generator.name})"
    for key, value in resolved.items():
        if value < 1:
            raise UserError(f"{where}: {key} is {value}; it must be at least 1")
    if generator.max_classes is not None and resolved["classes"] > generator.max_classes:
        raise UserError(f"{where}: {resolved['classes']} classes asked for, it has {generator.max_classes}")
    per_class = resolved["train_per_class"] + resolved["test_per_class"]
    if generator.max_per_class is not None and per_class > generator.max_per_class:
        raise UserError(
            f"{where}: train_per_class + test_per_class is {per_class}, "
            f"but its smallest class has {generator.max_per_class} images; lower either"
        )
    if generator.fixed_size and resolved["size"] != generator.size:
        raise UserError(f"{where}: its images are {generator.size} px; leave size out, they are resized on use")
    return resolved


def _split(part: Part, per_class: int, resolved: dict[str, int], generator: Generator, seed: int) -> Split:
    class_names = [generator.class_name(label) for label in range(resolved["classes"])]
    return Split(
        labels=np.repeat(np.arange(len(class_names), dtype=np.int64), per_class),
        names=tuple(f"{part}/{name}/{index:05d}" for name in class_names for index in range(per_class)),
        reader=_GeneratedReader(generator, part, per_class, resolved["size"], seed),
    )


def open_builtin(name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
    """Open a generated dataset; nothing is drawn yet and ``cache_dir`` is not used."""
    generator = _generator(name, options)
    resolved = _resolve(name, generator, options)
    identity = [generator.name, generator.version, generator.ingredients(), options.seed, resolved]
    return Dataset(
        name=name,
        fingerprint=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        class_names=tuple(generator.class_name(label) for label in range(resolved["classes"])),
        train=_split("train", resolved["train_per_class"], resolved, generator, options.seed),
        test=_split("test", resolved["test_per_class"], resolved, generator, options.seed),
        split_note="official",
    )
