"""Which classes two datasets share: by WordNet id where both have one, else by name."""

import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sweep.data.facts import Sheet

_WNID = re.compile(r"n\d{8}")


def shared_classes(
    one: Iterable[str], sheet_of_one: Sheet | None, other: Iterable[str], sheet_of_other: Sheet | None
) -> list[tuple[str, str]]:
    """Pairs (class of the one, class of the other) that are the same thing.

    Parameters
    ----------
    one, other : class names as the files have them, or as the sheet has them.
    sheet_of_one, sheet_of_other : what is known of their classes.
    """
    by_synset: dict[str, str] = {}
    by_name: dict[str, tuple[str, bool]] = {}  # and whether the class has a synset
    for name in one:
        synset = synset_of(name, sheet_of_one)
        by_synset |= {synset: name} if synset else {}
        by_name |= {plain: (name, bool(synset)) for plain in names_of(name, sheet_of_one)}
    pairs = []
    for name in sorted(other):
        synset = synset_of(name, sheet_of_other)
        mine = by_synset.get(synset or "")
        if mine is None:
            compared = bool(synset) or bool(sheet_of_other and sheet_of_other.concepts)  # synsets have decided
            found = (by_name.get(plain) for plain in sorted(names_of(name, sheet_of_other)))
            mine = next((match for match, has_synset in filter(None, found) if not (compared and has_synset)), None)
        if mine is not None:
            pairs.append((mine, name))
    return pairs


def synset_of(name: str, sheet: Sheet | None) -> str | None:
    """The WordNet id of a class, if its name is one or its sheet knows it."""
    return name if _WNID.fullmatch(name) else (sheet.concepts.get(name) if sheet else None)


def names_of(name: str, sheet: Sheet | None) -> set[str]:
    """A class's names without case, blanks and numbers."""
    if _WNID.fullmatch(name):
        return {_plain(word) for word in _names_of_synsets().get(name, ())} - {""}
    synonyms: Mapping[str, str] = sheet.synonyms if sheet else {}
    return {_plain(name), _plain(synonyms.get(name, name))} - {""}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


@functools.cache
def _names_of_synsets() -> Mapping[str, tuple[str, ...]]:
    """Wnid → its names, from the lists that timm carries; empty where this timm has none."""
    spec = importlib.util.find_spec("timm")  # finds, imports nothing
    file = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else Path()
    file = file / "data" / "_info" / "imagenet_synset_to_lemma.txt"
    if not file.is_file():
        return {}
    rows = (line.partition("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {wnid: tuple(name.strip() for name in names.split(",")) for wnid, _, names in rows}
