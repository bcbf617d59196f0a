"""Files of the local cache: written aside, published by rename, one writer at a time.

A reader never sees a half-written entry, and a process that needs an entry which another is making waits for it
instead of making it again. A lock dies with its process, so a killed writer leaves nothing to clean up by hand.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(entry: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a cache entry, waiting for whoever holds it; else say whether it was free."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    # The lock file stays: removing it would let two processes lock two different files of one name.
    with open(entry.with_name(entry.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def aside(entry: Path) -> Path:
    """Where to write an entry before it is published; the caller holds its lock."""
    return entry.with_name(entry.name + ".tmp")


def flush_to_disk(path: Path) -> None:
    """Return once the bytes (or, for a directory, the names in it) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(entry: Path) -> None:
    """Give what was written aside its name; the caller holds the lock and has removed a directory in the way."""
    temporary = aside(entry)
    if temporary.is_dir():
        for file in temporary.iterdir():
            flush_to_disk(file)
    flush_to_disk(temporary)
    os.replace(temporary, entry)
    flush_to_disk(entry.parent)
