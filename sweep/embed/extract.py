"""Backbone and images to pooled embeddings of every layer, from one forward pass ([H24] A.4, protocol §5).

Shapes: N images, B batch, H and W pixels, D embedding width (one per layer).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sweep.base.arithmetic import arithmetic
from sweep.base.spans import waited
from sweep.config import ExtractionPrecision
from sweep.models import Feeder, ProbedLayer, memory_layout, small_maps, taken

_LOST = 0.02  # share of a feature's spread that the rounding of float16 may be
_ROUNDING = "rounding"  # in the metadata of a file of kept embeddings
_GPU_BATCH = 256  # images of one forward pass; a rule, so that embeddings do not depend on what else runs
# On CPU, measured (see `tests/bench`): pixels of a pass whose activations still fit the caches, and the most images
_CPU_SMALLEST = 8
_CPU_TOKENS, _CPU_LARGE_MAPS = (2**17, 128), (2**18, 32)
_CPU_CHANNELS_FIRST, _CPU_CHANNELS_LAST = (2**18, 64), (2**18, 128)  # of small maps


@dataclass(frozen=True)
class Rounding:
    """What float16 would take from a layer, by those of the first images: shares of features' deviations, in [0, 1].

    Attributes
    ----------
    median : of the features that vary; it decides how the layer is stored.
    worst : of the feature that would lose most.
    """

    median: float
    worst: float


@dataclass(frozen=True)
class Embeddings(Sequence[Tensor]):
    """One (N, D) tensor per layer, on the CPU.

    Attributes
    ----------
    rounding : one entry per layer; None where all images are alike to it, or where nobody kept it.
    """

    layers: list[Tensor] = field(default_factory=list)
    rounding: list[Rounding | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, layer: int) -> Tensor: ...
    @overload
    def __getitem__(self, layer: slice) -> list[Tensor]: ...
    def __getitem__(self, layer: int | slice) -> Tensor | list[Tensor]:
        return self.layers[layer]


@contextmanager
def captured(model: nn.Module, layers: Sequence[ProbedLayer]) -> Iterator[dict[str, Tensor]]:
    """While open, each forward pass leaves the pooled output of every probed layer in the mapping, by its label."""
    outputs: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_hook(modules, layer, outputs))
        yield outputs


@contextmanager
def _hook(modules: Mapping[str, nn.Module], layer: ProbedLayer, outputs: dict[str, Tensor]) -> Iterator[None]:
    def keep(_module: nn.Module, inputs: object, named: object, output: object) -> None:
        """Pool the output at once: the map itself is free to go."""
        outputs[layer.label] = layer.embed([inputs, named] if layer.input else output, modules)

    handle = modules[layer.name].register_forward_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def batch_size(layers: Sequence[ProbedLayer], resolution: int, device: torch.device) -> int:
    """Images of one forward pass; on CPU fewer of larger ones and of larger maps (measured, see ``tests/bench``)."""
    if device.type == "cuda":
        return _GPU_BATCH
    pixels, most = _cpu_pass(layers)
    return min(max(pixels // resolution**2, _CPU_SMALLEST), most)


def _cpu_pass(layers: Sequence[ProbedLayer]) -> tuple[int, int]:
    """Pixels and most images of a pass on CPU."""
    if not any(layer.side for layer in layers):
        return _CPU_TOKENS
    if not small_maps(layers):
        return _CPU_LARGE_MAPS
    first = memory_layout(layers, torch.device("cpu")) == torch.contiguous_format
    return _CPU_CHANNELS_FIRST if first else _CPU_CHANNELS_LAST


@torch.inference_mode()
def embed(
    model: nn.Module,
    layers: Sequence[ProbedLayer],
    images_NHWC: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    precision: ExtractionPrecision = "float32",
    spill: Path | None = None,
) -> Embeddings:
    """Pooled embeddings of every probed layer.

    Parameters
    ----------
    model : backbone in evaluation mode, on ``device``.
    layers : which layers, see :func:`sweep.models.probed_layers`.
    images_NHWC : uint8 images, already resized and cropped; may be memory-mapped.
    mean, std : of the three channels, in [0, 1], what the weights were trained with.
    precision : of the matmuls and convolutions.
    spill : directory for embeddings that the host's memory is not to hold; they are mapped from files there, which
        are gone with the tensors. None: in memory.

    Returns
    -------
    one (N, D) tensor per layer: float16, or float32 where that would lose a layer's spread, see :func:`stored_as`. A
    value beyond float16 that shows after the first batch becomes infinite, and is reported by the probes as a problem
    of that layer.

    Raises
    ------
    torch.OutOfMemoryError
        If not even one image fits; until then the batch is halved.
    """
    n, on_gpu = len(images_NHWC), device.type == "cuda"
    found = Embeddings()
    size, start = min(batch_size(layers, images_NHWC.shape[1], device), n), 0
    layout = memory_layout(layers, device, precision=precision)
    feeder = Feeder(mean, std, device=device, layout=layout)
    model.to(memory_format=layout)  # or each pass would copy the weights into it
    with captured(model, layers) as outputs, arithmetic(device, precision):
        while start < n:
            try:
                fed = feeder.on_device(_batches(images_NHWC, start, size, pinned=on_gpu))
                for images in waited(fed, "waiting for images to embed"):
                    model(feeder.normalized(images))
                    pooled = [outputs[layer.label] for layer in layers]
                    if not found:
                        found.rounding.extend(map(rounding_of, pooled))
                        types = map(stored_as, found.rounding)
                        found.layers.extend(
                            _room(n, each_BD.shape[1], dtype, pinned=on_gpu, spill=spill)
                            for each_BD, dtype in zip(pooled, types, strict=True)
                        )
                    for emb_ND, each_BD in zip(found, pooled, strict=True):
                        emb_ND[start : start + size].copy_(each_BD.to(emb_ND.dtype), non_blocking=True)
                    start += size
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                outputs.clear()
    if on_gpu:
        torch.cuda.synchronize(device)
    return found


def _batches(images_NHWC: np.ndarray, start: int, size: int, *, pinned: bool) -> Iterator[Tensor]:
    """Copies of the images from ``start`` on, so many at a time."""
    for first in range(start, len(images_NHWC), size):
        yield taken(images_NHWC, slice(first, first + size), pinned=pinned)


def rounding_of(emb_BD: Tensor) -> Rounding | None:
    """What float16 would take from a layer, by embeddings of some images; None if these are all alike.

    What counts is how far images are apart, feature by feature: where all are near a large mean or all are tiny, as
    before training, float16 keeps little of it. A feature of which more is lost than there is counts as lost.
    """
    spread_D, rounding_D = emb_BD.std(0, correction=0), (emb_BD - emb_BD.half().float()).square().mean(0).sqrt()
    varying_D = spread_D > torch.finfo(torch.float32).eps * emb_BD.abs().amax(0)
    if not varying_D.any():
        return None
    lost = (rounding_D[varying_D] / spread_D[varying_D]).clamp(max=1.0)
    return Rounding(float(lost.median()), float(lost.max()))


def stored_as(rounding: Rounding | None) -> torch.dtype:
    """Type that holds a layer's embeddings: float16 where what it takes is small beside how far images are apart."""
    return torch.float16 if rounding is None or rounding.median <= _LOST else torch.float32


def _room(n: int, width: int, dtype: torch.dtype, *, pinned: bool, spill: Path | None) -> Tensor:
    """An empty (N, D) matrix.

    Copies between pinned memory and the device wait for nothing: the next batch is read while this one runs.
    """
    if spill is None:
        return torch.empty(n, width, dtype=dtype, pin_memory=pinned)
    spill.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=spill, prefix="embeddings-") as file:  # unlinked, the mapping keeps it
        _reserved(file.fileno(), n * width * dtype.itemsize, spill)
        return torch.from_file(file.name, shared=True, size=n * width, dtype=dtype).view(n, width)


def _reserved(file: int, size: int, place: Path) -> None:
    """OSError where the disk has no room: writing to the mapping would end the process without a word."""
    if size and hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            what = f"{size / 1e9:.3g} GB of embeddings that are more than resources.memory do not fit {place}"
            raise OSError(error.errno, f"{what}: {error.strerror}") from error


def room_bytes(n: int, width: int, *, pinned: bool) -> int:
    """Bytes of the host that :func:`embed` takes for a layer in memory; torch rounds what it pins up to powers of two.

    Parameters
    ----------
    n, width : images, and numbers of an embedding, float16.
    pinned : whether a GPU embeds.
    """
    size = torch.float16.itemsize * n * width
    return 1 << (size - 1).bit_length() if pinned and size else size


def cached(file: Path | None, compute: Callable[[], Embeddings]) -> Embeddings:
    """Embeddings from a safetensors file if it is there, else computed and put there; None only computes."""
    if file is None:
        return compute()
    if file.exists():
        return _read(file)
    found = compute()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".tmp-{os.getpid()}-{file.name}")
    about = {_ROUNDING: json.dumps([each and [each.median, each.worst] for each in found.rounding])}
    safetensors.torch.save_file({str(layer): emb_ND for layer, emb_ND in enumerate(found)}, temporary, about)
    temporary.replace(file)
    return found


def _read(file: Path) -> Embeddings:
    """Kept embeddings; files of older versions do not say what float16 took."""
    with safetensors.safe_open(file, framework="pt") as opened:
        layers = [opened.get_tensor(str(layer)) for layer in range(len(opened.keys()))]
        kept = json.loads((opened.metadata() or {}).get(_ROUNDING, "null"))
    return Embeddings(layers, [each and Rounding(*each) for each in kept or [None] * len(layers)])
