"""What the engine is measured against: one probe at a time, as a script would fit it.

Shapes: N images, B batch, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sweep.base.seeds import derive_seed
from sweep.config.recipe import Probe
from sweep.probes.data import ProbeData

Batches = Callable[[Tensor, Tensor, Tensor, int], Iterator[tuple[Tensor, Tensor]]]


def loaded(x_ND: Tensor, labels_N: Tensor, order_N: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(a) Single vectors, fetched and collated by a DataLoader."""
    yield from DataLoader(TensorDataset(x_ND, labels_N), batch_size=size, sampler=order_N.tolist())


def sliced(x_ND: Tensor, labels_N: Tensor, order_N: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(b) Batches by index from the tensor."""
    for batch_B in order_N.split(size):
        yield x_ND[batch_B], labels_N[batch_B]


@dataclass(frozen=True)
class Looped:
    """Scores after every epoch of one layer: held out by the selection fit, test by the full fit."""

    heldout_top1_E: list[float]
    heldout_loss_E: list[float]
    top1_E: list[float]

    @property
    def top1(self) -> float:
        """Test top-1 at the epoch that the held-out part chooses: highest top-1, lowest loss, earliest."""
        epochs = range(len(self.top1_E))
        chosen = max(epochs, key=lambda e: (self.heldout_top1_E[e], -self.heldout_loss_E[e], -e))
        return self.top1_E[chosen]


def fit_one(data: ProbeData, layer: int, recipe: Probe, *, seed: int, batches: Batches) -> Looped:
    """Both fits of one layer with nn.Linear and torch.optim.AdamW, from the engine's initial weights and order."""
    x_ND, x_test_ND = data.train[layer].float(), data.test[layer].float()
    every_N = torch.arange(len(x_ND), device=x_ND.device)
    held_N = every_N[data.heldout_N]
    heldout = _fit(
        (x_ND, data.train_labels_N, every_N[~data.heldout_N]),
        (x_ND[held_N], data.train_labels_N[held_N]),
        _initial(data, layer, seed),
        recipe,
        [derive_seed("order", seed, "selection", epoch) for epoch in range(recipe.epochs)],
        batches,
    )
    test = _fit(
        (x_ND, data.train_labels_N, every_N),
        (x_test_ND, data.test_labels_N),
        _initial(data, layer, seed),
        recipe,
        [derive_seed("order", seed, "full", epoch) for epoch in range(recipe.epochs)],
        batches,
    )
    return Looped([top1 for top1, _ in heldout], [loss for _, loss in heldout], [top1 for top1, _ in test])


def _initial(data: ProbeData, layer: int, seed: int) -> nn.Linear:
    width = data.train[layer].shape[1]
    probe = nn.Linear(width, data.classes, device=data.train[layer].device)
    generator = torch.Generator().manual_seed(derive_seed("init", seed, data.layer_names[layer]))
    with torch.no_grad():
        probe.weight.copy_(torch.empty(width, data.classes).normal_(0, 0.01, generator=generator).T)
        probe.bias.zero_()
    return probe


def _fit(
    train: tuple[Tensor, Tensor, Tensor],
    score: tuple[Tensor, Tensor],
    probe: nn.Linear,
    recipe: Probe,
    order_seeds: list[int],
    batches: Batches,
) -> list[tuple[float, float]]:
    x_ND, labels_N, images_N = train
    optimizer = torch.optim.AdamW(probe.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    scores = []
    for order_seed in order_seeds:
        generator = torch.Generator().manual_seed(order_seed)
        order_N = images_N[torch.randperm(len(images_N), generator=generator).to(images_N.device)]
        for x_BD, labels_B in batches(x_ND, labels_N, order_N, recipe.batch_size):
            loss = F.cross_entropy(probe(x_BD), labels_B, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scores.append(_score(probe, *score, recipe.batch_size, batches))
    return scores


@torch.no_grad()
def _score(probe: nn.Linear, x_ND: Tensor, labels_N: Tensor, size: int, batches: Batches) -> tuple[float, float]:
    right = loss = 0.0
    for x_BD, labels_B in batches(x_ND, labels_N, torch.arange(len(x_ND), device=x_ND.device), size):
        logits_BC = probe(x_BD)
        right += float((logits_BC.argmax(1) == labels_B).sum())
        loss += float(F.cross_entropy(logits_BC, labels_B, reduction="sum"))
    return right / len(x_ND), loss / len(x_ND)
