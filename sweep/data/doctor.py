"""The doctor of datasets: what is there against the fact sheet, whether it can be read, what stands in it twice.

Legend: N images of a part.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from sweep.base.errors import UserError
from sweep.data.copies import equal_pairs, near_pairs, repeated
from sweep.data.dataset import Dataset, Split
from sweep.data.decoded import Part, part_of
from sweep.data.facts import Archive, Sheet, sheets
from sweep.data.looks import Look, looks
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from sweep.data.overlap import shared_classes
from sweep.data.tree import suffix

SAMPLE = 400  # images of a part that are decoded unless all are asked for
_HASHED = 5_000_000_000  # bytes of an archive that is hashed without being asked: some seconds
_MAX_BROKEN = 0.01  # share of a part, as a run allows
_PARTS: tuple[Part, ...] = ("train", "test")

Level = Literal["fault", "warning", "note"]
Image = tuple[str, int, np.ndarray]  # name, difference hash, thumbnail


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor says of a dataset; a fault is what a study must not run on."""

    level: Level
    text: str


@dataclass(frozen=True)
class Report:
    """What was found of a dataset; ``dataset`` is None where it could not be opened."""

    name: str
    findings: tuple[Finding, ...]
    dataset: Dataset | None

    @property
    def is_sound(self) -> bool:
        """No fault was found."""
        return not any(finding.level == "fault" for finding in self.findings)


def examine(
    name: str,
    options: DatasetOptions,
    *,
    cache_dir: Path,
    sheet: Sheet | None = None,
    everything: bool = False,
    each: Callable[[str], None] = lambda text: None,
) -> Report:
    """Examine one dataset.

    Parameters
    ----------
    sheet : what it should be; default: the sheet of its name, or none.
    everything : decode every image and hash every archive; else a sample, and what is quick.
    each : told what is being done.
    """
    sheet = sheet or sheets().get(name) or sheets().get(options.generator or "")
    if options.path is None and options.kind == "folder":
        fetch = f"; python -m sweep.data fetch {name} --to DIR gets it" if name in sheets() else ""
        return Report(name, (Finding("fault", f"not here: datasets.{name}.path is not set{fetch}"),), None)
    each(f"{name}: listing")
    archives = list(_archives(sheet, options, everything=everything, each=each)) if sheet else []
    try:
        declared = None if options.kind == "folder" else options.classes  # the sheet is what it is compared with
        asked = replace(options, classes=declared, download=False)  # the doctor fetches nothing
        dataset = open_dataset(name, asked, cache_dir=cache_dir)
    except UserError as error:
        return Report(name, (Finding("fault", str(error)), *archives), None)
    findings = [Finding("note", note) for note in dataset.notes]
    if dataset.pixels:
        findings.append(
            Finding("note", f"it has images that a viewer shows otherwise than they are stored: {dataset.pixels}")
        )
    if sheet is not None:
        findings += [*_counts(dataset, sheet, options), *_encoding(dataset, sheet)]
    findings += [*_readable(dataset, everything, sheet, each), *_repeated(dataset, sheet)]
    agrees = not any(finding.level == "fault" for finding in findings)
    findings += [_repacked(finding) if agrees else finding for finding in archives]
    return Report(name, tuple(findings), dataset)


def _repacked(finding: Finding) -> Finding:
    """An archive of another hash whose content agrees with the sheet: hosts repack."""
    if finding.level != "fault":
        return finding
    return Finding(
        "warning", finding.text + "; what was read of the dataset agrees with its sheet: repacked by a host?"
    )


def _counts(dataset: Dataset, sheet: Sheet, options: DatasetOptions) -> Iterator[Finding]:
    """Classes and images against the sheet; a known copy that is not the official set is named."""
    found = (len(dataset.train), len(dataset.test))
    capped = options.train_per_class or options.test_per_class
    yield from _classes(dataset, sheet)
    expected = (sheet.train, sheet.test)
    if capped:
        yield Finding("note", f"{found[0]:,} + {found[1]:,} images: a cap per class chooses them")
        return
    for copy in sheet.copies:
        if found == (copy.train, copy.test):
            yield Finding("fault", f"{found[0]:,} + {found[1]:,} images: not the official set but {copy.what}")
            return
    if sheet.total is not None and sum(found) == sheet.total:
        if dataset.split_note == "official":
            yield Finding("warning", f"it has split directories of its own; {sheet.split}")
        return
    if found != expected:
        total = f" ({sheet.total:,} in all)" if sheet.total else ""
        yield Finding(
            "fault", f"{found[0]:,} + {found[1]:,} images, the sheet has {sheet.train:,} + {sheet.test:,}{total}"
        )
        if found == expected[::-1]:
            yield Finding("fault", "the training and the test part are exchanged")
    for part in _PARTS:
        yield from _per_class(dataset, part, sheet)


def _classes(dataset: Dataset, sheet: Sheet) -> Iterator[Finding]:
    """The number of classes, and which of the sheet's are missing where it names them."""
    if len(dataset.class_names) != sheet.classes:
        yield Finding("fault", f"{len(dataset.class_names)} classes, the sheet has {sheet.classes}")
    found = {_alike(name): name for name in dataset.class_names}
    levels: tuple[tuple[tuple[str, ...], Level], ...] = ((sheet.wnids, "fault"), (sheet.class_names, "warning"))
    for names, level in levels:
        if missing := [name for name in names if _alike(name) not in found]:
            odd = sorted(set(found) - {_alike(name) for name in names})
            there = f"; there are {', '.join(found[name] for name in odd[:3])}" if odd else ""
            yield Finding(
                level, f"{len(missing)} classes of the sheet are not there, as {', '.join(missing[:3])}{there}"
            )


def _alike(name: str) -> str:
    """A class's name without case and signs, which copies of a dataset write in their own ways."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _per_class(dataset: Dataset, part: Part, sheet: Sheet) -> Iterator[Finding]:
    if part not in sheet.per_class or not len(part_of(dataset, part)):
        return
    least, most = sheet.per_class[part]
    counts_C = np.bincount(part_of(dataset, part).labels, minlength=len(dataset.class_names))
    odd = [position for position, count in enumerate(counts_C.tolist()) if not least <= count <= most]
    if odd:
        listed = ", ".join(f"{dataset.class_names[position]} ({counts_C[position]})" for position in odd[:5])
        yield Finding("fault", f"{part}: {len(odd)} classes have not the sheet's {least} to {most} images, as {listed}")


def _encoding(dataset: Dataset, sheet: Sheet) -> Iterator[Finding]:
    if sheet.lossless:
        jpegs = sum(suffix(name) in (".jpg", ".jpeg") for name in (*dataset.train.names, *dataset.test.names))
        if jpegs:
            yield Finding("warning", f"{jpegs:,} images are JPEG: re-encoded, not the pixels of the original")


def _readable(
    dataset: Dataset, everything: bool, sheet: Sheet | None, each: Callable[[str], None]
) -> Iterator[Finding]:
    """Decode a sample or all: broken images, sides the original does not have, pictures that stand in both parts."""
    seen: dict[Part, list[Image]] = {}
    sides: set[tuple[int, int]] = set()
    for part in _PARTS:
        seen[part] = []
        broken, flat, several, count = [], [], [], 0
        for name, look in _looked_at(dataset, part, everything, each):
            count += 1
            if isinstance(look, str):
                broken.append(f"{name} ({look})")
                continue
            sides.add(look.size)
            seen[part].append((name, look.bits, look.grey))
            if look.flat:
                flat.append(name)
            if look.several:
                several.append(name)
        if broken:
            level: Level = "fault" if len(broken) > _MAX_BROKEN * count else "warning"
            yield Finding(level, f"{part}: {len(broken)} of {count:,} images cannot be read: {'; '.join(broken[:5])}")
        if flat:
            yield Finding("warning", f"{part}: {len(flat)} images are of one flat colour, as {', '.join(flat[:3])}")
        if several:
            said = (
                f"{part}: of {len(several)} images with several frames, as {', '.join(several[:3])}, the first is read"
            )
            yield Finding("note", said)
    whole = "all images" if everything else f"a sample of {SAMPLE} images a part"
    near = near_pairs(seen["train"], seen["test"])
    equal = set(equal_pairs(dataset.train, dataset.test))
    if pictures := [pair for pair in near if pair not in equal]:
        listed = ", ".join(f"{one} ~ {other}" for one, other in pictures[:3])
        yield Finding("warning", f"{len(pictures)} test images look like training images ({whole}): {listed}")
    if sheet and sheet.sides and sides:
        least_w, most_w, least_h, most_h = sheet.sides
        odd = [side for side in sides if not (least_w <= side[0] <= most_w and least_h <= side[1] <= most_h)]
        if odd:
            yield Finding(
                "warning", f"images of {odd[0][0]} × {odd[0][1]} px, which the original has none of: resized?"
            )
    yield Finding("note", f"decoded: {whole}")


def _looked_at(
    dataset: Dataset, part: Part, everything: bool, each: Callable[[str], None]
) -> Iterator[tuple[str, Look | str]]:
    """Names and looks of all images or of a sample spread over the part."""
    split: Split = part_of(dataset, part)
    indices = range(0, len(split), 1 if everything else max(1, len(split) // SAMPLE))
    for number, found in enumerate(looks(split, indices, processes=os.cpu_count() or 1)):
        if number % 100 == 0:
            each(f"{dataset.name}: {part} part, {number:,} of {len(indices):,} images decoded")
        yield found


def _repeated(dataset: Dataset, sheet: Sheet | None) -> Iterator[Finding]:
    """Equal files: within a part against what the original has, and between the parts."""
    for part in _PARTS:
        count = repeated(part_of(dataset, part))
        known = _known_copies(sheet, part)
        if count > (known or 0):
            level: Level = "warning" if known is None else "fault"
            more = "" if known is None else f", the original has {known}"
            yield Finding(level, f"{part}: {count} images are copies of another one{more}")
    if pairs := equal_pairs(dataset.train, dataset.test):
        listed = ", ".join(f"{one} = {other}" for one, other in pairs[:3])
        yield Finding("fault", f"{len(pairs)} test images are training images, to the byte: {listed}")


def _known_copies(sheet: Sheet | None, part: Part) -> int | None:
    """How many images of the original's part are copies of another one; None where nobody says."""
    if sheet is None or part not in sheet.unique:
        return None
    return {"train": sheet.train, "test": sheet.test}[part] - sheet.unique[part]


def _archives(
    sheet: Sheet, options: DatasetOptions, *, everything: bool, each: Callable[[str], None]
) -> Iterator[Finding]:
    """Archives of the publisher that lie where the dataset lies, by size and hash."""
    if options.path is None:
        return
    path = Path(options.path)
    for archive in sheet.archives:
        for file in (path, path / archive.file, path.parent / archive.file):
            if file.name == archive.file and file.is_file():
                yield from _archive(file, archive, everything=everything, each=each)
                break


def _archive(file: Path, archive: Archive, *, everything: bool, each: Callable[[str], None]) -> Iterator[Finding]:
    size = file.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        yield Finding("fault", f"{file} has {size:,} bytes, the publisher's has {archive.bytes:,}")
        return
    if archive.md5 is None and archive.sha256 is None:
        yield Finding("note", f"{file}: nobody publishes a checksum of it")
        return
    if size > _HASHED and not everything:
        yield Finding("note", f"{file}: {size / 1e9:.0f} GB, not hashed; --all does")
        return
    each(f"hashing {file}")
    if (wrong := wrong_hash(file, archive)) is not None:
        yield Finding("fault", f"{file}: {wrong}")
    else:
        yield Finding("note", f"{file.name} is the publisher's, by its checksum")


def wrong_hash(file: Path, archive: Archive) -> str | None:
    """What is wrong with a file's checksum; None if it is the publisher's."""
    kind, expected = ("sha256", archive.sha256) if archive.sha256 else ("md5", archive.md5)
    if expected is None:
        return None
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, kind).hexdigest()
    return None if found == expected else f"{kind} is {found}, the publisher's is {expected}"


def overlaps(ids: dict[str, Dataset | None], oods: dict[str, Dataset | None]) -> Iterator[Finding]:
    """Classes that an ID dataset shares with an OOD dataset; by their sheets where the files are not here."""
    for one, mine in ids.items():
        for other, theirs in oods.items():
            if one == other:
                continue
            names, their_names = _class_names(one, mine), _class_names(other, theirs)
            shared = shared_classes(names, sheets().get(one), their_names, sheets().get(other))
            if shared:
                listed = ", ".join(theirs for _, theirs in shared[:5])
                text = f"{other} shares {len(shared)} of its {len(their_names)} classes with {one}: {listed}"
                yield Finding("warning", text + (", …" if len(shared) > 5 else ""))


def _class_names(name: str, dataset: Dataset | None) -> tuple[str, ...]:
    if dataset is not None:
        return dataset.class_names
    sheet = sheets().get(name)
    return (sheet.class_names or sheet.wnids) if sheet else ()
