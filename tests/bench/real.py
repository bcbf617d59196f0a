"""Embeddings of real images: published CIFAR-10 ResNets of four depths, and a full-width ResNet-34 without training.

The files come from a directory that holds ``study/weights`` and ``data``, named by TUNNEL_SWEEP_SHARED. Embeddings are
kept in ``build/bench``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sweep.data import DatasetOptions, Library, study_view
from sweep.embed import embed
from sweep.models import build_backbone, probed_layers
from sweep.probes import ProbeData

from .cifar_resnet import DEPTHS, published
from .machine import ROOT
from .shapes import Case, synthetic

_CACHE = ROOT / "build" / "bench"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SETS = {  # archive, and images of a class where not all are taken
    "fashion": ("fashion_mnist", {"train_per_class": 200, "test_per_class": 100}),
    "trashnet": ("trashnet", {}),
    "clothing": ("clothing", {}),
    "flowers": ("flowers5", {}),
    "omniglot": ("omniglot_small", {}),
    "cifar10": ("cifar10", {"train_per_class": 500, "test_per_class": 100}),
}


@dataclass(frozen=True)
class Curve:
    """A network on a dataset; ``depth`` None is the ResNet-34 without training, or with ``small`` a VGGm-11.

    With ``made`` the embeddings are white around class means, for cost alone.
    """

    dataset: str
    depth: int | None = None
    small: bool = False
    made: bool = False

    @property
    def name(self) -> str:
        if self.made:
            return self.dataset
        network = f"cifar{self.depth}" if self.depth else "vggm11-random" if self.small else "r34"
        return f"{network}-{self.dataset}"


_MADE = {
    "white": Case("white", (512,) * 4, 10, 4_000, 1_000, 30),
    "white-50000": Case("white-50000", (512,) * 2, 10, 50_000, 5_000, 30),
}
QUICK = [Curve("digits", small=True), Curve("white", made=True)]


def shared() -> Path | None:
    """Where the files are."""
    given = os.environ.get("TUNNEL_SWEEP_SHARED")
    return Path(given) if given and (Path(given) / "study" / "weights").is_dir() else None


def curves() -> Iterator[Curve]:
    """All curves whose files are there."""
    yield from QUICK
    yield Curve("white-50000", made=True)
    if shared() is None:
        return
    for dataset in _SETS:
        for depth in DEPTHS:
            yield Curve(dataset, depth)
    for dataset in ("trashnet", "flowers"):
        yield Curve(dataset)


def embeddings(curve: Curve) -> ProbeData:
    """Of all layers; computed once."""
    if curve.made:
        return synthetic(_MADE[curve.dataset], device=torch.device("cpu"))
    file = _CACHE / f"{curve.name}.pt"
    if not file.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        torch.save(vars(_embedded(curve)), file)
    return ProbeData(**torch.load(file))


def _embedded(curve: Curve) -> ProbeData:
    model, resolution = _network(curve)
    layers = probed_layers(model, resolution=resolution)
    library = Library({curve.dataset: _options(curve.dataset)}, str(_CACHE / "images"))
    images = library.images(curve.dataset, study_view(resolution))
    mean, std = _IMAGENET
    train, test = (
        embed(model, layers, pixels_NHWC, mean=mean, std=std, device=torch.device("cpu")).layers
        for pixels_NHWC in (images.train_NHWC, images.test_NHWC)
    )
    return ProbeData(
        train=train,
        train_labels_N=torch.from_numpy(images.train_labels_N),
        heldout_N=torch.from_numpy(images.heldout_N),
        test=test,
        test_labels_N=torch.from_numpy(images.test_labels_N),
        classes=images.classes,
        layer_names=[layer.name for layer in layers],
    )


def _options(dataset: str) -> DatasetOptions:
    if dataset not in _SETS:
        return DatasetOptions("builtin", generator=dataset)
    root, (archive, limits) = shared(), _SETS[dataset]
    return DatasetOptions("folder", path=str(root / "data" / f"{archive}.tar.gz"), **limits)


def _network(curve: Curve) -> tuple[nn.Module, int]:
    if curve.depth is not None:
        return published(shared() / "study" / "weights", curve.depth), 32
    if curve.small:
        return build_backbone("vggm11", classes=10, resolution=32, width=0.125).eval(), 32
    return build_backbone("resnet34", classes=100, resolution=64).eval(), 64
