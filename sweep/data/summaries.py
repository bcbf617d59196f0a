"""What a plan and the keys need of a dataset, kept in the cache: a folder that did not change is not opened again.

A folder's summary is that of its state: the paths, sizes and times of all its files. Who only asks (``--plan``) may
glance: where no directory changed, no file of it was added, removed or renamed, and that is taken for the same folder.
A file that was overwritten in place escapes a glance; a run looks at every file.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweep.data.dataset import Dataset
from sweep.data.files import aside, locked, publish
from sweep.data.listing import file_state
from sweep.data.options import DatasetOptions
from sweep.data.tree import Tree, scan, state_of

_NAMED = 5  # classes of which something is said
_FILES_GLANCED_AT = 1000  # files that are no images: lists that decide about parts
_glancing = ContextVar("glancing", default=False)


@dataclass(frozen=True)
class Summary:
    """What a plan and the keys need of a dataset; small, so that it is kept where the dataset is not.

    Attributes
    ----------
    identity : fingerprint, and what is said of the pixels.
    split : "official", or how the test part was made.
    lacking : what a run would refuse in it, in words; it needs of every class two images to fit and to hold out, and
        one to test.
    smallest, fewest : the class with the fewest training images, and how many these are.
    """

    identity: str
    split: str
    classes: int
    train: int
    test: int
    notes: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    smallest: str = ""
    fewest: int = 0


def smallest(dataset: Dataset) -> tuple[str, int]:
    """The class with the fewest training images, and how many these are."""
    counts_C = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
    return dataset.class_names[int(counts_C.argmin())], int(counts_C.min())


def lacking(dataset: Dataset) -> tuple[str, ...]:
    """Classes that have too few images for a run, in words."""
    total = len(dataset.class_names)
    train_C, test_C = (np.bincount(part.labels, minlength=total) for part in (dataset.train, dataset.test))
    found = []
    for what, few_C in (
        ("a single training image: two are needed, one to fit and one to hold out", train_C == 1),
        ("no training image", train_C == 0),
        ("no test image", test_C == 0),
    ):
        names = [repr(dataset.class_names[label]) for label in np.flatnonzero(few_C)]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            found.append(f"class{'es' * (len(names) > 1)} {', '.join(names[:_NAMED])}{more}: {what}")
    return tuple(found)


@contextmanager
def glance() -> Iterator[None]:
    """Within, a folder whose directories did not change counts as unchanged."""
    token = _glancing.set(True)
    try:
        yield
    finally:
        _glancing.reset(token)


def kept_summary(name: str, options: DatasetOptions, cache_dir: Path, make: Callable[[], Summary]) -> Summary:
    """The summary of a folder or archive as it is now: the cached one, or ``make()``, which is then cached."""
    path = Path(str(options.path))
    asked = json.dumps([name, _code(), asdict(options)], sort_keys=True)
    entry = cache_dir / "summaries" / (hashlib.sha256(os.fsencode(asked)).hexdigest()[:32] + ".json")
    saved = _load(entry)
    if saved and _glancing.get() and _seems_unchanged(saved):
        return _summary(saved)
    tree = scan(path) if path.is_dir() else None
    state = file_state(path) if tree is None else f"{tree.state} {state_of(tree.others)} {tree.dangling}"
    state += f" {file_state(Path(str(options.groups_list)))}" if _listed(options) else ""
    if saved and saved["state"] == state:
        return _summary(saved)
    made = make()
    with locked(entry):
        glanced = [] if tree is None or _listed(options) else _glanced(path, tree)
        aside(entry).write_text(json.dumps({"state": state, "glanced": glanced, "summary": asdict(made)}))
        publish(entry)
    return made


def _listed(options: DatasetOptions) -> bool:
    """Whether a list outside of the folder decides about it too."""
    return options.groups_list is not None and Path(options.groups_list).is_file()


def _glanced(root: Path, tree: Tree) -> list[tuple[str, int]]:
    """Directories and list files with their times."""
    files = [(str(root / file.path), file.time) for file in tree.others[:_FILES_GLANCED_AT]]
    return [*tree.directories, *files]


def _seems_unchanged(saved: dict[str, Any]) -> bool:
    try:
        return bool(saved["glanced"]) and all(os.stat(path).st_mtime_ns == time for path, time in saved["glanced"])
    except OSError:
        return False


def _load(entry: Path) -> dict[str, Any] | None:
    try:
        saved = json.loads(entry.read_bytes())
        _summary(saved), saved["state"], saved["glanced"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # it is made anew
    return saved


def _summary(saved: dict[str, Any]) -> Summary:
    lists = {name: tuple(saved["summary"][name]) for name in ("notes", "lacking")}
    return Summary(**saved["summary"] | lists)


@functools.cache
def _code() -> str:
    """Digest of this room's code and fact sheets: what decides a summary beside the files."""
    room, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted((*room.rglob("*.py"), *room.rglob("*.yaml"))):
        total.update(file.read_bytes())
    return total.hexdigest()
