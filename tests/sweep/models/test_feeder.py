"""Batches read ahead by a thread: all of them, in order, and errors where they belong."""

import threading

import pytest
import torch

from sweep.models.feeder import read_ahead


def batches(n, fails_at=None):
    for number in range(n):
        if number == fails_at:
            raise OSError("the disk is gone")
        yield torch.tensor([number])


def test_all_batches_in_order_and_prepared():
    assert [int(batch) for batch in read_ahead(batches(50), lambda batch: batch * 2)] == [2 * n for n in range(50)]


def test_an_error_comes_after_the_batches_before_it():
    read = read_ahead(batches(5, fails_at=3), lambda batch: batch)
    assert [int(next(read)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(read)


def test_whoever_stops_early_leaves_no_thread():
    read = read_ahead(batches(1000), lambda batch: batch)
    assert int(next(read)) == 0
    read.close()
    assert "feeder" not in {thread.name for thread in threading.enumerate()}
