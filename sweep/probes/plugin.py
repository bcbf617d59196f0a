"""Probes that plug-ins registered: the plug-in gives scores, the rest is as for our own solvers.

Shapes: N training images, M images to score, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sweep import register
from sweep.base.errors import UserError
from sweep.base.seeds import derive_seed
from sweep.config import Probe
from sweep.probes.data import ProbeData, ProbeResult
from sweep.register import Plugin

Scorer = Callable[[Tensor], Tensor]  # (M, D) → (M, C)


def fit_registered(data: ProbeData, recipe: Probe, layers: Sequence[int], *, seed: int) -> list[ProbeResult]:
    """Both fits of some layers by the plug-in that ``recipe.solver`` names: without the held-out part, and on all.

    It knows no epochs: the first is the chosen, the best and the last.

    Parameters
    ----------
    layers : those whose embeddings are finite.
    seed : given to the plug-in, and torch's random state while it runs.

    Raises
    ------
    UserError
        If no such probe is registered here, or it does not give what :func:`sweep.register.register_probe` asks for.
    """
    plugin = register.find_plugin("probe", recipe.solver)
    if plugin is None:
        raise UserError(
            f"probe.solver {recipe.solver} is not registered here (there is {', '.join(register.names('probe'))})"
        )
    if not layers:
        return []
    fit_N = ~data.heldout_N
    selection = _fit(plugin, data, recipe, layers, fit_N, seed)
    full = _fit(plugin, data, recipe, layers, torch.ones_like(fit_N), seed)
    return [_result(plugin, data, *fits) for fits in zip(layers, selection, full, strict=True)]


def _fit(
    plugin: Plugin, data: ProbeData, recipe: Probe, layers: Sequence[int], fit_N: Tensor, seed: int
) -> list[Scorer]:
    labels_N = data.train_labels_N[fit_N]
    train = [data.train[layer].to(labels_N.device)[fit_N].float() for layer in layers]
    scales = [_standardisation(emb_ND, recipe) for emb_ND in train]
    with torch.random.fork_rng(devices=[labels_N.device] if labels_N.is_cuda else []):
        torch.manual_seed(derive_seed("registered probe", seed))
        inputs = [scale(emb_ND) for scale, emb_ND in zip(scales, train, strict=True)]
        scorers = list(plugin.make(inputs, labels_N, classes=data.classes, recipe=recipe, seed=seed))
    if len(scorers) != len(layers) or not all(callable(scorer) for scorer in scorers):
        raise UserError(f"{plugin.label} of {plugin.module} must give one function for each of {len(layers)} layers")
    return [_after(scale, scorer) for scale, scorer in zip(scales, scorers, strict=True)]


def _standardisation(emb_ND: Tensor, recipe: Probe) -> Callable[[Tensor], Tensor]:
    """What the recipe does to embeddings first: mean 0 and variance 1 on the images of this fit, or nothing."""
    if recipe.standardize == "none":
        return Tensor.float
    std_D, mean_D = torch.std_mean(emb_ND.double(), 0, correction=0)
    scale_D = torch.where(std_D > 0, 1 / std_D, torch.zeros_like(std_D))  # constant features become zero
    return lambda emb_MD: ((emb_MD.double() - mean_D) * scale_D).float()


def _after(scale: Callable[[Tensor], Tensor], scorer: Scorer) -> Scorer:
    return lambda emb_MD: scorer(scale(emb_MD))


@dataclass(frozen=True)
class _Outcome:
    """Of one layer on some images: shares in [0, 1], cross-entropy of the scores' softmax in nats, who is right."""

    top1: float
    top5: float
    loss: float
    correct_M: np.ndarray


def _outcome(plugin: Plugin, scorer: Scorer, emb_MD: Tensor, labels_M: Tensor, classes: int) -> _Outcome:
    scores_MC = scorer(emb_MD.to(labels_M.device))
    if not isinstance(scores_MC, Tensor) or scores_MC.shape != (len(emb_MD), classes):
        given = tuple(scores_MC.shape) if isinstance(scores_MC, Tensor) else type(scores_MC).__name__
        raise UserError(f"{plugin.label} of {plugin.module} gives scores {given}, not ({len(emb_MD)}, {classes})")
    scores_MC = scores_MC.double()
    true_M1 = scores_MC.gather(1, labels_M.unsqueeze(1))
    correct_M = scores_MC.argmax(1) == labels_M
    top5 = ((scores_MC > true_M1).sum(1) < 5).double().mean()
    loss = (scores_MC.logsumexp(1) - true_M1.squeeze(1)).mean()
    return _Outcome(float(correct_M.double().mean()), float(top5), float(loss), correct_M.cpu().numpy())


def _result(plugin: Plugin, data: ProbeData, layer: int, chooser: Scorer, probe: Scorer) -> ProbeResult:
    held_N, labels_N = data.heldout_N, data.train_labels_N
    heldout = _outcome(plugin, chooser, data.train[layer].to(held_N.device)[held_N], labels_N[held_N], data.classes)
    train = _outcome(plugin, probe, data.train[layer], labels_N, data.classes)
    test = _outcome(plugin, probe, data.test[layer], data.test_labels_N, data.classes)
    if not np.isfinite([heldout.loss, train.loss, test.loss]).all():
        return ProbeResult(f"{plugin.label} gives scores that are not finite on {data.layer_names[layer]}")
    return ProbeResult(
        problem=None,
        epoch_chosen=1,
        epoch_best=1,
        top1=test.top1,
        top1_last=test.top1,
        top1_best=test.top1,
        top5=test.top5,
        heldout_top1=heldout.top1,
        train_top1=train.top1,
        test_loss=test.loss,
        heldout_loss=heldout.loss,
        train_loss=train.loss,
        top1_E=(test.top1,),
        heldout_top1_E=(heldout.top1,),
        correct=np.packbits(test.correct_M).tobytes(),
        heldout_correct=np.packbits(heldout.correct_M).tobytes(),
    )
