"""Augmented batches: one set of processes for all epochs, and nothing that depends on them."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sweep.base.seeds import derive_seed
from sweep.data import TrainImages
from sweep.models import Feeder
from sweep.train.batches import AugmentedImages

FEEDER = Feeder((0.5,) * 3, (0.25,) * 3, device=torch.device("cpu"), layout=torch.channels_last)
POSITIONS_N = np.array([7, 2, 5, 0, 3, 9, 4])
EPOCHS = (11, [np.array([6, 0, 2]), np.array([1, 5])]), (12, [np.array([3]), np.array([4, 1, 0])])


@pytest.fixture
def images(tmp_path):
    """Ten images of several sizes in a memory map, as the cache has them."""
    sizes_N2 = np.array([(4 + n % 3, 5) for n in range(10)])
    bytes_N = sizes_N2.prod(axis=1) * 3
    pixels = np.random.default_rng(0).integers(0, 256, bytes_N.sum(), dtype=np.uint8)
    pixels.tofile(tmp_path / "pixels.u8")
    flat = np.memmap(tmp_path / "pixels.u8", dtype=np.uint8, mode="r")
    names = tuple(map(str, range(10)))
    return TrainImages(flat, np.cumsum(bytes_N) - bytes_N, sizes_N2, np.arange(10), names, np.arange(10), ())


def noisy(image_CHW):
    """A square with noise by torch's generator, and which process made it."""
    made_by = torch.frombuffer(bytearray(os.getpid().to_bytes(4, "big")), dtype=torch.uint8)
    noise = torch.randint(0, 256, (8,), dtype=torch.uint8)
    return torch.cat([made_by, noise + image_CHW[0, 0, 0]]).view(3, 2, 2)


def slow_twin(images, batches, seed):
    """One epoch as it was first written: a loader of its own, torch's generator seeded per image."""

    def image(index):
        torch.manual_seed(derive_seed(seed, int(POSITIONS_N[index])))
        return noisy(images[int(POSITIONS_N[index])])

    for _ in DataLoader(range(1)):  # which draws a number of torch's generator
        break
    state = torch.get_rng_state()
    for indices_B in batches:
        found = torch.stack([image(index) for index in indices_B.tolist()])
        torch.set_rng_state(state)
        yield found.permute(0, 2, 3, 1)


def split(batches):
    """Noise, and processes, of an epoch's batches of NHWC images."""
    flat = torch.cat([batch.permute(0, 3, 1, 2).flatten(1) for batch in batches])
    return flat[:, 4:], {bytes(row.tolist()) for row in flat[:, :4]}


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_is_that_of_the_slow_twin_and_processes_stay(images, workers):
    source = AugmentedImages(images, np.arange(7), POSITIONS_N, transform=noisy, workers=workers)
    processes = []
    for seed, batches in (*EPOCHS, EPOCHS[0]):
        torch.manual_seed(5)
        expected, _ = split(list(slow_twin(images, batches, seed)))
        after = torch.get_rng_state()
        torch.manual_seed(5)
        found, made_by = split(list(source.epoch(batches, seed=seed, feeder=FEEDER)))
        assert torch.equal(found, expected)
        assert torch.equal(torch.get_rng_state(), after)  # the noise of drop path goes on from here
        processes.append(made_by)
        next(source.epoch(batches, seed=99, feeder=FEEDER))  # an epoch that is left early leaves nothing for the next
    assert set().union(*processes) <= {*processes[0]}
    assert len(processes[0]) == max(1, workers)
    assert (os.getpid().to_bytes(4, "big") in processes[0]) == (workers == 0)


def test_images_go_to_another_process_by_the_place_of_their_map(images, tmp_path):
    data = pickle.dumps(images)
    again = pickle.loads(data)
    assert images.flat[:60].tobytes() not in data
    assert again.flat.filename == str(tmp_path / "pixels.u8")
    assert not again.flat.flags.writeable
    assert all(torch.equal(again[n], images[n]) for n in range(10))
    part = pickle.loads(pickle.dumps(TrainImages(np.array(images.flat), *list(vars(images).values())[1:])))
    assert torch.equal(part[3], images[3])  # pixels that are in memory go by value
