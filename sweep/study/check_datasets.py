"""What a config says of its datasets against what there is: generators, sources, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sweep import register
from sweep.config import SCRATCH, Config, DatasetEntry, KeyPath, Problem
from sweep.data import TORCHVISION, dataset_options, is_given, is_made, known_datasets, sheets, source_of, used_datasets

_SOURCES = ("torchvision/NAME", "hfds/NAME", "hfds with a path", "wds with a path")
_OF_READERS = ("train_split", "test_split", "image_key", "label_key")  # of hfds and wds


def check_datasets(config: Config) -> Iterator[Problem]:
    """Problems of the ``datasets`` section that show without the files."""
    generators = tuple(name for name, fact in known_datasets().items() if fact.reader != "folder")
    for name, entry in config.datasets.items():
        at: KeyPath = ("datasets", name)
        kind, there = source_of(config, name)
        yield from _meaningless(at, entry, kind)
        yield from _groups(config, at, name, entry)
        if kind:
            yield from _source(at, entry, kind, there)
        elif register.find_plugin("dataset", entry.generator or name):
            continue  # whether it takes a path and a size is its own affair
        elif entry.path and entry.generator:
            yield Problem((*at, "generator"), entry.generator, "a dataset has a path or a generator, not both")
        elif entry.generator and entry.generator not in generators:
            yield Problem((*at, "generator"), entry.generator, "no such generator", generators)
        elif not entry.path and not entry.generator and name not in known_datasets():
            yield Problem(at, None, "needs a path (an ImageFolder tree or tar), a source or a generator", generators)
        elif entry.size and entry.path:
            yield Problem((*at, "size"), entry.size, "only built-in datasets have a size; images keep their own")


def _meaningless(at: KeyPath, entry: DatasetEntry, kind: str) -> Iterator[Problem]:
    """Keys that the dataset's source does not read."""
    if entry.download and kind not in ("torchvision", "hfds"):
        message = "only torchvision's and Hugging Face's datasets are fetched: give a source"
        yield Problem((*at, "download"), True, message, (*(f"torchvision/{name}" for name in TORCHVISION), "hfds/NAME"))
    if entry.only and (kind or not entry.path):
        yield Problem((*at, "only"), list(entry.only), "only a dataset with a path, a folder or tar, has such a choice")
    if kind not in ("hfds", "wds"):
        for key in _OF_READERS:
            if getattr(entry, key) is not None:
                yield Problem((*at, key), getattr(entry, key), "has a meaning for the sources hfds and wds only")
    if kind:
        for key in ("generator", "size"):
            if getattr(entry, key) is not None:
                yield Problem((*at, key), getattr(entry, key), f"has no meaning beside the source {entry.source}")


def _groups(config: Config, at: KeyPath, name: str, entry: DatasetEntry) -> Iterator[Problem]:
    """Groups are named by files, so that only datasets of files have them."""
    if entry.groups is None:
        return
    if dataset_options(config, name).kind != "folder":
        yield Problem(
            (*at, "groups"), entry.groups, "only a dataset with a path, a folder or tar of images, has groups"
        )
    elif isinstance(entry.groups, str):
        try:
            re.compile(entry.groups)
        except re.error as error:
            yield Problem((*at, "groups"), entry.groups, f"not a regular expression: {error}")


def _source(at: KeyPath, entry: DatasetEntry, kind: str, there: str) -> Iterator[Problem]:
    if kind == "torchvision":
        if there not in TORCHVISION:
            valid = tuple(f"torchvision/{name}" for name in TORCHVISION)
            yield Problem((*at, "source"), entry.source, "no such dataset of torchvision", valid)
        if entry.classes is not None:
            yield Problem((*at, "classes"), entry.classes, "torchvision knows how many classes there are")
    elif kind == "hfds":
        if bool(there) == bool(entry.path):
            message = "give either a name of the hub, or a path to a directory that datasets.load_dataset reads"
            yield Problem((*at, "source"), entry.source, message, ("hfds/NAME", "hfds with a path"))
        elif there and not entry.download:
            yield Problem((*at, "download"), False, "a dataset of the hub comes over the network: say so", ("true",))
        elif entry.path and entry.download:
            yield Problem((*at, "download"), True, "the files are at the path: there is nothing to fetch", ("false",))
    elif kind == "wds":
        if not entry.path or there:
            message = "webdataset shards are read from a directory: source: wds and its path"
            yield Problem((*at, "source"), entry.source, message, ("wds with a path",))
    else:
        yield Problem((*at, "source"), entry.source, "no such source", _SOURCES)


def check_shifted(config: Config) -> Iterator[Problem]:
    """Datasets on which probes of the ID dataset are tested: these need ID images, and one meaning for a name."""
    for name in config.shifted:
        at: KeyPath = ("shifted", name)
        if is_made(config, name) and (name in config.datasets or name in known_datasets()):
            yield Problem((*at, "corruption"), name, "a dataset of that name is there: corrupted images need another")
        for number, block in enumerate(config.grid):
            probed = config.probe_datasets if block.probe_datasets is None else block.probe_datasets
            if name not in probed:
                continue
            for own in block.id_dataset or ("",):
                if SCRATCH not in block.pretraining and not is_given(config, own):
                    message = f"probes of {name} are fitted on ID images: name the id_dataset, and where it is"
                    yield Problem(("grid", number, "id_dataset"), own or None, message)


def check_data_files(config: Config) -> Iterator[Problem]:
    """Problems of the files of every dataset in use; nothing is opened."""
    for name in used_datasets(config):
        options = dataset_options(config, name)
        if options.kind in ("builtin", "plugin") or options.download:
            continue
        if options.path is None:
            fetch = ", or download: true" if name in TORCHVISION else ""
            command = f"; python -m sweep.data fetch {name} --to DIR gets it" if name in sheets() else ""
            message = (
                f"no images for {name}: set datasets.{name}.path to an ImageFolder tree or .tar of it{fetch}{command}"
            )
            yield Problem(("datasets", name, "path"), None, message)
        elif not Path(options.path).exists():
            yield Problem(("datasets", name, "path"), options.path, "no such file or folder (is data_root right?)")
