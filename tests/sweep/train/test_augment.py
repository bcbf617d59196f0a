import torch

from sweep import register
from sweep.train.augment import policy

SQUARE = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(251).to(torch.uint8)


def test_policies():
    assert {name: (policy(name).source, policy(name).operations) for name in register.OURS["augmentation"]} == {
        "off": ("evaluation", False),
        "on": ("training", False),
        "strong": ("training", True),
    }


def test_a_policy_of_ones_own(monkeypatch):
    monkeypatch.setattr(register, "_REGISTERED", {})

    @register.register_augmentation("invert", source="evaluation")
    def invert(resolution):
        return lambda image: 255 - image

    assert policy("invert").source == "evaluation"
    assert torch.equal(policy("invert").build(32)(SQUARE), 255 - SQUARE)
