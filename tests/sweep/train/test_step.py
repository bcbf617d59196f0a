"""Which networks' steps may be captured; that captured ones train alike is shown on a GPU, in ``test_on_cuda``."""

import pytest
import timm
import torch
from torch import nn

from sweep.models import build_backbone, is_alike_every_time
from sweep.train.step import Steps


@pytest.mark.parametrize("name", ["vggm11", "resnet18", "vit_tiny_patch8", "mlp3x16"])
def test_the_studys_networks_do_the_same_in_every_step(name):
    model = build_backbone(name, classes=2, resolution=32, width=1.0 if name.startswith("mlp") else 0.125)
    assert is_alike_every_time(model)
    model.register_forward_hook(lambda *_: None)
    assert not is_alike_every_time(model)


def test_of_other_networks_nobody_knows():
    assert not is_alike_every_time(timm.create_model("test_efficientnet.r160_in1k", pretrained=False))
    assert not is_alike_every_time(nn.Sequential(nn.Linear(2, 2)))


class Drawn(nn.ReLU):
    """A part that a plug-in might put anywhere."""


def test_of_a_known_network_with_others_parts_nobody_knows_either():
    model = build_backbone("resnet18", classes=2, resolution=32, width=0.125)
    model.act1 = Drawn()
    assert not is_alike_every_time(model)
    model.act1 = nn.ReLU()
    assert is_alike_every_time(model)
    model.act1.forward = lambda x: x
    assert not is_alike_every_time(model)
    child = type("Child", (type(model),), {})
    model = build_backbone("resnet18", classes=2, resolution=32, width=0.125)
    model.__class__ = child
    assert not is_alike_every_time(model)


def test_a_rate_that_a_graph_reads_stays_where_it_is():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    plain, captured = (Steps(model, optimizer, capture=capture) for capture in (False, True))
    plain.at_rate(0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5
    captured.at_rate(0.25)
    where = optimizer.param_groups[0]["lr"].data_ptr()
    captured.at_rate(0.125)
    assert optimizer.param_groups[0]["lr"].data_ptr() == where
    assert float(optimizer.param_groups[0]["lr"]) == 0.125
