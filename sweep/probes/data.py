"""What probes are fitted on, and what is known of a fitted one.

Shapes: N images, D width, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CONVERGED_NORM = 1e-2  # share of the gradient at weights of zero that a probe trained in steps may have left


@dataclass(frozen=True)
class ProbeData:
    """Embeddings of one dataset, all layers.

    Attributes
    ----------
    train, test : one (N, D) tensor per layer, any float type, on any device.
    train_labels_N, test_labels_N : int64 class ids in [0, classes), on the device that does the work.
    heldout_N : bool; True for the training images that only choose epoch and hyper-parameters.
    keep_weights : whether results bring their probes; those of many layers at once would fill the memory.
    folds_N : fold of each training image, from 0 without gaps, where probes are to be cross-fitted.
    """

    train: Sequence[Tensor]
    train_labels_N: Tensor
    heldout_N: Tensor
    test: Sequence[Tensor]
    test_labels_N: Tensor
    classes: int
    layer_names: Sequence[str]
    keep_weights: bool = False
    folds_N: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.train_labels_N.device

    def on_cpu(self) -> ProbeData:
        """The same, to be worked on by the CPU."""
        return replace(
            self,
            train_labels_N=self.train_labels_N.cpu(),
            test_labels_N=self.test_labels_N.cpu(),
            heldout_N=self.heldout_N.cpu(),
            folds_N=None if self.folds_N is None else self.folds_N.cpu(),
        )

    def width(self, layer: int) -> int:
        """Numbers in an embedding of a layer."""
        return self.train[layer].shape[1]


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe: scores are ((x − mean) · scale) @ weight + bias of embeddings x as they are stored.

    Attributes
    ----------
    mean_D, scale_D : float64.
    weight_DC, bias_C : float32.
    """

    mean_D: Tensor
    scale_D: Tensor
    weight_DC: Tensor
    bias_C: Tensor

    @classmethod
    def plain(cls, weight_DC: Tensor, bias_C: Tensor) -> LinearProbe:
        """Of embeddings as they are."""
        mean_D = weight_DC.new_zeros(len(weight_DC), dtype=torch.float64)
        return cls(mean_D, torch.ones_like(mean_D), weight_DC, bias_C)


@dataclass(frozen=True)
class ProbeResult:
    """One fitted probe; ``problem`` says why there are no numbers, and is None when there are.

    Attributes
    ----------
    layer : its index, from 0.
    recipe : index among the recipes that were asked for.
    seed_index : which of the asked seeds, from 0.
    chosen : whether held-out data chose its recipe among those of its layer; of several seeds the first is flagged,
        so that asking for more seeds changes no chosen number.
    converged : whether the gradient is as small as the solver asks for; None where that is not looked at.
    gradient_norm : of the full fit's objective at the end, over its norm at weights of zero.
    epochs_run : passes of the full fit over the training images.
    correct, heldout_correct, crossfit_correct : numpy.packbits, over test images by the full fit, over held-out images
        by the selection fit, over all training images each by the fit without its fold (empty if there was none).
    crossfit_top1, crossfit_loss : of the last, shares in [0, 1] and nats.
    penalty, penalty_at_end : of a solver that chooses it, and whether the choice is at an end of all it tried.
    penalties, heldout_losses : what it tried, and the held-out loss of each, nats.
    linear : the full fit's probe at the chosen epoch, where its weights were asked for.
    check_top1 : test top-1 of the layer once more, by a converged probe; None where that was not asked for.
    """

    problem: str | None
    layer: int = 0
    recipe: int = 0
    seed_index: int = 0
    chosen: bool = True
    epoch_chosen: int = 0
    epoch_best: int = 0
    top1: float = float("nan")
    top1_last: float = float("nan")
    top1_best: float = float("nan")
    top5: float = float("nan")
    heldout_top1: float = float("nan")
    train_top1: float = float("nan")
    test_loss: float = float("nan")
    heldout_loss: float = float("nan")
    train_loss: float = float("nan")
    top1_E: tuple[float, ...] = ()
    heldout_top1_E: tuple[float, ...] = ()
    correct: bytes = b""
    heldout_correct: bytes = b""
    crossfit_correct: bytes = b""
    crossfit_top1: float | None = None
    crossfit_loss: float | None = None
    converged: bool | None = None
    gradient_norm: float | None = None
    epochs_run: int | None = None
    penalty: float | None = None
    penalty_at_end: bool | None = None
    penalties: tuple[float, ...] = ()
    heldout_losses: tuple[float, ...] = ()
    linear: LinearProbe | None = None
    check_top1: float | None = None
