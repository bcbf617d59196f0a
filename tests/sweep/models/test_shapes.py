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
