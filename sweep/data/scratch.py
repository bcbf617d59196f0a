"""What the node-local cache holds, and how to make room: everything in it is made again when it is asked for."""

import shutil
import time
from pathlib import Path

from sweep.data.files import locked

_KINDS = ("images", "listings", "summaries")
_DAY = 86_400.0


def contents(cache_dir: Path) -> dict[str, tuple[int, int]]:
    """Kind of entry → how many there are, and their bytes."""
    return {kind: _sum(_entries(cache_dir / kind)) for kind in _KINDS}


def remove_older(cache_dir: Path, *, days: float) -> tuple[int, int]:
    """Remove entries that nobody read or wrote for so many days; how many, and their bytes.

    The lock files stay, and an entry that is being made is waited for.
    """
    old = [
        entry for kind in _KINDS for entry in _entries(cache_dir / kind) if time.time() - _last_use(entry) > days * _DAY
    ]
    found = _sum(old)
    for entry in old:
        with locked(entry):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    return found


def _entries(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(entry for entry in directory.iterdir() if entry.suffix not in (".lock", ".tmp"))


def _files(entry: Path) -> list[Path]:
    return [file for file in entry.rglob("*") if file.is_file()] if entry.is_dir() else [entry]


def _sum(entries: list[Path]) -> tuple[int, int]:
    return len(entries), sum(file.stat().st_size for entry in entries for file in _files(entry))


def _last_use(entry: Path) -> float:
    """Time of the last reading that the file system noted, or of writing; 0 for an empty directory."""
    return max((max(file.stat().st_atime, file.stat().st_mtime) for file in _files(entry)), default=0.0)
