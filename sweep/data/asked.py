"""Which datasets a config asks for, where they are and what they are; nothing is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sweep import register
from sweep.config import SCRATCH, Config, DatasetEntry
from sweep.data.facts import known_datasets
from sweep.data.options import TORCHVISION, DatasetOptions

CACHE_VARIABLE = "TUNNEL_SWEEP_CACHE"


def cache_dir(config: Config | None) -> Path:
    """Node-local scratch: the config's, else $TUNNEL_SWEEP_CACHE, else ~/.cache/tunnel-sweep."""
    chosen = (config and config.cache_dir) or os.environ.get(CACHE_VARIABLE) or "~/.cache/tunnel-sweep"
    return Path(chosen).expanduser().absolute()


def used_datasets(config: Config) -> tuple[str, ...]:
    """Datasets whose images the grid asks for, ID and OOD, in order of appearance.

    Backbones with downloaded or local weights need no images of their ID dataset: it counts where it is given.
    """
    names: dict[str, None] = {}
    for block in config.grid:
        probed = config.probe_datasets if block.probe_datasets is None else block.probe_datasets
        probed = tuple(name for name in probed if not is_made(config, name))
        own = [name for name in block.id_dataset or () if SCRATCH in block.pretraining or is_given(config, name)]
        tasks = [name for name in block.tasks or () if isinstance(name, str)]
        names |= dict.fromkeys((*own, *tasks, *probed))
    return tuple(names)


def is_made(config: Config, name: str) -> bool:
    """Whether a probe dataset is made from another's images while these are read, and has none of its own."""
    return name in config.shifted and config.shifted[name].corruption is not None


def is_given(config: Config, name: str) -> bool:
    """Whether the config says where a dataset's images come from, or they are generated."""
    return name in config.datasets or dataset_options(config, name).kind != "folder"


def source_of(config: Config, name: str) -> tuple[str, str]:
    """Where a dataset's files come from, and its name there: ("torchvision", "cifar10"); ("", "") without a source.

    ``download: true`` alone makes a dataset that torchvision knows one of torchvision.
    """
    entry = config.datasets.get(name, DatasetEntry())
    if entry.source is None and entry.download and name in TORCHVISION:
        return "torchvision", name
    kind, _, there = (entry.source or "").partition("/")
    return kind, there


def dataset_options(config: Config, name: str) -> DatasetOptions:
    """Where and what a dataset is; a registered one that nobody gave a path is a folder without a path."""
    entry = config.datasets.get(name, DatasetEntry())
    fact = known_datasets().get(name)
    shared: dict[str, Any] = {
        "train_per_class": entry.train_per_class,
        "test_per_class": entry.test_per_class,
        "seed": entry.seed,
        "background": entry.background,
    }
    path = str(Path(config.data_root or ".") / Path(entry.path).expanduser()) if entry.path else None
    kind, there = source_of(config, name)
    if kind:
        return _sourced(config, entry, kind, there, shared | {"path": path})
    if registered := register.find_plugin("dataset", entry.generator or name):
        shared |= {"path": path, "classes": entry.classes, "size": entry.size}
        return DatasetOptions(kind="plugin", generator=registered.name, **shared)
    generator = entry.generator or (name if fact and fact.reader == "builtin" and not entry.path else None)
    if generator:
        return DatasetOptions(kind="builtin", generator=generator, classes=entry.classes, size=entry.size, **shared)
    declared = entry.classes or (fact.classes if fact else None)
    shared |= _groups(config, entry) | {"path": path, "classes": declared, "only": entry.only}
    return DatasetOptions(kind="folder", test_fraction=entry.test_fraction, **shared)


def _groups(config: Config, entry: DatasetEntry) -> dict[str, str | None]:
    """What an entry says of groups, as options."""
    if entry.groups is None or isinstance(entry.groups, str):
        return {"groups": entry.groups}
    path = Path(config.data_root or ".") / Path(entry.groups.list).expanduser()
    return {"groups_list": str(path), "groups_column": entry.groups.column, "groups_image": entry.groups.image}


def _sourced(config: Config, entry: DatasetEntry, kind: str, there: str, shared: dict[str, Any]) -> DatasetOptions:
    """Options of a dataset that torchvision or one of timm's readers reads."""
    if kind == "torchvision":
        root = shared.pop("path") or str(cache_dir(config) / "downloads" / "torchvision")
        return DatasetOptions(kind="torchvision", generator=there, path=root, download=entry.download, **shared)
    return DatasetOptions(
        kind="hfds" if kind == "hfds" else "wds",
        generator=there or None,
        classes=entry.classes,
        download=entry.download,
        train_split=entry.train_split or "train",
        test_split=entry.test_split or "test",
        image_key=entry.image_key,
        label_key=entry.label_key,
        **shared,
    )
