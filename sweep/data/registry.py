"""The kinds of dataset: a name in a configuration → the function that opens it."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sweep.base.errors import UserError
from sweep.data.options import DatasetOptions

if TYPE_CHECKING:
    from sweep.data.source import Dataset


class OpenDataset(Protocol):
    """Opens one dataset: lists its samples and fingerprints them, decoding no image."""

    def __call__(self, name: str, options: DatasetOptions, *, cache_dir: Path) -> "Dataset":
        """See :func:`sweep.data.source.open_dataset`."""
        ...


_KINDS: dict[str, OpenDataset] = {}
_SHIPPED = ("builtin", "folder", "registered", "standard", "hub")  # modules; importing one registers its kinds


def register_dataset(kind: str) -> Callable[[OpenDataset], OpenDataset]:
    """Decorator: make ``kind`` of :class:`DatasetOptions` open through the decorated function."""

    def register(opener: OpenDataset) -> OpenDataset:
        _KINDS[kind] = opener
        return opener

    return register


def opener(kind: str) -> OpenDataset:
    """The function that opens datasets of this kind; UserError names the kinds there are."""
    for module in _SHIPPED:
        importlib.import_module(f"sweep.data.{module}")
    if kind not in _KINDS:
        raise UserError(f"dataset kind {kind!r} is unknown; valid kinds: {', '.join(sorted(_KINDS))}")
    return _KINDS[kind]
