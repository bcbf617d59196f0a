"""Work side by side is timed together, and what befalls one of the processes is told. Imports little, as they do."""

import functools
import os
import time

import pytest

from sweep.train.beside import at_once


def noted(folder, ready):
    """Seconds of nothing; when it could begin, and when all could, are left in the folder."""
    time.sleep(0.5 * (os.getpid() % 2))
    before = time.time()
    ready()
    (folder / str(os.getpid())).write_text(f"{before} {time.time()}")
    return float(os.getpid())


def without_room(ready):
    raise MemoryError("no room")


def test_all_begin_when_the_last_is_ready_and_the_longest_counts(tmp_path):
    longest = at_once(functools.partial(noted, tmp_path), 2)
    found = {float(file.name): [float(each) for each in file.read_text().split()] for file in tmp_path.iterdir()}
    assert longest == max(found)
    assert len(found) == 2
    assert min(begun for _, begun in found.values()) >= max(ready for ready, _ in found.values())


def test_one_that_fails_says_why_and_nobody_waits():
    with pytest.raises(MemoryError, match="no room"):
        at_once(without_room, 2)
