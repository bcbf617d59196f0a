"""Axes from shapes alone, against cases written by hand; and pooling against torch and numpy."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sweep.models import pooling
from sweep.models.evidence import BATCHES, Seen
from sweep.models.layout import Layout, Stated, Unclear, layout

ONE, TWO = BATCHES


def seen(*shapes, inputs=(), calls=1):
    return Seen(inputs=inputs, outputs=shapes, calls=calls)


def found(one, two, **stated):
    return layout(seen((ONE, *one)), seen((TWO, *two)), Stated(**stated))


@pytest.mark.parametrize(
    ("one", "two", "stated", "expected"),
    [
        ((64, 56, 56), (64, 112, 112), {}, Layout("BCHW", 64)),
        ((56, 56, 64), (112, 112, 64), {}, Layout("BHWC", 64)),
        ((8, 8, 8), (8, 16, 16), {}, Layout("BCHW", 8)),  # as many channels as places
        ((196, 192), (784, 192), {}, Layout("BTC", 192)),
        ((192, 196), (192, 784), {}, Layout("BCT", 192)),
        ((197, 192), (785, 192), {"prefix_tokens": 1}, Layout("BTC", 192, 1)),
        ((201, 192), (789, 192), {"prefix_tokens": 5}, Layout("BTC", 192, 5)),
        ((196, 192), (784, 192), {"prefix_tokens": 1}, Layout("BTC", 192)),  # gained later, as in ConViT
        ((197, 64), (785, 64), {"first": True}, Layout("BTC", 64, 1)),  # not counted, as in PiT
        ((16, 384), (49, 384), {}, Layout("BTC", 384)),  # 4×4 and 7×7: no class tokens
        ((1, 192), (1, 192), {}, Layout("B1C", 192)),
        ((512,), (512,), {}, Layout("BC", 512)),
        ((512, 1, 1), (512, 1, 1), {}, Layout("BC11", 512)),
        ((1, 14, 14), (1, 28, 28), {"convolution": True}, Layout("BCHW", 1)),
        ((4096, 1, 1), (4096, 8, 8), {"convolution": True}, Layout("BCHW", 4096)),  # a kernel as large as the map
        ((1536, 8, 8), (1536, 18, 18), {}, Layout("BCHW", 1536)),  # without padding
    ],
)
def test_axes_are_told_apart(one, two, stated, expected):
    assert found(one, two, **stated) == expected


@pytest.mark.parametrize(
    ("one", "two", "stated", "said"),
    [
        ((16, 196, 128), (16, 784, 128), {}, "2 axes stay and 1 follow"),  # NesT: blocks of tokens
        ((8, 196, 196), (8, 784, 784), {"convolution": True}, "follows the side"),  # attention, heads as channels
        ((7, 7), (7, 7), {}, "2 axes stay"),
        ((192, 7, 7), (192, 7, 7), {"convolution": True}, "axes stay"),  # of a fixed size, whatever the image
        ((64, 56, 60), (64, 113, 57), {}, "follow"),
        ((197, 64), (785, 64), {}, "nothing says which"),
        ((195, 64), (779, 64), {}, "cannot be told apart"),
    ],
)
def test_what_stays_ambiguous_is_refused_with_what_was_seen(one, two, stated, said):
    refused = found(one, two, **stated)
    assert isinstance(refused, Unclear)
    assert said in refused.why
    assert str((ONE, *one)) in refused.why


def test_the_batch_is_an_axis_of_its_own():
    inner = layout(seen((ONE * 196, 16, 24)), seen((TWO * 784, 16, 24)), Stated())
    assert isinstance(inner, Unclear)
    assert "images alone" in inner.why
    both = layout(
        seen((ONE * 196, 16, 24), (ONE, 197, 384)), seen((TWO * 784, 16, 24), (TWO, 785, 384)), Stated(prefix_tokens=1)
    )
    assert both == Layout("BTC", 384, 1, tensor=1)  # TNT: the other tensor is no image each
    state = layout(
        seen((ONE, 49, 8), (ONE, 64, 14, 14), inputs=((ONE, 64, 14, 14),)),
        seen((TWO, 49, 8), (TWO, 64, 28, 28), inputs=((TWO, 64, 28, 28),)),
        Stated(),
    )
    assert state == Layout("BCHW", 64, tensor=1)  # a state beside the stream
    assert isinstance(layout(seen((ONE, 3), (ONE, 3)), seen((TWO, 3), (TWO, 3)), Stated()), Unclear)
    assert "3 times" in layout(seen((ONE, 3), calls=3), seen((TWO, 3), calls=3), Stated()).why
    assert isinstance(layout(None, None, Stated()), Unclear)


def test_pooling_by_hand():
    map_BCHW, shape = torch.arange(16.0).reshape(1, 1, 4, 4), Layout("BCHW", 1)
    assert pooling.pool(map_BCHW, shape, "2x2").tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert pooling.pool(map_BCHW[:, :, :2, :1], shape, "2x2").tolist() == [[0.0, 4.0]]
    assert pooling.pool(map_BCHW, shape, "mean").tolist() == [[7.5]]
    assert pooling.pool(map_BCHW, shape, "max").tolist() == [[15.0]]
    tokens_BTC, one = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]]), Layout("BTC", 2, 1)
    assert pooling.pool(tokens_BTC, one, "mean").tolist() == [[2.0, 3.0]]
    assert pooling.pool(tokens_BTC, one, "class").tolist() == [[9.0, 9.0]]
    assert pooling.pool(tokens_BTC, one, "class+mean").tolist() == [[9.0, 9.0, 2.0, 3.0]]
    assert pooling.pool(tokens_BTC, one, "max").tolist() == [[3.0, 4.0]]
    gem = [[((1 + 27) / 2) ** (1 / 3), ((8 + 64) / 2) ** (1 / 3)]]
    assert pooling.pool(tokens_BTC, one, "gem")[0].tolist() == pytest.approx(gem[0])
    with pytest.raises(ValueError, match="where BTC with C 3 was shown"):
        pooling.pool(tokens_BTC, Layout("BTC", 3, 1), "mean")


@pytest.mark.parametrize("way", ["2x2", "mean", "max", "gem"])
def test_layouts_of_one_map_are_pooled_alike(way):
    map_BCHW = torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    first = pooling.pool(map_BCHW, Layout("BCHW", 5), way)
    last = pooling.pool(map_BCHW.permute(0, 2, 3, 1), Layout("BHWC", 5), way)
    torch.testing.assert_close(first, last)
    if way != "2x2":
        tokens_BCT = map_BCHW.flatten(2)
        torch.testing.assert_close(first, pooling.pool(tokens_BCT, Layout("BCT", 5), way))
        torch.testing.assert_close(first, pooling.pool(tokens_BCT.transpose(1, 2), Layout("BTC", 5), way))
        numbers = {"mean": np.mean, "max": np.max, "gem": lambda x, axis: np.cbrt(np.mean(x**3, axis))}
        np.testing.assert_allclose(first, numbers[way](map_BCHW.numpy().astype(float), axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize("sides", [(4, 4), (7, 7), (3, 8), (1, 5), (55, 55)])
def test_both_memory_layouts_of_a_map_are_pooled_like_torch_pools_it(sides):
    map_BCHW = torch.randn(3, 5, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.adaptive_avg_pool2d(map_BCHW, 2).flatten(1)
    for memory in (torch.contiguous_format, torch.channels_last):
        pooled = pooling.pool(map_BCHW.float().contiguous(memory_format=memory), Layout("BCHW", 5), "2x2")
        torch.testing.assert_close(pooled.double(), expected, rtol=1e-5, atol=1e-6)
