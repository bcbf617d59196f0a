"""What belongs together in a dataset: the frames of a track, the images of a patient or of a photographer.

Images of one group are near copies of each other; where one is fitted on and another held out or tested on, the score
is of memory. A dataset's config names its groups by a regular expression on the images' names, or by a column of a
list; splits of our own making then never part a group.
"""

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sweep.base.errors import UserError
from sweep.data.options import DatasetOptions

_SHOWN = 3


def group_names(where: str, names: Sequence[str], options: DatasetOptions) -> list[str | None] | None:
    """Name of each image's group, None for an image that has none; None if the dataset has no groups.

    Parameters
    ----------
    where
        Begins messages.
    names
        Of images, below the root of the dataset.

    Raises
    ------
    UserError
        The list cannot be read.
    """
    if options.groups is not None:
        found = (re.search(options.groups, name) for name in names)
        return [None if match is None else _matched(match) for match in found]
    if options.groups_list is not None:
        listed = _listed(where, Path(options.groups_list), str(options.groups_column), options.groups_image)
        return [_looked_up(listed, name) for name in names]
    return None


def _matched(match: re.Match[str]) -> str:
    """What the parentheses of an expression caught; without any, all that it matched."""
    return "\0".join(part or "" for part in match.groups()) if match.re.groups else match.group()


def _listed(where: str, path: Path, column: str, image: str | None) -> dict[str, str]:
    """Group of each image of a list, a CSV file with a head."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: the list of groups {path} cannot be read: {error}") from error
    heads = list(rows[0]) if rows else []
    image = image or next(iter(heads), "image")
    for name in (image, column):
        if name not in heads:
            raise UserError(f"{where}: the list of groups {path} has no column {name!r}; it has {', '.join(heads)}")
    return {str(row[image]): str(row[column]) for row in rows if row[column]}


def _looked_up(listed: dict[str, str], name: str) -> str | None:
    """The group of an image, which a list names by its path or by any end of it."""
    parts = name.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((listed[end] for end in ends if end in listed), None)


def codes(where: str, names: Sequence[str], groups: Sequence[str | None]) -> np.ndarray:
    """Groups as numbers, int64 in the order of first appearance.

    Raises
    ------
    UserError
        An image has no group.
    """
    lost = [name for name, group in zip(names, groups, strict=True) if group is None]
    if lost:
        shown = ", ".join(lost[:_SHOWN]) + (" …" if len(lost) > _SHOWN else "")
        raise UserError(
            f"{where}: groups says nothing of {len(lost)} of {len(names)} images ({shown}); extend the expression or "
            "the list: an image of its own is a group too"
        )
    number: dict[str | None, int] = {}
    return np.array([number.setdefault(group, len(number)) for group in groups], dtype=np.int64)


def grouping(groups_N: np.ndarray) -> str:
    """Digest of which images belong together, whatever their groups are called."""
    return "groups " + hashlib.sha256(groups_N.astype("<i8").tobytes()).hexdigest()[:20]
