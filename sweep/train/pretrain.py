"""Supervised ID training of a backbone, with checkpoints that resume exactly ([H24] A.3, protocol §4).

Every random choice derives from the weights key and the epoch, so a run that was killed and resumed ends with
the same weights as one that was not.

Shapes: N images, B batch, H and W pixels, C classes.
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweep.base.arithmetic import arithmetic, float32_bits
from sweep.base.seeds import derive_seed
from sweep.base.spans import span, waited
from sweep.config import Recipe
from sweep.models import Feeder, is_alike_every_time, resident, taken
from sweep.train.checkpoint import Checkpoints
from sweep.train.mix import Mixed, mixed
from sweep.train.ranks import ALONE, Ranks
from sweep.train.saving import BEST, KEPT, WEIGHTS, Saver, apart, unsealed
from sweep.train.step import PAYS_AFTER, Steps

log = logging.getLogger(__name__)


_EVALUATION_BATCH = 512


class TrainingDivergedError(Exception):
    """The loss stopped being a number; training again would do the same."""


class ImageSource(Protocol):
    """Training images and labels, in uint8 batches that depend only on the epoch's seed and the indices."""

    labels_N: np.ndarray

    def epoch(self, batches: Sequence[np.ndarray], *, seed: int, feeder: Feeder) -> Iterator[Tensor]:
        """For each batch of indices its uint8 (B, H, W, 3) images on the device, augmented by ``seed`` and index."""
        ...


@dataclass(frozen=True)
class Labelled:
    """uint8 (M, H, W, 3) evaluation images, and labels of those that are meant.

    Attributes
    ----------
    images_NHWC : may be mapped from a file: they are read a batch at a time.
    labels_N : of the images meant.
    positions_N : where these are among the images; None: they are all of them.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    positions_N: np.ndarray | None = None

    def batch(self, part: slice, *, pinned: bool = False) -> Tensor:
        """Copies of some of the images meant, (B, H, W, 3)."""
        return taken(self.images_NHWC, part if self.positions_N is None else self.positions_N[part], pinned=pinned)


@dataclass(frozen=True)
class Trained:
    """Weights of a training run after ``epoch`` epochs, and how they came about; 0 are the initial weights.

    ``images`` is how many it trains on; ``history`` has an entry per epoch: train_loss, and heldout_top1 where that was
    looked at.
    """

    state: dict[str, Tensor]
    epoch: int
    heldout_top1: float
    test_top1: float
    seconds: float
    images: int
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Along:
    """Epochs whose weights are handed to ``save`` while a run passes them, before the next epoch starts."""

    epochs: frozenset[int] = frozenset()
    save: Callable[[Trained], None] = lambda _trained: None


NOTHING_ALONG = Along()


OnEpoch = Callable[[Sequence[Mapping[str, float]], int], None]  # the history so far, and how many epochs there will be


def learning_rate(step: int, *, steps_per_epoch: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to zero, per step; ``step`` counts from 0.

    A recipe that decays at epochs has a tenth of its rate from each of them on, and no cosine.
    """
    warmup, total = recipe.warmup_epochs * steps_per_epoch, recipe.epochs * steps_per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.decays_at:
        return recipe.lr * 0.1 ** sum(step >= epoch * steps_per_epoch for epoch in recipe.decays_at)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def epoch_batches(n: int, batch_size: int, seed: int) -> list[np.ndarray]:
    """A seeded permutation in ceil(n / batch_size) nearly equal batches, so that none has a single image."""
    order_N = np.random.Generator(np.random.PCG64(seed)).permutation(n)
    return np.array_split(order_N, math.ceil(n / batch_size))


def pretrain(
    model: nn.Module,
    train: ImageSource,
    *,
    heldout: Labelled,
    test: Labelled,
    recipe: Recipe,
    key: str,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    checkpoints: Checkpoints,
    on_epoch: OnEpoch = lambda _history, _total: None,
    along: Along = NOTHING_ALONG,
    last_epoch: int | None = None,
    ranks: Ranks = ALONE,
    layout: torch.memory_format = torch.channels_last,
    of_steps: int | None = None,
) -> Trained:
    """Train, keep the epoch that ``recipe.checkpoint_on`` names, resume from a checkpoint if there is one.

    Parameters
    ----------
    along : epochs to keep besides. A checkpoint that is already past one of them is not resumed.
    last_epoch : stop after so many epochs of the recipe and return the weights there, where only ``along`` is wanted.
    ranks : this process among those that train together. All call this with the same arguments, and all but the first
        with ``checkpoints``, ``on_epoch`` and ``along`` that do nothing.
    layout : of maps and of convolutions' weights, see :func:`sweep.models.memory_layout`; the state that is returned is
        contiguous whichever it is.
    of_steps : steps of the run that this one is a sample of, and is to take its steps like; None: it is the run.

    Raises
    ------
    TrainingDivergedError
        If the loss is not finite.
    RankLostError
        If another process is gone.
    """
    model.to(device).to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    run = _Run(model, optimizer, recipe, key, mean, std, device, len(train.labels_N), ranks, layout, of_steps)
    run.restore(checkpoints, not_after=min(along.epochs, default=recipe.epochs))
    started = time.monotonic()
    spent, epochs = run.seconds, recipe.epochs if last_epoch is None else last_epoch
    if run.epoch in along.epochs:
        along.save(run.weights(heldout, test))
    with Saver(checkpoints) as saver:
        for epoch in range(run.epoch, epochs):
            with float32_bits(device, recipe.precision):
                run.train_epoch(epoch, train)
            run.keep_best(epoch, heldout, test)
            run.seconds = spent + time.monotonic() - started
            if run.epoch in along.epochs:
                along.save(run.weights(heldout, test))
            on_epoch(run.history, epochs)
            if epoch + 1 < epochs and saver.is_due:
                with span("checkpoints", f"epoch {epoch + 1}"):
                    saver.save(run.snapshot())
    run.steps.release()
    if last_epoch is not None:
        return run.weights(heldout, test)
    return run.chosen(test)


class _Run:
    """A training run between two epochs: everything that a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        key: str,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        images: int,
        ranks: Ranks,
        layout: torch.memory_format,
        of_steps: int | None,
    ):
        self.ranks, self.shared = ranks, ranks.share(model)
        self.model, self.optimizer, self.recipe, self.key = model, optimizer, recipe, key
        self.feeder = Feeder(mean, std, device=device, layout=layout)
        self.device, self.images = device, images
        self.epoch = 0
        self.seconds = 0.0
        self.best: dict[str, Any] = {"score": -1.0}
        self.history: list[dict[str, float]] = []
        self.steps = Steps(model, optimizer, capture=self._is_captured(of_steps))

    def _is_captured(self, of_steps: int | None) -> bool:
        """Whether steps are CUDA graphs: where all are alike, the network's too, and it pays."""
        recipe = self.recipe
        number = of_steps or recipe.epochs * math.ceil(self.images / recipe.batch_size)
        alone = self.device.type == "cuda" and self.ranks.size == 1 and not (recipe.mixup or recipe.cutmix)
        return alone and number >= PAYS_AFTER and is_alike_every_time(self.model)

    def forward(self, images_BHWC: Tensor, *, model: nn.Module | None = None, mix: Mixed | None = None) -> Tensor:
        """Logits of uint8 images on the device, in the recipe's precision."""
        images = self.feeder.normalized(images_BHWC)
        images = images if mix is None else mix.images(images)
        with arithmetic(self.device, self.recipe.precision):
            return (model or self.model)(images)

    @span("training")
    def train_epoch(self, epoch: int, train: ImageSource) -> None:
        """One pass over the training images; raises TrainingDivergedError on a loss that is not finite."""
        self.model.train()
        torch.manual_seed(derive_seed(self.key, "model noise", epoch, *self.ranks.noise))  # drop path, dropout
        n = len(train.labels_N)
        batches = epoch_batches(n, self.recipe.batch_size, derive_seed(self.key, "order", epoch))
        parts = [self.ranks.part(batch) for batch in batches]
        images_of = train.epoch(parts, seed=derive_seed(self.key, "augment", epoch), feeder=self.feeder)
        targets = self._targets(train.labels_N, parts)  # on the device once an epoch: a step waits for nothing
        total = torch.zeros((), device=self.device)
        fed = waited(images_of, "waiting for images to train on")
        for number, (target_B, images) in enumerate(zip(targets, fed, strict=True)):
            self.steps.at_rate(
                learning_rate(epoch * len(batches) + number, steps_per_epoch=len(batches), recipe=self.recipe)
            )
            count, side = images.shape[:2]
            mix = mixed(self.recipe, count, side, key=self.key, epoch=epoch, batch=number, device=self.device)
            loss = self.steps(
                self._loss, images, target_B, mix=mix, weight=self.ranks.weight(count, len(batches[number]))
            )
            total += loss * count
        mean_loss = float(self.ranks.total(total)) / n
        if not math.isfinite(mean_loss):
            raise TrainingDivergedError(
                f"training loss is {mean_loss} in epoch {epoch + 1}: try a smaller lr than {self.recipe.lr}"
            )
        self.history.append({"epoch": epoch + 1, "train_loss": mean_loss})
        self.epoch = epoch + 1

    def _loss(self, images_BHWC: Tensor, target_B: Tensor, mix: Mixed | None) -> Tensor:
        """Loss of a batch, mixed where the recipe says so."""
        recipe = self.recipe
        logits_BC = self.forward(images_BHWC, model=self.shared, mix=mix).float() / recipe.temperature
        if mix is None:
            return F.cross_entropy(logits_BC, target_B, label_smoothing=recipe.label_smoothing)
        return mix.loss(logits_BC, target_B, smoothing=recipe.label_smoothing)

    def _targets(self, labels_N: np.ndarray, parts: Sequence[np.ndarray]) -> Sequence[Tensor]:
        """Labels of each batch's part, on the device."""
        labels = resident(np.concatenate([labels_N[indices_B] for indices_B in parts]), self.device)
        return labels.split([len(indices_B) for indices_B in parts])

    @span("scores while training")
    def keep_best(self, epoch: int, heldout: Labelled, test: Labelled) -> None:
        """Keep this epoch's weights if it is one to score, and they are the best so far or, by the recipe, the last."""
        done, recipe = epoch + 1, self.recipe
        if done % recipe.evaluate_every and done < recipe.epochs:
            return
        heldout_top1 = top1(self, heldout)
        self.history[-1]["heldout_top1"] = heldout_top1
        score = {
            "heldout": lambda: heldout_top1,
            "test": lambda: top1(self, test),
            "last": lambda: float(epoch),
        }[recipe.checkpoint_on]()
        if score > self.best["score"]:
            best = {"score": score, "epoch": epoch, "heldout_top1": heldout_top1, "state": _copied(self.model)}
            self.best = best

    def chosen(self, test: Labelled) -> Trained:
        """The weights of the epoch that was kept; the network has them from now on."""
        best = self.best
        self.model.load_state_dict(best["state"])
        accuracies = best["heldout_top1"], top1(self, test)
        return Trained(best["state"], best["epoch"] + 1, *accuracies, self.seconds, self.images, self.history)

    def weights(self, heldout: Labelled, test: Labelled) -> Trained:
        """The weights as they are between two epochs."""
        accuracies = top1(self, heldout), top1(self, test)
        return Trained(_copied(self.model), self.epoch, *accuracies, self.seconds, self.images, list(self.history))

    def snapshot(self) -> dict[str, Any]:
        """Everything needed to go on, apart from what training changes; the best weights are never changed in place."""
        return {
            "key": self.key,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "model": apart(self.model.state_dict()),
            "optimizer": apart(self.optimizer.state_dict()),
            "best": self.best,
            "history": [dict(entry) for entry in self.history],
        }

    def restore(self, checkpoints: Checkpoints, *, not_after: int) -> None:
        """Go on from a snapshot; one that is damaged, foreign, or past an epoch still wanted is said and ignored."""
        data = self.ranks.agreed(checkpoints.load())
        if data is None:
            return
        try:
            state = torch.load(io.BytesIO(unsealed(data)), map_location=self.device, weights_only=True)
            if isinstance(state, dict) and KEPT in state:
                state[BEST] = self._whole(state[KEPT], checkpoints)
            self._refuse_other(state)
        except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
            log.warning("checkpoint of %s is damaged (%s): training starts anew", self.key, error)
            return
        if state["epoch"] > not_after:
            log.warning("checkpoint of %s is past epoch %d, which is wanted: training starts anew", self.key, not_after)
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():  # laid out as the parameter, which the step assumes
            moments |= {
                n: torch.empty_like(parameter).copy_(v) for n, v in moments.items() if v.shape == parameter.shape
            }
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.best, self.history = state["best"], state["history"]
        if "state" in self.best:
            self.best["state"] = {name: value.cpu() for name, value in self.best["state"].items()}

    def _whole(self, best: dict[str, Any], checkpoints: Checkpoints) -> dict[str, Any]:
        """The best epoch with its weights, which stand apart; ValueError if these are not the ones meant."""
        data = self.ranks.agreed(checkpoints.best.load(best["epoch"]) if checkpoints.best else None)
        if data is None:
            raise ValueError(f"the best weights, of epoch {best['epoch'] + 1}, are gone")
        found = torch.load(io.BytesIO(unsealed(data)), map_location="cpu", weights_only=True)
        if (found["key"], found["epoch"]) != (self.key, best["epoch"]):
            raise ValueError(f"the best weights belong to {found['key']}, epoch {found['epoch'] + 1}")
        return best | {WEIGHTS: found[WEIGHTS]}

    def _refuse_other(self, state: object) -> None:
        """ValueError if this is not a snapshot of this run, whatever else it may be."""
        parts = {"key", "epoch", "seconds", "model", "optimizer", "best", "history"}
        if not isinstance(state, dict) or not parts <= set(state):
            raise ValueError("it is no snapshot of a training run")
        if state["key"] != self.key:
            raise ValueError(f"it belongs to {state['key']}")
        shapes = ({name: value.shape for name, value in s.items()} for s in (state["model"], self.model.state_dict()))
        if len(set(map(str, shapes))) > 1:
            raise ValueError("it holds weights of another network")


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }


@torch.inference_mode()
def top1(run: _Run, data: Labelled) -> float:
    """Share of images that the backbone's own classifier gets right; NaN for no images."""
    run.model.eval()
    n, ranks = len(data.labels_N), run.ranks
    starts = range(ranks.rank * _EVALUATION_BATCH, n, ranks.size * _EVALUATION_BATCH)
    parts = [slice(start, min(start + _EVALUATION_BATCH, n)) for start in starts]
    images_of = (data.batch(part, pinned=run.device.type == "cuda") for part in parts)
    labels_N = resident(data.labels_N, run.device)
    right = torch.zeros((), dtype=torch.int64, device=run.device)
    for part, images in zip(parts, run.feeder.on_device(images_of), strict=True):
        right += (run.forward(images).argmax(1) == labels_N[part]).sum()
    return int(ranks.total(right)) / n if n else float("nan")
