"""A curve whose embeddings are larger than the memory of its container, or of its process, gives the same probes."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sweep.cell.limited_curve import GROUPS, ROOM, new_group
from tests.sweep.driver.test_end_to_end import ROOT


def run(home, kind, fraction):
    command = [sys.executable, "-m", "tests.sweep.cell.limited_curve", home, kind, str(fraction)]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    words = done.stdout.split()
    if words and words[0].startswith(str(GROUPS)):
        with contextlib.suppress(OSError):
            time.sleep(0.1)  # until the kernel has seen that it is empty
            Path(words.pop(0)).rmdir()
    return done, words


def test_a_curve_larger_than_its_memory(tmp_path):
    done, (_, _, size, expected) = run(tmp_path, "none", 0.6)
    assert done.returncode == 0
    group = new_group()
    if group is not None:
        group[0].rmdir()
    for kind in ["rlimit"] + ["cgroup"] * (group is not None):
        done, words = run(tmp_path, kind, 0.6)
        assert done.returncode == 0, done.stderr
        free, total, same_size, digest = words
        assert int(free) <= ROOM < int(same_size) == int(size)  # the limit is seen, and is less than there is to hold
        assert digest == expected
    done, _ = run(tmp_path, "rlimit", 1e4)  # the limit is real: who does not look at it fails
    assert done.returncode != 0
    assert "Cannot allocate memory" in done.stderr or "MemoryError" in done.stderr


if not sys.platform.startswith("linux"):
    pytest.skip("limits as Linux has them", allow_module_level=True)
