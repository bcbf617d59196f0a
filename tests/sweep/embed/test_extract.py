"""Extraction against the obvious way: one image at a time, one layer at a time, contiguous maps."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import safetensors.torch
import torch

from sweep.config import PENALTIES, Probe
from sweep.embed.extract import Embeddings, _room, batch_size, cached, embed, room_bytes, rounding_of, stored_as
from sweep.models import Feeder, memory_layout
from sweep.models.build import build_backbone
from sweep.models.layers import probed_layers
from sweep.probes import ProbeData, fit_probes

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")


def backbone(name, resolution=32, width=0.125):
    model = build_backbone(name, classes=3, resolution=resolution, width=width).eval()
    return model, probed_layers(model, resolution=resolution)


def pictures(n, resolution=32):
    return np.random.default_rng(0).integers(0, 256, (n, resolution, resolution, 3), dtype=np.uint8)


def quadrants(map_CHW):
    """Mean of each quarter of a map with even sides; a map of 2×2 or less as it is."""
    _, height, width = map_CHW.shape
    if height <= 2 and width <= 2:
        return map_CHW.ravel()
    halves = [slice(None, height // 2), slice(height // 2, None)]
    return np.stack([map_CHW[:, rows, columns].mean((1, 2)) for rows in halves for columns in halves], 1).ravel()


def one_by_one(model, layers, images_NHWC):
    """What extraction must equal: every layer of every image by itself."""
    modules, found = dict(model.named_modules()), [[] for _ in layers]
    for image_HWC in images_NHWC:
        pixels = ((image_HWC.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
        for rows, layer in zip(found, layers, strict=True):
            seen = []
            handle = modules[layer.name].register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
            with torch.inference_mode():
                model(torch.from_numpy(np.ascontiguousarray(pixels))[None])
            handle.remove()
            output = seen[0][0].double().numpy()
            rows.append(output.mean(0) if layer.kind == "tokens" else quadrants(output))
    return [np.stack(rows) for rows in found]


@pytest.mark.parametrize("name", ["vggm11", "resnet18", "vit_tiny_patch8"])
def test_equals_one_image_and_one_layer_at_a_time(name):
    model, layers = backbone(name)
    images_NHWC = pictures(2)
    slow = one_by_one(model, layers, images_NHWC)
    fast = embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=CPU)
    for emb_ND, slow_ND, layer in zip(fast, slow, layers, strict=True):
        assert emb_ND.dtype == stored_as(rounding_of(torch.from_numpy(slow_ND).float()))
        scale = np.abs(slow_ND).max()
        np.testing.assert_allclose(emb_ND.float(), slow_ND, rtol=1e-3, atol=1e-3 * scale, err_msg=layer.name)


def test_small_maps_of_many_channels_are_channels_first_on_cpu():
    formats = {}
    for resolution, width in ((64, 1.0), (64, 0.125), (224, 1.0)):
        _, layers = backbone("resnet18", resolution, width=width)
        formats[resolution, width] = memory_layout(layers, CPU)
    last = torch.channels_last
    assert formats == {(64, 1.0): torch.contiguous_format, (64, 0.125): last, (224, 1.0): last}


def test_large_maps_in_float32_are_channels_first_on_a_gpu():
    gpu, last = torch.device("cuda"), torch.channels_last
    _, large = backbone("resnet18", 224, width=1.0)
    _, small = backbone("vggm11", 32, width=1.0)
    _, tokens = backbone("vit_tiny_patch8", 32, width=0.25)
    assert memory_layout(large, gpu, precision="float32") == torch.contiguous_format
    assert {memory_layout(large, gpu, precision=each) for each in ("tf32", "bfloat16", None)} == {last}
    assert {memory_layout(layers, gpu, precision="float32") for layers in (small, tokens)} == {last}


@pytest.mark.parametrize(
    ("name", "resolution", "width", "images"),
    [
        ("vggm11", 32, 0.125, 128),  # few channels
        ("vggm11", 64, 0.125, 64),
        ("resnet18", 64, 1.0, 64),  # many, in small maps
        ("resnet18", 224, 1.0, 8),  # large maps
        ("vit_tiny_patch8", 32, 0.25, 128),
        ("vit_tiny_patch8", 64, 0.25, 32),
    ],
)
def test_images_of_a_pass_follow_the_layers_on_cpu(name, resolution, width, images):
    _, layers = backbone(name, resolution, width=width)
    assert batch_size(layers, resolution, CPU) == images


def test_channels_of_a_layer_are_those_of_its_map():
    model, layers = backbone("resnet18", 32, width=1.0)
    convolutions = dict(model.named_modules())
    assert [layer.channels for layer in layers] == [convolutions[layer.name].out_channels for layer in layers]
    assert {layer.side for layer in layers} >= {1, 2, 4}


def test_no_image_is_lost_between_batches():
    model, layers = backbone("vggm11", width=0.0625)
    images_NHWC = pictures(2 * batch_size(layers, 32, CPU) + 5)
    together = embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=CPU)
    for start in (0, batch_size(layers, 32, CPU) - 2, len(images_NHWC) - 3):
        apart = embed(model, layers, images_NHWC[start : start + 3], mean=MEAN, std=STD, device=CPU)
        for all_ND, some_ND in zip(together, apart, strict=True):
            torch.testing.assert_close(all_ND[start : start + 3], some_ND, rtol=2e-3, atol=1e-3)


def test_out_of_memory_shrinks_the_batch_and_changes_nothing(monkeypatch):
    model, layers = backbone("resnet18", width=0.0625)
    images_NHWC = pictures(46)
    expected = embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=CPU)
    sizes, forward = [], model.forward

    def small_device(images_NCHW):
        sizes.append(len(images_NCHW))
        if len(images_NCHW) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(images_NCHW)

    monkeypatch.setattr(model, "forward", small_device)
    shrunk = embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=CPU)
    assert sizes == [46, 23, 11, *[5] * 9, 1]
    for emb_ND, expected_ND in zip(shrunk, expected, strict=True):
        torch.testing.assert_close(emb_ND, expected_ND, rtol=2e-3, atol=1e-3)


def test_an_image_that_does_not_fit_is_an_error(monkeypatch):
    model, layers = backbone("vggm11", width=0.0625)

    def no_device(_images_NCHW):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", no_device)
    with pytest.raises(torch.OutOfMemoryError):
        embed(model, layers, pictures(3), mean=MEAN, std=STD, device=CPU)


def test_batches_shrink_with_the_resolution():
    sizes = [batch_size([], resolution, CPU) for resolution in (16, 32, 64, 128, 224, 512)]
    assert sizes == [128, 128, 32, 8, 8, 8]


def mean_111(values):
    return torch.tensor(values).view(1, 3, 1, 1)


def test_normalized_images_are_channels_last():
    """As they are stored: no copy where maps are to be channels last."""
    feeder = Feeder(MEAN, STD, device=CPU, layout=torch.channels_last)
    images_NCHW = feeder.normalized(torch.from_numpy(pictures(2)))
    plain_NCHW = (torch.from_numpy(pictures(2)).permute(0, 3, 1, 2) / 255 - mean_111(MEAN)) / mean_111(STD)
    assert torch.allclose(images_NCHW, plain_NCHW, atol=1e-6)
    assert images_NCHW.is_contiguous(memory_format=torch.channels_last)
    model, layers = backbone("vggm11")
    modules, formats = dict(model.named_modules()), []
    for layer in layers[:4]:
        modules[layer.name].register_forward_hook(
            lambda m, i, o: formats.append(o.is_contiguous(memory_format=torch.channels_last))
        )
    with torch.inference_mode():
        model(images_NCHW)
    assert formats == [True] * 4


def test_bfloat16_computes_in_fewer_bits_and_nearly_the_same():
    model, layers = backbone("vggm11")
    images_NHWC = pictures(4)
    exact, mixed = (
        embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=CPU, precision=dtype)
        for dtype in ("float32", "bfloat16")
    )
    for one_ND, other_ND in zip(exact, mixed, strict=True):
        assert other_ND.dtype == torch.float16
        assert not torch.equal(one_ND, other_ND)
        assert (one_ND - other_ND).float().norm() < 0.05 * one_ND.float().norm()


def test_embeddings_in_files_are_those_in_memory_and_leave_nothing_behind(tmp_path):
    model, layers = backbone("vggm11")
    settings = {"mean": MEAN, "std": STD, "device": CPU}
    spilled = embed(model, layers, pictures(5), **settings, spill=tmp_path / "spill")
    for one_ND, other_ND in zip(embed(model, layers, pictures(5), **settings), spilled, strict=True):
        assert torch.equal(one_ND, other_ND)
    assert list((tmp_path / "spill").iterdir()) == []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # a disk on which files of a megabyte have no room
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
        with pytest.raises(OSError, match=r"0.0102 GB of embeddings .* do not fit .*spill"):
            _room(10_000, 512, torch.float16, pinned=False, spill=tmp_path / "spill")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "spill").iterdir()) == []


def test_what_float16_would_lose_is_stored_as_float32():
    """An untrained network: deep layers are tiny or nearly the same for all images; the spread of images survives."""
    model, layers = backbone("vggm17")
    images_NHWC = pictures(24)
    stored = embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=CPU)
    assert {emb_ND.dtype for emb_ND in stored} == {torch.float16, torch.float32}
    for emb_ND, slow_ND, layer in zip(stored, one_by_one(model, layers, images_NHWC), layers, strict=True):
        found, slow = (each - each.mean(0) for each in (emb_ND.double().numpy(), slow_ND))
        assert np.abs(found - slow).mean() <= 0.05 * np.abs(slow).mean(), layer.name


@pytest.mark.parametrize(
    ("factor", "shift", "dtype", "worst"),
    [
        (1.0, 0.0, torch.float16, (1e-5, 1e-3)),
        (1.0, 5.0, torch.float16, (1e-4, 3e-3)),
        (1e-7, 0.0, torch.float32, (0.1, 1.0)),
        (1e5, 0.0, torch.float32, (1.0, 1.0)),
        (1.0, 1000.0, torch.float32, (0.1, 0.3)),
    ],
)
def test_the_type_of_storage_follows_rounding_beside_spread(factor, shift, dtype, worst):
    emb_BD = torch.randn(32, 20, generator=torch.Generator().manual_seed(0)) * factor + shift
    rounding = rounding_of(emb_BD)
    assert stored_as(rounding) == dtype
    assert worst[0] <= rounding.worst <= worst[1]
    assert (rounding.median > 0.02) == (dtype == torch.float32)


def test_the_share_that_float16_takes_is_that_of_its_steps():
    """Mean 40 and deviation .02, in steps of 1/32: a rounding error is even in ± 1/64, and numpy rounds the same."""
    generator = np.random.default_rng(0)
    wide_B, narrow_B = generator.normal(size=5000), generator.normal(40, 0.02, 5000)
    emb_BD = torch.from_numpy(np.stack([wide_B, narrow_B, wide_B, np.full(5000, 3.0)], 1)).float()
    found = rounding_of(emb_BD)
    assert found.worst == pytest.approx(1 / 32 / np.sqrt(12) / 0.02, rel=0.05)
    wide_B = wide_B.astype(np.float32)
    lost_B = wide_B - wide_B.astype(np.float16).astype(np.float32)
    assert found.median == pytest.approx(np.sqrt(np.mean(lost_B**2)) / wide_B.std(), rel=1e-4)
    assert stored_as(found) == torch.float16  # most of the layer is kept; the worst is reported
    assert rounding_of(torch.full((9, 4), 3.0)) is None


def test_kept_embeddings_say_what_float16_took_and_older_files_do_not(tmp_path):
    model, layers = backbone("vggm11", width=0.0625)
    found = embed(model, layers, pictures(5), mean=MEAN, std=STD, device=CPU)
    assert len(found.rounding) == len(layers)
    for part in (found, Embeddings(found.layers, [None] * len(layers))):
        file = tmp_path / f"{id(part)}.safetensors"
        for read in (cached(file, lambda part=part: part), cached(file, pytest.fail)):
            assert read.rounding == part.rounding
            assert all(map(torch.equal, read, found))
    old = tmp_path / "old.safetensors"
    safetensors.torch.save_file({str(at): emb_ND for at, emb_ND in enumerate(found)}, old)
    assert cached(old, pytest.fail).rounding == [None] * len(layers)


@pytest.mark.parametrize(
    ("factor", "shift"), [(1e-6, 0.0), (1e-3, 0.0), (1e3, 0.0), (1e6, 0.0), (1.0, 100.0), (1e-6, 1e-3)]
)
def test_scale_and_origin_of_a_layer_change_nothing_from_extraction_to_the_probe(factor, shift):
    generator = np.random.default_rng(1)
    labels_N = np.arange(160) % 3
    images_NHWC = generator.integers(0, 90, (160, 32, 32, 3), dtype=np.uint8)
    for label in range(3):
        images_NHWC[labels_N == label, :, 8 * label : 8 * label + 8] += 25
    model, layers = backbone("vggm11")
    first = layers[:1]

    def result():
        emb_ND = embed(model, first, images_NHWC, mean=MEAN, std=STD, device=CPU)[0]
        data = ProbeData(
            train=[emb_ND[:90]],
            train_labels_N=torch.from_numpy(labels_N[:90]),
            heldout_N=torch.arange(90) % 6 == 5,
            test=[emb_ND[90:]],
            test_labels_N=torch.from_numpy(labels_N[90:]),
            classes=3,
            layer_names=["first"],
        )
        (found,) = fit_probes(data, default_probe(), seed=1)
        return emb_ND.dtype, found

    dtype, plain = result()
    with torch.no_grad(), changed(model, first[0].name, factor, shift):
        moved_dtype, moved = result()
    assert dtype == torch.float16
    assert moved_dtype == (torch.float16 if factor in (1e-3, 1e3) else torch.float32)
    assert plain.top1 > 0.6
    bits = [np.unpackbits(np.frombuffer(each.correct, np.uint8), count=70) for each in (plain, moved)]
    assert (bits[0] == bits[1]).mean() >= 0.98  # float16 rounds: an image at a boundary may turn


def default_probe():
    return Probe(solver="converged", standardize="feature", label_smoothing=0.0, penalties=PENALTIES["converged"])


@contextmanager
def changed(model, name, factor, shift):
    """The output of a module, as if the next layer undid it."""
    handle = dict(model.named_modules())[name].register_forward_hook(lambda _module, _inputs, out: out * factor + shift)
    try:
        yield
    finally:
        handle.remove()


def test_pinned_memory_is_counted_as_torch_takes_it():
    assert [room_bytes(1000, 100, pinned=pinned) for pinned in (False, True)] == [200_000, 2**18]
    assert room_bytes(1024, 128, pinned=True) == 2**18
    assert room_bytes(0, 100, pinned=True) == 0
