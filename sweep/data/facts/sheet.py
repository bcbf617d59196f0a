"""A dataset's fact sheet: what is known of it without its files, each with where it is known from."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

Role = Literal["ID", "OOD", "ID, OOD", "example"]
Part = Literal["train", "test"]


@dataclass(frozen=True)
class Archive:
    """A file that the publisher offers.

    Attributes
    ----------
    urls : where to fetch it, the publisher's first; none where one must register.
    bytes, md5, sha256 : None where nobody states them.
    optional : what the loader does not need.
    """

    file: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Copy:
    """A well-known copy that is not the official set, told by its counts."""

    what: str
    train: int
    test: int


@dataclass(frozen=True)
class Sheet:
    """Facts of a dataset (protocol §7).

    Attributes
    ----------
    train, test : images that the loader gives.
    split : "official …", or how ours is made.
    per_class : part → the fewest and the most images of a class.
    unique : part → images that are not another one's copy.
    sides : the least and the greatest width, then height, in px.
    layouts : what :mod:`sweep.data.layouts` calls the forms it is read from.
    left_out : what of the original the study does not use.
    class_names, wnids : of the classes where they are known; WordNet ids of ILSVRC's synsets.
    concepts : class → wnid of the ILSVRC class that is the same thing.
    synonyms : class → what another sheet calls it.
    lossless : the publisher's images are not compressed with loss, so that a JPEG is a copy.
    total : images of the original where the counts of the parts depend on rounding.
    sources : where the facts are from.
    """

    name: str
    title: str
    role: Role
    classes: int
    train: int
    test: int
    split: str
    licence: str
    citation: str
    homepage: str
    sources: tuple[str, ...]
    layouts: tuple[str, ...]
    archives: tuple[Archive, ...] = ()
    per_class: Mapping[Part, tuple[int, int]] = field(default_factory=dict)
    unique: Mapping[Part, int] = field(default_factory=dict)
    sides: tuple[int, int, int, int] | None = None
    total: int | None = None
    left_out: str | None = None
    note: str | None = None
    class_names: tuple[str, ...] = ()
    wnids: tuple[str, ...] = ()
    concepts: Mapping[str, str] = field(default_factory=dict)
    synonyms: Mapping[str, str] = field(default_factory=dict)
    copies: tuple[Copy, ...] = ()
    lossless: bool = False


@functools.cache
def sheets() -> Mapping[str, Sheet]:
    """Every sheet by the dataset's name, in the order of protocol §7."""
    found = [read_sheet(file.read_text(encoding="utf-8")) for file in sorted(Path(__file__).parent.glob("*.yaml"))]
    order = {"ID": 0, "ID, OOD": 1, "OOD": 2, "example": 3}
    return {sheet.name: sheet for sheet in sorted(found, key=lambda sheet: order[sheet.role])}


def read_sheet(text: str) -> Sheet:
    """A sheet from its YAML; TypeError for a key that is none of a sheet's."""
    raw: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    raw["archives"] = tuple(Archive(**row | {"urls": tuple(row.get("urls", ()))}) for row in raw.get("archives", ()))
    raw["copies"] = tuple(Copy(**row) for row in raw.get("copies", ()))
    raw["per_class"] = {part: tuple(counts) for part, counts in raw.get("per_class", {}).items()}
    for key in ("sources", "layouts", "class_names", "wnids", "sides"):
        if key in raw:
            raw[key] = tuple(raw[key])
    return Sheet(**raw)
