"""Shapes without arithmetic: as torch's own, and its errors where a tensor does not fit."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sweep.models.evidence import watch
from sweep.models.shapes import Shapes

NORMS = [
    (F.batch_norm, (2, 6, 5, 5), ("running", 6)),
    (F.batch_norm, (2, 6), ("running", 6)),
    (F.instance_norm, (2, 6, 5, 5), ()),
    (F.layer_norm, (2, 7, 6), ((6,),)),
    (F.layer_norm, (2, 7, 6), ((7, 6),)),
    (F.group_norm, (2, 6, 5), (3,)),
]


def arguments(given, device):
    if given[:1] == ("running",):
        return torch.zeros(given[1], device=device), torch.ones(given[1], device=device)
    return given


@pytest.mark.parametrize(("norm", "shape", "given"), NORMS)
def test_a_norm_gives_what_torch_gives_without_its_numbers(norm, shape, given):
    real = norm(torch.randn(shape), *arguments(given, "cpu"))
    with Shapes():
        ours = norm(torch.empty(shape, device="meta"), *arguments(given, "meta"))
        by_name = F.layer_norm(torch.empty(2, 6, device="meta"), normalized_shape=(6,))
        kept = norm(torch.ones(shape), *arguments(given, "cpu"))
    assert (ours.shape, ours.dtype, ours.device.type) == (real.shape, real.dtype, "meta")
    assert by_name.shape == (2, 6)
    assert torch.equal(kept, norm(torch.ones(shape), *arguments(given, "cpu")))  # with memory nothing is left out


def meta(*shape, **options):
    return torch.empty(*shape, device="meta", **options)


def turned(*shape):
    """Channels last: the same places in another order."""
    return meta(*shape).to(memory_format=torch.channels_last)


QUERY = (meta(2, 3, 5, 4), meta(2, 3, 7, 4), meta(2, 3, 7, 6))
CALLS = {
    "gelu": lambda: F.gelu(turned(2, 3, 4, 5), approximate="tanh"),
    "relu in place": lambda: F.relu(meta(2, 3), inplace=True),
    "relu of half": lambda: F.relu(meta(2, 3, dtype=torch.float16)),
    "relu of whole numbers": lambda: F.relu(meta(2, 3, dtype=torch.int64)),
    "hardtanh": lambda: F.hardtanh(meta(6, 4)[:, ::2], 0.0, 6.0),
    "dropout": lambda: F.dropout(meta(2, 3), 0.5, training=True),
    "normalize": lambda: F.normalize(meta(2, 3, 4), dim=-1),
    "add": lambda: turned(2, 3, 4, 5) + turned(2, 3, 4, 5),
    "add laid out otherwise": lambda: meta(2, 3, 4, 5) + turned(2, 3, 4, 5),
    "add of a number": lambda: meta(2, 3).add(1),
    "scaled add": lambda: torch.add(meta(2, 3), meta(2, 3), alpha=2),
    "mul by one row": lambda: meta(2, 3, 4) * meta(4),
    "mul by one column": lambda: meta(2, 3, 4) * meta(3, 1),
    "mul that grows": lambda: meta(4) * meta(2, 3, 4),
    "mul that grows at a one": lambda: meta(2, 1, 4) * meta(2, 3, 4),
    "mul of another type": lambda: meta(2, 3, dtype=torch.float16) * meta(2, 3),
    "whole numbers and a fraction": lambda: meta(2, 3, dtype=torch.int64) * 0.5,
    "div": lambda: torch.div(meta(2, 3), 2),
    "div that rounds": lambda: torch.div(meta(2, 3), 2, rounding_mode="floor"),
    "linear": lambda: F.linear(turned(2, 3, 4, 5), meta(7, 5), meta(7)),
    "linear of a vector": lambda: F.linear(meta(5), meta(7, 5)),
    "linear of one": lambda: F.linear(meta(2, 5), meta(5)),
    "attention": lambda: F.scaled_dot_product_attention(*QUERY),
    "attention with a mask": lambda: F.scaled_dot_product_attention(*QUERY, attn_mask=meta(2, 1, 5, 7)),
    "causal attention": lambda: F.scaled_dot_product_attention(*QUERY, is_causal=True),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_comes_out_is_laid_out_as_torch_does(call):
    theirs = call()
    with Shapes():
        ours = call()
    assert (ours.shape, ours.stride(), ours.dtype, ours.device) == (
        theirs.shape,
        theirs.stride(),
        theirs.dtype,
        theirs.device,
    )


WRONG = {
    "linear": lambda: F.linear(meta(2, 5), meta(7, 6)),
    "its bias": lambda: F.linear(meta(2, 5), meta(7, 5), meta(6)),
    "add": lambda: meta(2, 3) + meta(4),
    "normalize": lambda: F.normalize(meta(2, 3), dim=4),
    "attention": lambda: F.scaled_dot_product_attention(meta(2, 3, 5, 4), meta(2, 3, 7, 5), meta(2, 3, 7, 6)),
    "its mask": lambda: F.scaled_dot_product_attention(*QUERY, attn_mask=meta(2, 1, 5, 8)),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_operators_of_what_does_not_fit_are_errors(call):
    with pytest.raises((RuntimeError, IndexError)):
        call()
    with Shapes(), pytest.raises((RuntimeError, IndexError)):
        call()


def test_what_does_not_fit_is_still_an_error():
    meta = torch.empty(2, 6, 5, device="meta")
    with Shapes():
        with pytest.raises(RuntimeError, match="normalized_shape"):
            F.layer_norm(meta, (4,))
        with pytest.raises(RuntimeError):
            F.group_norm(meta, 4)
        with pytest.raises(RuntimeError):
            meta.add_(torch.empty(7, 9, device="meta"))
        assert meta.mul_(2).add_(1) is meta


def test_a_network_of_one_resolution_by_its_norm_is_seen_to_break_at_another():
    with torch.device("meta"), Shapes():
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm([4, 8, 8]))
    assert watch(model, 7, 8).error is None
    assert "normalized_shape" in watch(model, 7, 16).error
