"""Whose a network's weights are, layer by layer, and networks put together from the layers of several.

A layer is a probed one, with all that runs between it and the next: its batch norm, its activation, the shortcut that
joins after it. What runs before the first is the first's; the classifier is nobody's layer.

Shapes: B batch, C classes, D width of what a layer hands on, K its channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sweep.base.errors import UserError
from sweep.models.build import classifier_names
from sweep.models.evidence import tensors
from sweep.models.layers import ProbedLayer
from sweep.models.pooling import pool

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Anatomy:
    """Which layer each tensor of a network's state belongs to.

    Attributes
    ----------
    layers : the probed ones, in the order in which they run.
    owner : tensor → number of its layer, 1 is the first; ``len(layers) + 1`` is the classifier.
    head : path of the classifier, a single linear layer.
    """

    layers: tuple[ProbedLayer, ...]
    owner: Mapping[str, int]
    head: str

    def spliced(self, own: State, other: State, layers: range, *, head: bool = False) -> dict[str, Tensor]:
        """A network's state, with these layers (and the classifier, if asked) from another's."""
        taken = {*layers} | ({len(self.layers) + 1} if head else set())
        return {name: (other if self.owner[name] in taken else own)[name] for name in own}

    def entry(self, layer: int) -> str:
        """Path of the module that takes what a layer hands on: the next layer, or the classifier."""
        return self.layers[layer].name if layer < len(self.layers) else self.head


def anatomy(network: nn.Module, architecture: str, layers: Sequence[ProbedLayer], *, resolution: int) -> Anatomy:
    """Look at one pass of a network: a module belongs to the layer that began last before it.

    A module that never runs by itself goes with the one it stands in; tensors of a module that layers stand in go with
    the first of these.

    Raises
    ------
    UserError
        If layers begin in another order than they are probed in, or the classifier is not one linear layer.
    """
    head = _head(network, architecture, resolution)
    begun = _begun(network, resolution)
    starts = [begun.get(layer.name, -1) for layer in layers]
    if -1 in starts or starts != sorted(starts):
        raise UserError(f"{architecture}: its layers do not run in the order in which they are probed: no split")
    owners: dict[str, int] = {}
    for name in dict(network.named_modules()):
        inside = [number for number, layer in enumerate(layers, 1) if _within(layer.name, name) and layer.name != name]
        if inside:
            owners[name] = inside[0]
        elif name in begun:
            owners[name] = max(1, sum(start <= begun[name] for start in starts))
        else:
            owners[name] = owners[name.rpartition(".")[0]]
    state = {name: owners[name.rpartition(".")[0]] for name in network.state_dict()}
    state |= {name: len(layers) + 1 for name in state if _within(name, head)}
    return Anatomy(tuple(layers), state, head)


def _head(network: nn.Module, architecture: str, resolution: int) -> str:
    """Path of the one linear layer that tells classes apart."""
    (*places,) = {name.rpartition(".")[0] for name in classifier_names(architecture, resolution)}
    if len(places) != 1 or not isinstance(network.get_submodule(places[0]), nn.Linear):
        raise UserError(f"{architecture}: its classifier is not one linear layer, so no other can take its place")
    return places[0]


def _within(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")


@torch.inference_mode()
def _begun(network: nn.Module, resolution: int) -> dict[str, int]:
    """When each module of a network begins in a pass, counted."""
    order: dict[str, int] = {}

    def note(name: str) -> None:
        """A module begins; only the first time counts."""
        order.setdefault(name, len(order))

    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: note(name)) for name, module in network.named_modules()
    ]
    was_training = network.training
    try:
        place = next(network.parameters()).device
        network.eval()(torch.zeros(2, 3, resolution, resolution, device=place))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return order


class _ReachedError(Exception):
    """What is wanted has been computed: the rest of the network is not needed."""


class Shortened(nn.Module):
    """A network that ends with a layer: what the layer hands on, averaged over places or tokens, and a linear head.

    Parameters
    ----------
    layer : number of the last layer; what comes after it stays in the state, and is neither used nor trained.
    classes : C.
    """

    def __init__(self, network: nn.Module, about: Anatomy, layer: int, *, classes: int, resolution: int) -> None:
        super().__init__()
        self.network, self.layer = network, about.layers[layer - 1]
        self.entry = about.entry(layer)
        was_training = network.training
        network.eval()
        with torch.inference_mode():
            images = torch.zeros(2, 3, resolution, resolution, device=next(network.parameters()).device)
            width = self._handed_on(images).shape[1]
        network.train(was_training)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) standardised images → (B, C) logits."""
        return self.head(self._handed_on(images))

    def _handed_on(self, images: Tensor) -> Tensor:
        """(B, D)."""
        kept: list[Tensor] = []

        def reached(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            """Keep what goes in, and leave."""
            kept.append(tensors([inputs, named])[0])
            raise _ReachedError

        handle = self.network.get_submodule(self.entry).register_forward_pre_hook(reached, with_kwargs=True)
        try:
            self.network(images)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        return _mean(kept[0], self.layer)


def _mean(handed_on: Tensor, layer: ProbedLayer) -> Tensor:
    """What a layer hands on, averaged over places or tokens (B, D)."""
    if handed_on.dim() == 2:
        return handed_on
    try:
        return pool(handed_on, layer.layout, "mean")
    except ValueError as error:
        raise UserError(f"what layer {layer.label} hands on cannot be averaged: {error}") from error
