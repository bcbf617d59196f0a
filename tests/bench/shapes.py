"""The shapes of the study, and embeddings of such shapes that a probe can learn from.

Shapes: N images, D width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.config.recipe import Probe
from sweep.models import facts
from sweep.probes.data import ProbeData

_SEPARATION = 4.0  # distance of class means in noise widths: neither trivial nor hopeless for 10 to 200 classes
_HELD_EVERY = 10


def widths_of(architecture: str) -> tuple[int, ...]:
    """Embedding widths of a full-width backbone at 224 px."""
    return tuple(layer.width for layer in facts.layers(architecture, resolution=224))


@dataclass(frozen=True)
class Case:
    """Probes of one curve.

    Attributes
    ----------
    widths : of the layers.
    n, n_test : training and test images.
    epochs : the protocol's 30 where time allows; the cost of an epoch does not depend on their number.
    """

    name: str
    widths: tuple[int, ...]
    classes: int
    n: int
    n_test: int
    epochs: int
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.0

    @property
    def recipe(self) -> Probe:
        """The probe recipe of the protocol, §6, with this case's numbers."""
        return Probe(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=self.weight_decay)


def synthetic(case: Case, *, device: torch.device, seed: int = 0) -> ProbeData:
    """Float16 embeddings around class means, one draw per layer; the same for every engine."""
    generator = torch.Generator(device).manual_seed(seed)
    labels_N = torch.arange(case.n, device=device) % case.classes
    test_labels_N = torch.arange(case.n_test, device=device) % case.classes
    train, test = [], []
    for width in case.widths:
        scale = _SEPARATION / math.sqrt(width)
        means_CD = torch.randn(case.classes, width, generator=generator, device=device) * scale
        train.append(_around(means_CD, labels_N, generator))
        test.append(_around(means_CD, test_labels_N, generator))
    return ProbeData(
        train=train,
        train_labels_N=labels_N,
        heldout_N=(torch.arange(case.n, device=device) // case.classes) % _HELD_EVERY == 0,
        test=test,
        test_labels_N=test_labels_N,
        classes=case.classes,
        layer_names=[f"layer{number}" for number in range(len(case.widths))],
    )


def _around(means_CD: Tensor, labels_N: Tensor, generator: torch.Generator, chunk: int = 8192) -> Tensor:
    emb_ND = torch.empty(len(labels_N), means_CD.shape[1], dtype=torch.float16, device=means_CD.device)
    for rows_BD, labels_B in zip(emb_ND.split(chunk), labels_N.split(chunk), strict=True):
        noise_BD = torch.randn(rows_BD.shape, generator=generator, device=means_CD.device)
        rows_BD.copy_(noise_BD + means_CD[labels_B])
    return emb_ND


def chosen_layers(data: ProbeData, layers: Sequence[int]) -> ProbeData:
    """The same images with some of the layers."""
    return ProbeData(
        train=[data.train[layer] for layer in layers],
        train_labels_N=data.train_labels_N,
        heldout_N=data.heldout_N,
        test=[data.test[layer] for layer in layers],
        test_labels_N=data.test_labels_N,
        classes=data.classes,
        layer_names=[data.layer_names[layer] for layer in layers],
    )


def fit_flops(widths: Sequence[int], *, classes: int, n: int, n_held: int, n_test: int, epochs: int) -> float:
    """Multiply-adds × 2 of both fits and their scores: 4NDC an epoch to train, 2NDC to score."""
    trained = 4 * epochs * (2 * n - n_held)
    scored = 2 * epochs * (n_held + n_test) + 2 * n
    return float(sum(widths)) * classes * (trained + scored)


def data_flops(data: ProbeData, epochs: int) -> float:
    """:func:`fit_flops` of some embeddings."""
    return fit_flops(
        [emb_ND.shape[1] for emb_ND in data.train],
        classes=data.classes,
        n=len(data.train_labels_N),
        n_held=int(data.heldout_N.sum()),
        n_test=len(data.test_labels_N),
        epochs=epochs,
    )
