"""The ``folder`` kind: an image folder, or a ``.tar`` / ``.tar.gz`` of one read in place.

Layouts: class directories (:mod:`sweep.data.layouts.classes`), or the original files of a known dataset
(:mod:`sweep.data.layouts.originals`), which are told by their list files whatever the dataset is called.

Legend: N samples of one split.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from sweep.base.errors import UserError
from sweep.data.dataset import Dataset, Split
from sweep.data.groups import codes, group_names, grouping
from sweep.data.layouts.classes import class_directories
from sweep.data.layouts.originals import original
from sweep.data.layouts.parts import Parts, Sample
from sweep.data.layouts.synsets import only_asked_classes, only_sheets_classes
from sweep.data.options import DatasetOptions
from sweep.data.pixels import pixels_identity
from sweep.data.place import ImageReader, open_place
from sweep.data.splits import capped, hold_out


def _check_classes(where: str, train: list[Sample], test: list[Sample] | None, declared: int | None) -> list[str]:
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


def _labels(samples: list[Sample]) -> np.ndarray:
    """Class of each sample as its place among the sorted class names; int64."""
    _, labels_N = np.unique([sample.class_name for sample in samples], return_inverse=True)
    return labels_N.astype(np.int64)


def _for_people(name: str) -> str:
    r"""A file's name as text: bytes that are no UTF-8 (a zip from Windows) as ``\xee``, so that any table holds it."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _split(path: Path, samples: list[Sample], parts: Parts, options: DatasetOptions) -> Split:
    files = tuple(sample.file for sample in samples)
    reader = parts.reader(samples) if parts.reader else ImageReader(path, files, options.background)
    names = tuple(_for_people(sample.name) for sample in samples)
    return Split(_labels(samples), names, reader, tuple(file.digest for file in files))


def _groups(where: str, samples: list[Sample], options: DatasetOptions) -> np.ndarray | None:
    """Group of each sample; None where the dataset has none."""
    names = [sample.name for sample in samples]
    found = group_names(where, names, options)
    return None if found is None else codes(where, names, found)


def _shared_groups(where: str, train: list[Sample], test: list[Sample], options: DatasetOptions) -> tuple[str, ...]:
    """A note where an official test part shares groups with the training part, or nothing is known of it."""
    parts = [group_names(where, [sample.name for sample in samples], options) or [] for samples in (train, test)]
    both = {group for group in parts[0] if group is not None} & set(parts[1])
    of_both = sum(group in both for group in parts[1])
    if not both:
        return ()
    return (f"{of_both} of {len(test)} test images are of groups that the training part has too ({len(both)} groups)",)


def _cut(
    where: str, samples: list[Sample], class_names: list[str], options: DatasetOptions
) -> tuple[list[Sample], list[Sample]]:
    """Stratified, seeded train and test part of a folder that has none; no group is in both."""
    held_N = hold_out(
        _labels(samples),
        fraction=options.test_fraction,
        seed=options.seed,
        class_names=class_names,
        groups_N=_groups(where, samples, options),
    )
    train = [sample for sample, held in zip(samples, held_N, strict=True) if not held]
    return train, [sample for sample, held in zip(samples, held_N, strict=True) if held]


def _cap(samples: list[Sample], limit: int | None, seed: int) -> list[Sample]:
    """At most ``limit`` samples of each class, nested and seeded."""
    return [samples[index] for index in capped(_labels(samples), limit=limit, seed=seed)]


def _fingerprint(parts: dict[str, list[Sample]]) -> str:
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
    place = open_place(path, cache_dir=cache_dir)
    parts = only_sheets_classes(name, original(where, place) or class_directories(where, place))
    parts = only_asked_classes(where, parts, options.only)
    train, test = parts.train, parts.test
    class_names = _check_classes(where, train, test, options.classes)
    note = "official"
    if test is None:
        train, test = _cut(where, train, class_names, options)
        percent = round(100 * options.test_fraction)
        note = f"stratified {100 - percent}/{percent}, seed {options.seed}"
        note += ", by group" if options.groups or options.groups_list else ""
    train = _cap(train, options.train_per_class, options.seed)
    test = _cap(test, options.test_per_class, options.seed)
    groups_N = _groups(where, train, options)
    return Dataset(
        name=name,
        fingerprint=_fingerprint({"train": train, "test": test}),
        class_names=tuple(map(_for_people, class_names)),
        train=replace(_split(path, train, parts, options), groups=groups_N),
        test=_split(path, test, parts, options),
        split_note=note,
        pixels=pixels_identity({sample.file.odd for sample in (*train, *test) if sample.file.odd}, options.background),
        notes=(
            f"read as {parts.layout}",
            *parts.notes,
            *_shared_groups(where, train, test, options),
            *place.left_out(),
        ),
        grouping="" if groups_N is None else grouping(groups_N),
    )
