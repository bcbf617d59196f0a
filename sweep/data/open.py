"""Open a dataset of any kind: its samples listed, its content fingerprinted, no image decoded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from sweep.base.errors import UserError
from sweep.data.dataset import Dataset
from sweep.data.kinds.builtin import open_builtin
from sweep.data.kinds.folder import open_folder
from sweep.data.kinds.hub import open_hugging_face, open_webdataset
from sweep.data.kinds.plugin import open_registered
from sweep.data.kinds.standard import open_standard
from sweep.data.once import once
from sweep.data.options import DatasetOptions
from sweep.data.summaries import Summary, kept_summary, lacking, smallest


class OpenDataset(Protocol):
    """Opens one dataset: lists its samples and fingerprints them, decoding no image."""

    def __call__(self, name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
        """See :func:`open_dataset`."""
        ...


KINDS: Mapping[str, OpenDataset] = {
    "builtin": open_builtin,
    "folder": open_folder,
    "plugin": open_registered,
    "torchvision": open_standard,
    "hfds": open_hugging_face,
    "wds": open_webdataset,
}


def open_dataset(name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
    """List a dataset's samples and fingerprint it; no image is decoded.

    Parameters
    ----------
    name
        What messages call the dataset.
    options
        Its kind and parameters.
    cache_dir
        Local directory for what is slow to find out (listing and digests of a folder's files).

    Raises
    ------
    UserError
        Unknown kind or generator, missing or unreadable files, impossible counts.
    """
    if options.kind not in KINDS:
        raise UserError(f"dataset kind {options.kind!r} is unknown; valid kinds: {', '.join(sorted(KINDS))}")
    return KINDS[options.kind](name, options, cache_dir=cache_dir)


@once
def summary(name: str, options: DatasetOptions, cache_dir: Path) -> Summary:
    """A dataset's summary, found out once per process: one opening, however many backbones ask.

    Errors are those of :func:`open_dataset`.
    """

    def make() -> Summary:
        """Open the dataset."""
        dataset = open_dataset(name, options, cache_dir=cache_dir)
        identity = ":".join(filter(None, [dataset.fingerprint, dataset.pixels, dataset.grouping]))
        counts = len(dataset.class_names), len(dataset.train), len(dataset.test)
        return Summary(identity, dataset.split_note, *counts, dataset.notes, lacking(dataset), *smallest(dataset))

    there = options.kind == "folder" and options.path is not None and Path(options.path).exists()
    return kept_summary(name, options, cache_dir, make) if there else make()


@once
def opened(name: str, options: DatasetOptions, cache_dir: Path) -> Dataset:
    """A dataset opened once per process: its listing is read for every curve of a cell."""
    return open_dataset(name, options, cache_dir=cache_dir)


def fingerprint(name: str, options: DatasetOptions, *, cache_dir: Path) -> str:
    """The fingerprint of :func:`open_dataset`: instant for built-ins, one cached pass for folders."""
    return open_dataset(name, options, cache_dir=cache_dir).fingerprint
