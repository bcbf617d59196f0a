"""Random crops in batches: against torchvision's rule, Pillow's pixels, and themselves in any other grouping."""

import importlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from sweep.data import TrainImages
from sweep.models import Feeder
from sweep.train import resample
from sweep.train.batches import CroppedImages, grouped, room_of_images
from sweep.train.crops import CROP_DRAWS, cut, packed, random_crops, windows
from sweep.train.draws import draws
from sweep.train.resample import Resampler, longest_window

CPU = torch.device("cpu")
FEEDER = Feeder((0.5,) * 3, (0.25,) * 3, device=CPU, layout=torch.channels_last)
SIZES_N2 = np.array([(60, 80), (32, 32), (128, 97), (40, 700), (9, 31), (256, 341), (33, 33), (300, 20)])


def ragged(sizes_N2=SIZES_N2, seed=0):
    bytes_N = sizes_N2.prod(1) * 3
    pixels = np.random.default_rng(seed).integers(0, 256, bytes_N.sum(), dtype=np.uint8)
    pixels[: len(pixels) // 2] = (pixels[: len(pixels) // 2] > 127) * 255  # hard edges, which overshoot
    nothing = np.arange(len(sizes_N2))
    return TrainImages(pixels, np.cumsum(bytes_N) - bytes_N, sizes_N2, nothing, (), nothing, ())


def drawn(images, seed=3):
    crops = random_crops(images.sizes_N2, draws(seed, np.arange(len(images.sizes_N2)), CROP_DRAWS))
    return crops, windows(crops, images.offsets_N, images.sizes_N2)


def test_draws_are_splitmix64_by_position():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert draws(1234567, np.array([0]), 4)[0].tolist() == [(number >> 11) / 2**53 for number in published]
    whole_ND = draws(5, np.arange(2_000), 10)
    assert np.array_equal(draws(5, np.array([7, 1_999, 3]), 10), whole_ND[[7, 1_999, 3]])
    assert draws(2**63 - 1, np.array([2**40]), 3).shape == (1, 3)
    assert kstest(whole_ND.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(whole_ND.T) - np.eye(10)).max() < 0.1
    assert abs(np.corrcoef(whole_ND.ravel(), draws(6, np.arange(2_000), 10).ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("size", [(60, 80), (32, 32), (20, 300)])
def test_crops_are_distributed_as_torchvisions(size):
    count = 1_500
    crops = random_crops(np.tile(size, (count, 1)), draws(1, np.arange(count), CROP_DRAWS))
    torch.manual_seed(0)
    rule, image = v2.RandomResizedCrop(8, antialias=True), torch.zeros(3, *size)
    theirs = [rule.make_params([image]) for _ in range(count)]
    for ours_B, name in zip(crops[:4], ("top", "left", "height", "width"), strict=True):
        theirs_B = [each[name] for each in theirs]
        assert ks_2samp(ours_B, theirs_B).pvalue > 1e-3, name
        assert (ours_B.min(), ours_B.max()) == pytest.approx((min(theirs_B), max(theirs_B)), abs=0.15 * max(size))
    assert 0.45 < crops.flipped_B.mean() < 0.55
    assert ((crops.top_B + crops.height_B <= size[0]) & (crops.left_B + crops.width_B <= size[1])).all()
    assert max(crops.height_B.max(), crops.width_B.max()) <= longest_window(np.array([size]))


def slow_twin(images, crops, side):
    """Each image alone: torchvision's pixels, and Pillow's."""
    for number in range(len(images)):
        top, left, height, width, flipped = (int(each_B[number]) for each_B in crops)
        one_CHW = images[number]
        theirs_CRR = tv.resized_crop(one_CHW, top, left, height, width, [side, side], v2.InterpolationMode.BICUBIC)
        crop = Image.fromarray(one_CHW.permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
        columns = crop.resize((side, height), Image.Resampling.BICUBIC)  # Pillow has them first if that is cheaper
        pillow_RRC = torch.from_numpy(np.array(columns.resize((side, side), Image.Resampling.BICUBIC)))
        pair = theirs_CRR.permute(1, 2, 0), pillow_RRC
        yield tuple(each_RRC.flip(1) if flipped else each_RRC for each_RRC in pair)


@pytest.mark.parametrize("side", [32, 64, 7])
def test_pixels_are_torchvisions_and_within_two_levels_of_pillows(side):
    images = ragged()
    crops, at = drawn(images)
    ours = cut(torch.from_numpy(images.flat), at, side)
    assert 0 < crops.flipped_B.sum() < len(crops.flipped_B)
    for ours_RRC, (theirs_RRC, pillow_RRC) in zip(ours, slow_twin(images, crops, side), strict=True):
        assert torch.equal(ours_RRC, theirs_RRC)
        difference_RRC = (ours_RRC.int() - pillow_RRC.int()).abs()
        assert difference_RRC.max() <= 2
        assert difference_RRC.float().mean() < 0.02


@pytest.mark.parametrize("bits", ["highest", "medium"])
@pytest.mark.parametrize("side", [32, 224, 7])
def test_matmuls_make_the_same_pixels_whatever_their_precision(side, bits):
    images = ragged()
    _, at = drawn(images)
    flat = torch.from_numpy(images.flat)
    resampler = Resampler(longest_window(SIZES_N2), side, CPU)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(bits)
    try:
        ours = resampler.cut(flat, at)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(ours, cut(flat, at, side))
    pixels, told = packed(images.flat, at)
    assert len(pixels) == 3 * int((at.height_B * at.width_B).sum())
    assert torch.equal(cut(pixels, told, side), ours)


@pytest.mark.parametrize("side", [24, 7])
def test_kernels_make_the_same_pixels_in_tritons_interpreter(side, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "sweep.train.kernels", raising=False)
    kernels = importlib.import_module("sweep.train.kernels")
    assert kernels.work(CPU)
    monkeypatch.setattr(resample, "kernels_on", lambda _device: kernels)
    images = ragged(SIZES_N2[[1, 4, 6, 7]])
    crops, at = drawn(images, seed=1)
    assert 0 < crops.flipped_B.sum() < len(crops.flipped_B)
    flat = torch.from_numpy(images.flat)
    ours = [Resampler(longest_window(images.sizes_N2), side, CPU).cut(flat, at)]
    monkeypatch.setattr(resample, "_LINES", 3 * side * int(at.height_B.max()))  # an image at a time
    ours.append(Resampler(longest_window(images.sizes_N2), side, CPU).cut(flat, at))
    for each in ours:
        assert torch.equal(each, cut(flat, at, side))
    sys.modules.pop("sweep.train.kernels")


@pytest.mark.parametrize("most", [1, 7, 8, 23, 1000])
def test_batches_are_grouped_in_their_order(most):
    batches = np.array_split(np.arange(30), 4)
    groups = grouped(batches, most)
    assert [part.tolist() for group in groups for part in group] == [part.tolist() for part in batches]
    assert all(len(group) == 1 or sum(map(len, group)) <= most for group in groups)
    assert grouped([], most) == []


@pytest.mark.parametrize("operations", [False, True])
def test_an_image_is_the_same_in_any_batch_thread_and_way_to_the_device(operations):
    images = ragged(np.tile(SIZES_N2[:5], (8, 1)))
    positions_N = np.random.default_rng(0).permutation(40)[:30]
    how = {"side": 16, "operations": operations}

    def epoch(batches, seed=4, **more):
        source = CroppedImages(images, np.zeros(30), positions_N, **how, **more)
        return torch.cat(list(source.epoch(batches, seed=seed, feeder=FEEDER)))

    whole = epoch([np.arange(30)])
    order_N = np.random.default_rng(1).permutation(30)
    parts = np.array_split(order_N, 7)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert torch.equal(epoch(parts, ahead=number == 2), whole[order_N])
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(epoch([np.arange(30)], seed=5), whole)
    source = CroppedImages(images, np.zeros(30), positions_N, **how)
    pairs = [source._drawn(positions_N[part], 4) for part in parts]
    flat = torch.from_numpy(images.flat)
    assert torch.equal(torch.cat(list(source.on_device(((flat, *pair) for pair in pairs), CPU))), whole[order_N])
    assert torch.equal(torch.cat(list(source.streamed(iter(pairs), FEEDER))), whole[order_N])


def test_tasks_that_share_a_gpu_leave_each_other_its_part():
    free, parts = 78e9, []
    for _ in range(4):  # one begins after the other
        parts.append(room_of_images(free, 80e9, 4))
        free -= parts[-1]
    assert parts == [int(80e9 / 12)] * 4
    assert room_of_images(78e9, 80e9, 1) == 26e9
    assert room_of_images(6e9, 80e9, 4) == 2e9  # others have the rest
