"""Whose a network's weights are: every tensor has one layer, and parts of two networks compute as in their own."""

import pytest
import torch

from sweep.base.errors import UserError
from sweep.embed.extract import captured
from sweep.models import Shortened, anatomy, build_backbone, layers_of

SIDE = 32
FEW = {"vggm11": {"width": 0.0625}, "resnet18": {"width": 0.0625}, "vit_tiny_patch8": {"width": 0.25}}
NAMES = [*FEW, "convnext_atto"]


def pair(name):
    """Two untrained networks with moved statistics, their layers and whose the weights are."""
    about = {"resolution": SIDE, **FEW.get(name, {})}
    networks = [build_backbone(name, classes=3, seed=seed, **about).eval() for seed in (1, 2)]
    for seed, network in enumerate(networks):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    layers = layers_of(name, **about)
    return networks, layers, anatomy(networks[0], name, layers, resolution=SIDE)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_two_networks_compute_as_in_their_own(name):
    (one, two), layers, about = pair(name)
    assert about.owner.keys() == one.state_dict().keys()
    assert set(about.owner.values()) == {*range(1, len(layers) + 2)}
    assert {n for n, owner in about.owner.items() if owner == len(layers) + 1} == {
        f"{about.head}.weight", f"{about.head}.bias"
    }  # fmt: skip
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    states = [network.state_dict() for network in (one, two)]
    states = [{key: value.clone() for key, value in state.items()} for state in states]

    def outputs(state):
        one.load_state_dict(state)
        with captured(one, layers) as seen, torch.inference_mode():
            return one(images), [seen[layer.label] for layer in layers]

    own, other = (outputs(state) for state in states)
    last = len(layers)
    for layer in (1, last // 2, last):
        logits, embedded = outputs(about.spliced(*states, range(layer + 1, last + 1)))
        assert all(torch.equal(a, b) for a, b in zip(embedded[:layer], own[1][:layer], strict=True))
        if layer < last:
            assert not torch.equal(embedded[layer], own[1][layer])
            assert not torch.equal(embedded[layer], other[1][layer])
        else:
            assert torch.equal(logits, own[0])
    assert torch.equal(outputs(about.spliced(*states, range(1, last + 1), head=True))[0], other[0])
    assert torch.equal(outputs(about.spliced(*states, range(0)))[0], own[0])  # no layer: nothing changes
    assert torch.equal(outputs(about.spliced(states[0], states[0], range(2, last)))[0], own[0])  # with itself


def test_what_stands_beside_a_layer_goes_with_it():
    _, layers, about = pair("convnext_atto")
    block = next(layer.name.rpartition(".")[0] for layer in layers if layer.name.endswith("conv_dw"))
    assert len({owner for name, owner in about.owner.items() if name.startswith(f"{block}.")}) == 1  # its scale too
    (network, _), layers, about = pair("resnet18")
    assert about.owner["bn1.weight"] == about.owner["conv1.weight"] == 1
    assert about.owner["layer2.0.downsample.0.weight"] == about.owner["layer2.0.conv2.weight"]
    with pytest.raises(UserError, match="do not run in the order"):
        anatomy(network, "resnet18", layers[::-1], resolution=SIDE)


@pytest.mark.parametrize("name", NAMES)
def test_a_shortened_network_is_what_the_next_layer_is_given(name):
    (network, _), layers, about = pair(name)
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for layer in (1, len(layers)):
        given = []
        handle = network.get_submodule(about.entry(layer)).register_forward_pre_hook(
            lambda _, x, kept=given: kept.append(x[0])
        )
        network(images)
        handle.remove()
        short = Shortened(network, about, layer, classes=5, resolution=SIDE)
        logits = short(images)
        assert logits.shape == (2, 5)
        (value,) = given
        axes = {4: (2, 3), 3: (1,), 2: ()}[value.dim()]
        mean = value.mean(axes) if axes else value
        if value.dim() == 4 or not axes:  # tokens in front of the patches do not count
            torch.testing.assert_close(logits, short.head(mean))
        logits.sum().backward()
        behind = {n for n, p in short.network.named_parameters() if p.grad is not None and about.owner[n] > layer}
        assert behind == set()
        short.zero_grad()
        for parameter in short.parameters():
            parameter.grad = None
