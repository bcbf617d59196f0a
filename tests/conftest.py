"""Options and order of the tests."""

import os
from collections import Counter

import scipy.linalg  # noqa: F401 - loads what is limited below
import threadpoolctl
import torch
from hypothesis import settings

# Ray's workers would run at niceness 15: beside the other process of a parallel run they get next to no time, and a
# test that waits for one runs out of it.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name

# Beside another process of a parallel run, threads that wait for each other in a loop take the processor from those
# that they wait for: a fit of two seconds took forty. Tests that are about threads say how many; programs that tests
# start have as many as ever, and let them sleep.
os.environ |= {"OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "4"}
if "PYTEST_XDIST_WORKER" in os.environ:
    threadpoolctl.threadpool_limits(1, user_api="blas")
    torch.set_num_threads(1)

# What lands must depend neither on luck nor on how busy the machine is: the same examples in every run, however long
# they take. `pytest --hypothesis-profile default` looks for others.
settings.register_profile("same examples", derandomize=True, deadline=None)
settings.load_profile("same examples")


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="build every architecture of timm for the census, not a third")


def pytest_collection_modifyitems(items):
    """Files with slow tests first: begun last, the longest of them would run alone while the other process is done."""
    slow = Counter(item.nodeid.partition("::")[0] for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.nodeid.partition("::")[0]])
