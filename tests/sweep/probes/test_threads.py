"""Pieces of a fit beside each other."""

import threading

import torch

from sweep.probes.threads import each


def test_on_a_gpu_one_follows_the_other_whatever_the_threads():
    """A graph cannot be captured while another is, and the precision of matmuls is the process's."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = each(lambda _: threading.get_ident(), range(8), device=torch.device("cuda"))
        beside = each(lambda _: threading.get_ident(), range(8), device=torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    assert set(found) == {threading.get_ident()}
    assert threading.get_ident() not in beside
