"""Samples by the list files of an original.

A list that names images which are not there is an error, unless the images that are missing make whole classes, as in
a copy of the first fifty classes of CUB: then a note says how much is there. Images that no list names are left out.
"""

from collections.abc import Iterable, Mapping

from sweep.base.errors import UserError
from sweep.data.layouts.parts import Parts, Sample
from sweep.data.place import Place


def listed_parts(
    where: str, place: Place, listed: Mapping[str, Iterable[tuple[str, str]]], *, layout: str, home: str
) -> Parts:
    """Samples by the lists of the original.

    Parameters
    ----------
    listed : part ("train", "test") → pairs (path of the image below ``home``, class).
    home : where the original's root is in the place; "" or with a final slash.
    """
    by_path = {file.path: file for file in place.images}
    found: dict[str, list[Sample]] = {}
    lost: dict[str, list[str]] = {"train": [], "test": []}
    absent: set[str] = set()
    for part, pairs in listed.items():
        pairs = list(pairs)
        there = [Sample(by_path[home + path], path, name) for path, name in pairs if home + path in by_path]
        kept = {sample.class_name for sample in there}
        lost[part] = [path for path, name in pairs if home + path not in by_path and name in kept]
        absent |= {name for _, name in pairs} - kept
        found[part] = sorted(there, key=lambda sample: sample.name)
    if missing := lost["train"] + lost["test"]:
        raise UserError(
            f"{where}: its lists name {len(missing)} images that are not there, the first is {home}{missing[0]}; "
            "fetch the dataset again"
        )
    return Parts(found["train"], found["test"], layout, _said(place, found, absent))


def _said(place: Place, found: Mapping[str, list[Sample]], absent: set[str]) -> tuple[str, ...]:
    named = {sample.file.path for samples in found.values() for sample in samples}
    directories = {path.rpartition("/")[0] for path in named}
    rest = [file.path for file in place.images if file.path not in named]
    stray = [path for path in rest if path.rpartition("/")[0] in directories]
    notes = []
    if absent:
        notes.append(f"left out: {len(absent)} classes of the lists without an image here, as {min(absent)}")
    if stray:
        notes.append(f"left out: {len(stray)} images that stand in no list, as {', '.join(stray[:3])}")
    return tuple(notes)


def pairs_of(where: str, place: Place, name: str, fields: int = 2) -> list[list[str]]:
    """The lines of a list, split at their first blanks; names of classes may hold blanks."""
    rows = [line.split(None, fields - 1) for line in place.lines(name)]
    if wrong := [number for number, row in enumerate(rows, 1) if len(row) < fields]:
        raise UserError(f"{where}: line {wrong[0]} of {name} has not {fields} fields; fetch the list again")
    return rows
