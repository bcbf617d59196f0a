"""What the node-local cache holds, and how to make room: everything in it is made again when it is asked for."""

import os
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sweep.base.errors import UserError
from sweep.data.files import locked
from sweep.data.partial import Partial

_KINDS = ("images", "embeddings", "listings", "summaries")
_DAY = 86_400.0


def contents(cache_dir: Path) -> dict[str, tuple[int, int]]:
    """Kind of entry → how many there are, and their bytes."""
    return {kind: _sum(_entries(cache_dir / kind)) for kind in _KINDS}


def remove_older(cache_dir: Path, *, days: float) -> tuple[int, int]:
    """Remove entries that nobody read or wrote for so many days; how many, and their bytes.

    The lock files stay, and an entry that is being made is waited for.
    """
    old = [entry for entry in _all_entries(cache_dir) if time.time() - _last_use(entry) > days * _DAY]
    found = _sum(old)
    for entry in old:
        with locked(_whole(entry)):
            _remove(entry)
    return found


def keep_newest(cache_dir: Path, *, most: int) -> tuple[int, int]:
    """Remove the images used longest ago until so many bytes of them are left at most; how many entries, their bytes.

    An entry that somebody makes or removes at this moment is passed over. Whoever has one open keeps it.
    """
    entries = sorted(_entries(cache_dir / "images"), key=_last_use)
    total, gone = _sum(entries)[1], list[tuple[int, int]]()
    for entry in entries:
        if total <= most:
            break
        found = _sum([entry])
        with locked(_whole(entry), wait=False) as is_ours:
            if is_ours:
                _remove(entry)
                gone.append(found)
                total -= found[1]
    return len(gone), sum(size for _, size in gone)


@dataclass(frozen=True)
class Room:
    """Whether a cache entry that is decoded will fit.

    Parameters
    ----------
    what : the images, for people.
    entry : its place.
    most : bytes that the cache may hold; None: as much as the disk has.
    images : how many it is of.
    bytes_each : of an image; None: as large as those so far are on average.
    """

    what: str
    entry: Path
    most: int | None
    images: int
    bytes_each: int | None

    def left(self, partial: Partial) -> int:
        """Bytes that the entry lacks, as far as that is known."""
        each = self.bytes_each or partial.bytes / max(partial.images, 1)
        return int(each * (self.images - partial.done))

    def refuse_too_little(self, partial: Partial, *, beside: int = 0) -> None:
        """UserError if the rest will not fit; before that, make room where the cache has a limit.

        Parameters
        ----------
        partial : what of the entry is there.
        beside : bytes that entries lack which are made at the same time.
        """
        left = self.left(partial)
        copy = left + partial.bytes if partial.is_shuffled else 0
        cache_dir = self.entry.parent.parent
        advice = "python -m sweep.data cache --keep GB removes what was used longest ago; or set cache_dir elsewhere"
        if self.most is not None:
            whole = left + partial.bytes
            if whole > self.most:
                held = f"which cache_limit = {_gb(self.most)} does not hold"
                raise UserError(f"{self.what}: {_gb(whole)} decoded, {held}")
            keep_newest(cache_dir, most=self.most - left - beside)
        free = shutil.disk_usage(self.entry.parent).free
        if left + copy > free:
            raise UserError(
                f"{self.what}: decoding the other {self.images - partial.done:,} images takes {_gb(left + copy)} in "
                f"{cache_dir}, where {_gb(free)} are free; {advice}"
            )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"


def _remove(entry: Path) -> None:
    with suppress(FileNotFoundError):  # another was faster
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _whole(entry: Path) -> Path:
    """The entry that one under way is to become: they share a lock."""
    return entry.with_suffix("") if entry.suffix == ".tmp" else entry


def _all_entries(cache_dir: Path) -> list[Path]:
    return [entry for kind in _KINDS for entry in _entries(cache_dir / kind)]


def _entries(directory: Path) -> list[Path]:
    """Entries, and what was left of those whose decoding was broken off."""
    if not directory.is_dir():
        return []
    return sorted(entry for entry in directory.iterdir() if entry.suffix != ".lock")


def _files(entry: Path) -> list[os.stat_result]:
    """What is known of an entry's files; of those that another process takes away meanwhile, nothing."""
    found = []
    with suppress(FileNotFoundError):
        found.append(os.stat(entry))
    for folder, _, names in os.walk(entry):  # of a file there is nothing to walk
        for name in names:
            with suppress(FileNotFoundError):
                found.append(os.stat(os.path.join(folder, name)))
    return [each for each in found if stat.S_ISREG(each.st_mode)]


def _sum(entries: list[Path]) -> tuple[int, int]:
    return len(entries), sum(file.st_size for entry in entries for file in _files(entry))


def _last_use(entry: Path) -> float:
    """Time of the last reading that the file system noted, or of writing; 0 for an empty directory."""
    return max((max(file.st_atime, file.st_mtime) for file in _files(entry)), default=0.0)
