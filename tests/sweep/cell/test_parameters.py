"""Parameters up to each layer, against sums by hand and the whole network's."""

from dataclasses import replace
from itertools import pairwise

import pytest
import timm
from torch import nn

from sweep.cell.parameters import parameters_so_far
from sweep.models import build_backbone, probed_layers


def test_a_network_of_convolutions_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))
    layers = probed_layers(model, resolution=16, pattern=r"[0-3]")
    first, norm = 3 * 8 * 9 + 8, 16
    assert parameters_so_far(model, layers) == [first, first + norm, first + norm, first + norm + 32]
    inputs = [replace(layer, input=True) for layer in layers]
    assert parameters_so_far(model, inputs) == [0, first, first + norm, first + norm]


@pytest.mark.parametrize("name", ["vggm11", "vit_tiny_patch16_224"])
def test_parameters_grow_up_to_all_but_the_head(name):
    model = timm.create_model(name) if name.startswith("vit") else build_backbone(name, classes=10, resolution=32)
    found = parameters_so_far(model, probed_layers(model, resolution=224 if name.startswith("vit") else 32))
    assert found == sorted(found)
    assert 0 < found[0] < found[-1] <= sum(parameter.numel() for parameter in model.parameters())
    if name.startswith("vit"):
        steps = {b - a for a, b in pairwise(found)}
        assert steps == {sum(p.numel() for p in model.blocks[0].parameters())}  # all blocks are alike
        rest = sum(p.numel() for part in (model.norm, model.head) for p in part.parameters())
        assert found[-1] == sum(p.numel() for p in model.parameters()) - rest


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    model[1].weight = model[0].weight
    layers = probed_layers(model, resolution=16, pattern=r"[01]")
    assert parameters_so_far(model, layers) == [12, 15]
