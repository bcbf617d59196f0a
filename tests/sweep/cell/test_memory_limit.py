"""A curve whose embeddings are larger than the memory of its process and its container gives the same probes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.cell.limited_curve import ROOM
from tests.sweep.driver.test_end_to_end import ROOT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")
def test_a_curve_larger_than_its_memory(tmp_path):
    command = [sys.executable, "-m", "tests.sweep.cell.limited_curve", str(tmp_path)]
    one = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # a thread's stack counts as memory
    done = subprocess.run(command, cwd=ROOT, env=one, capture_output=True, text=True, check=False)
    group, *lines = done.stdout.splitlines() or ["None"]
    if group != "None":
        Path(group).rmdir()
    assert done.returncode == 0, done.stderr
    free, size, whole, limited = lines[0].split()
    assert int(free) <= ROOM < int(size)  # the limit is seen, and is less than there is to hold
    assert limited == whole
    assert "allocate memory" in lines[1]  # the limit is real: who does not look at it fails
