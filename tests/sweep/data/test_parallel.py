"""Work of several processes is that of one, in its order, and its failures stand where they belong."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import psutil
import pytest

from sweep.data.parallel import LostProcessError, in_order


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """As if items took so long that others are asked after the first."""
    monkeypatch.setattr("sweep.data.parallel._TRIAL_SECONDS", 0.0)
    monkeypatch.setattr("sweep.data.parallel._WORTH_SECONDS", 1e-9)


def test_results_and_errors_stand_where_they_would_with_one():
    squares = in_order(np.square, iter(range(3_000)), count=3_000, processes=2)
    assert [int(value) for value in squares] == [number**2 for number in range(3_000)]
    got = in_order(partial(divmod, 7), [3, 2, 1, 0, 5], count=5, processes=2)
    assert [next(got) for _ in range(3)] == [(2, 1), (3, 1), (7, 0)]
    with pytest.raises(ZeroDivisionError):
        next(got)
    assert _children() == []


def test_a_process_that_dies_is_told_by_its_signal_and_its_items():
    kills = in_order(partial(_kill, os.getpid()), range(4), count=4, processes=2)
    with pytest.raises(LostProcessError, match=r"died of SIGKILL \(is memory short\?\)") as lost:
        list(kills)
    assert set(lost.value.items) <= {1, 2, 3}
    assert _children() == []


def _kill(but, item):
    if os.getpid() != but:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_little_work_is_not_worth_a_process(monkeypatch):
    monkeypatch.setattr("sweep.data.parallel._WORTH_SECONDS", 60.0)
    monkeypatch.setattr("sweep.data.parallel._by_others", None)
    assert list(in_order(abs, range(50), count=50, processes=8)) == list(range(50))


PARENT = """
import sys, time
from sweep.data import parallel
parallel._TRIAL_SECONDS, parallel._WORTH_SECONDS = 0.0, 1e-9
for number in parallel.in_order(abs, iter(int, 1), count=10**9, processes=2):
    print(number, flush=True)
"""


def test_processes_end_with_whoever_asked_them_and_need_no_main_program():
    """From standard input, which no process of multiprocessing could import again."""
    parent = subprocess.Popen([sys.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    parent.stdin.write(PARENT)
    parent.stdin.close()
    assert [parent.stdout.readline() for _ in range(50)] == ["0\n"] * 50
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.kill()
    parent.stdout.close()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=100)
    assert alive == []


def _children():
    """Processes of ours that serve."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [child for child in psutil.Process().children() if "serve()" in " ".join(child.cmdline())]
        if not found:
            break
        time.sleep(0.05)
    return found
