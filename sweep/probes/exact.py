"""What the solvers without epochs share: one layer's images for both fits, and a result from a fit's weights.

Shapes: N images, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweep.config import Probe
from sweep.probes.data import LinearProbe, ProbeData, ProbeResult
from sweep.probes.scores import History, Scores, Tally, summarise
from sweep.probes.source import rows_apart

_ROWS = 8192  # images scored at once
_SQUARES = 4  # covariance, its vectors, and what their computation takes


@dataclass(frozen=True)
class Linear:
    """A fitted probe: scores are x @ weight + bias, of embeddings as they are stored."""

    weight_DC: Tensor
    bias_C: Tensor


@dataclass(frozen=True)
class FitData:
    """Images of one fit of one layer, centred, float32.

    Attributes
    ----------
    x_ND : deviations from the mean, divided by the standard deviation if the recipe standardises.
    """

    x_ND: Tensor
    labels_N: Tensor
    classes: int
    mean_D: Tensor
    scale_D: Tensor

    def linear(self, weight_DC: Tensor, bias_C: Tensor) -> Linear:
        """The probe on embeddings as they are stored, from one on centred ones."""
        own_DC = weight_DC.double() * self.scale_D[:, None]
        return Linear(own_DC.float(), (bias_C.double() - self.mean_D @ own_DC).float())


def exact_bytes(data: ProbeData, layer: int) -> int:
    """Device memory of one layer: its images as stored and centred, and a few float64 matrices of its width."""
    n, width = len(data.train_labels_N), data.width(layer)
    return n * width * (data.train[layer].element_size() + 4) + 8 * _SQUARES * width**2


def fit_data(data: ProbeData, layer: int, recipe: Probe, fit_N: Tensor) -> FitData:
    """One layer's training images for one fit."""
    emb_ND, device = data.train[layer], data.device
    images_N = fit_N.nonzero().squeeze(1)
    stored_ND = emb_ND.index_select(0, images_N.to(emb_ND.device))
    x_ND = rows_apart(*stored_ND.shape, dtype=torch.float32, device=device).copy_(stored_ND)
    mean_D = x_ND.mean(0, dtype=torch.float64)
    x_ND -= mean_D.float()
    scale_D = torch.ones_like(mean_D)
    if recipe.standardize == "feature":
        std_D = x_ND.square().mean(0, dtype=torch.float64).sqrt()
        scale_D = torch.where(std_D > 0, 1 / std_D, torch.zeros_like(std_D))
        x_ND *= scale_D.float()
    return FitData(x_ND, data.train_labels_N[images_N], data.classes, mean_D, scale_D)


def both_fits(data: ProbeData, layer: int, recipe: Probe) -> Iterator[FitData]:
    """Images of the selection fit, then of the full fit; one at a time in memory."""
    for fit_N in (~data.heldout_N, torch.ones_like(data.heldout_N)):
        yield fit_data(data, layer, recipe, fit_N)


def result_of(data: ProbeData, layer: int, chooser: Linear, probe: Linear) -> ProbeResult:
    """Scores of both fits; there is one epoch, the first, chosen, best and last."""
    held_N = data.heldout_N.nonzero().squeeze(1)
    train_ND, labels_N = data.train[layer], data.train_labels_N
    held_ND = train_ND.index_select(0, held_N.to(train_ND.device))
    history = History(
        heldout=[_scores(chooser, held_ND, labels_N[held_N])],
        test=[_scores(probe, data.test[layer], data.test_labels_N)],
    )
    (result,) = summarise(history, _scores(probe, train_ND, labels_N), [data.layer_names[layer]])
    return replace(result, linear=LinearProbe.plain(probe.weight_DC, probe.bias_C)) if data.keep_weights else result


def _scores(probe: Linear, emb_ND: Tensor, labels_N: Tensor) -> Scores:
    tally = Tally(1, len(probe.bias_C), labels_N)
    for start in range(0, len(labels_N), _ROWS):
        part = slice(start, min(start + _ROWS, len(labels_N)))
        x_BD = emb_ND[part].to(labels_N.device).float()
        logits_1CB = torch.addmm(probe.bias_C, x_BD, probe.weight_DC).T.unsqueeze(0)
        tally.add(part, logits_1CB, torch.empty_like(logits_1CB))
    return tally.scores()
