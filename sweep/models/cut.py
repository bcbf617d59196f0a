"""A network up to one of its layers: images in, the pooled embedding out, and nothing after the layer is computed.

Shapes: B batch, D embedding width.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sweep.models.layers import ProbedLayer
from sweep.models.pixels import memory_layout

_PASSES, _SECONDS = (3, 30), 1.0  # fewest and most passes, of which the fastest counts; no new one after so long


class _ReachedError(Exception):
    """The layer has been computed: the rest of the network is not needed."""


class Cut(nn.Module):
    """A network that ends after a layer and pools it."""

    def __init__(self, network: nn.Module, layer: ProbedLayer) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) standardised images → (B, D)."""
        modules, kept = dict(self.network.named_modules()), list[Tensor]()

        def reached(_module: nn.Module, inputs: object, named: object, output: object) -> None:
            """Keep the embedding, and leave."""
            kept.append(self.layer.embed([inputs, named] if self.layer.input else output, modules))
            raise _ReachedError

        handle = modules[self.layer.name].register_forward_hook(reached, with_kwargs=True)
        try:
            self.network(images)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        return kept[0]


def needed_state(network: nn.Module, layer: ProbedLayer, images: Tensor) -> dict[str, Tensor]:
    """What of a network's state a pass up to a layer reads: all but that of modules that first run after it.

    A module that never runs by itself (the projection inside a fused attention) goes with the one it stands in.
    """
    begun, reached = dict[str, None](), set[str]()

    def note(name: str) -> None:
        """A module begins; what has begun when the layer ends was needed for it."""
        begun.setdefault(name)

    modules = dict(network.named_modules())
    handles = [each.register_forward_pre_hook(lambda *_, name=name: note(name)) for name, each in modules.items()]
    handles.append(modules[layer.name].register_forward_hook(lambda *_: reached.update(begun)))
    try:
        with torch.inference_mode():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    later = set(begun) - reached - ({layer.norm} if layer.norm else set())
    return {name: value for name, value in network.state_dict().items() if not later & set(_owners(name))}


def _owners(name: str) -> list[str]:
    """Modules that a tensor stands in, but the network itself."""
    parts = name.split(".")[:-1]
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def cut_flops(network: nn.Module, layer: ProbedLayer, resolution: int) -> float:
    """Operations of one image up to a layer, two per multiply-add; the network may be without memory."""
    device = next(network.parameters()).device
    images = torch.zeros(1, 3, resolution, resolution, device=device)
    cut = Cut(network.eval().requires_grad_(False), layer)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        cut(images)
    return float(counter.get_total_flops())


def cut_milliseconds(network: nn.Module, layer: ProbedLayer, resolution: int, *, batch: int, device: str) -> float:
    """Time of one image up to a layer, ms: the fastest of a few passes of ``batch`` images."""
    where = torch.device(device)
    layout = memory_layout([layer], where)
    cut = Cut(network.eval().to(where).to(memory_format=layout), layer)
    images = torch.zeros(batch, 3, resolution, resolution, device=where).contiguous(memory_format=layout)
    passes: list[float] = []
    with torch.inference_mode():
        while len(passes) < _PASSES[0] or (sum(passes) < _SECONDS and len(passes) < _PASSES[1]):
            started = time.perf_counter()
            cut(images)
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            passes.append(time.perf_counter() - started)
    return 1000 * min(passes) / batch
