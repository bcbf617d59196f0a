"""Datasets that a config may name without an entry: those with a sheet, the generated and the registered ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sweep import register
from sweep.data.facts.sheet import sheets


@dataclass(frozen=True)
class DatasetFact:
    """What a plan needs to know of a dataset.

    Attributes
    ----------
    reader : "builtin" (generated), "plugin" (registered), or "folder" (give it a path).
    """

    name: str
    title: str
    classes: int
    train: int
    test: int
    reader: Literal["builtin", "folder", "plugin"]


_GENERATED = (
    DatasetFact("fractals", "iterated-function-system fractals, generated", 100, 20_000, 2_000, "builtin"),
    DatasetFact("glyphs", "rendered letters and digits, generated", 62, 1_240, 620, "builtin"),
    DatasetFact("gratings", "oriented gratings, generated", 24, 720, 480, "builtin"),
    DatasetFact("digits", "scikit-learn's handwritten digits", 10, 200, 600, "builtin"),
)
_SHEETS = (
    DatasetFact(sheet.name, sheet.title, sheet.classes, sheet.train, sheet.test, "folder")
    for sheet in sheets().values()
)
DATASETS: Mapping[str, DatasetFact] = {fact.name: fact for fact in (*_GENERATED, *_SHEETS)}


def known_datasets() -> dict[str, DatasetFact]:
    """Datasets that need no entry in a config: the program's and the registered ones."""
    registered = {name: register.find_plugin("dataset", name) for name in register.plugin_names("dataset")}
    facts = {name: DatasetFact(name, reader="plugin", **plugin.facts) for name, plugin in registered.items() if plugin}
    return {**DATASETS, **facts}
