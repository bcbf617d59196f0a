"""Multinomial logistic regression with L2 to a stated gradient, its penalty chosen on held-out images.

One decomposition per layer serves all penalties, all classes and both fits. On CPU each thread has a wide layer, or
small ones of one width that share their steps; results depend neither on the threads nor on who shares. On a GPU layers
of one width share every operation; small ones are left to the CPU, since there they would be nothing but launches.

Shapes: L layers, N images, B images of a chunk, D width, C classes, F coordinates, see :mod:`sweep.probes.coordinates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sweep.config import Probe
from sweep.probes import memory
from sweep.probes.coordinates import Coordinates, Standard, coordinates, size
from sweep.probes.crossfit import OutOfFold, out_of_fold
from sweep.probes.data import LinearProbe, ProbeData, ProbeResult
from sweep.probes.descent import state_bytes
from sweep.probes.inverse import Inverse
from sweep.probes.path import Path
from sweep.probes.scores import History, Scores, Tally, summarise
from sweep.probes.softmax import Softmax
from sweep.probes.threads import each

TOLERANCE = 0.02  # relative error of the weights that the gradient allows at most (see descent.minimise)
_ROWS = 1024  # images scored at once
_WORTH = 5e7  # multiplications of a pass from which on other layers in the same step save no more time
# multiplications of a pass up to which a GPU does nothing but launch: 1e7 kept an H100 at 28 % for over ten seconds a
# curve, which is 5 on one core (docs/speed.md)
_LAUNCHED = 2e7


def fit_converged(
    data: ProbeData,
    recipe: Probe,
    layers: Sequence[int],
    *,
    budget: int | None = None,
    tolerance: float = TOLERANCE,
    cpus: int | None = None,
) -> list[ProbeResult]:
    """Both fits of some layers.

    Minimises mean smoothed cross-entropy + ½ λ ‖W‖² on standardised embeddings; the bias is not penalised. λ is the
    one of ``recipe.penalties`` with the lowest held-out loss of the selection fit; the full fit takes it over.

    Parameters
    ----------
    recipe : with ``standardize: none`` embeddings are only centred.
    budget : bytes of a GPU that may be in use.
    tolerance : relative error of the weights that the gradient allows at most.
    cpus : threads for what the CPU does; None: as many as torch may use.

    Returns
    -------
    results in no particular order. One that does not reach the tolerance says so in ``converged``.
    """
    if data.device.type == "cpu":
        return _on_cpu(data, recipe, layers, tolerance, cpus)
    small = [layer for layer in layers if _pass(data, layer) <= _LAUNCHED]
    results = _on_cpu(data.on_cpu(), recipe, small, tolerance, cpus)
    for group in _by_width(data, [layer for layer in layers if layer not in small]).values():
        for wave in memory.waves(group, [_bytes(data, layer) for layer in group], budget):
            results += _short_of_memory(data, recipe, wave, tolerance)
    return results


def _on_cpu(
    data: ProbeData, recipe: Probe, layers: Sequence[int], tolerance: float, cpus: int | None
) -> list[ProbeResult]:
    by_width = _by_width(data, layers)
    least = -(-(cpus or torch.get_num_threads()) // len(by_width)) if by_width else 1
    parts = [part for width in sorted(by_width, reverse=True) for part in _parts(data, by_width[width], least)]
    fits = each(lambda part: _fit(data, recipe, part, tolerance), parts, device=data.device, alone=True, cpus=cpus)
    return [result for fit in fits for result in fit]


def _by_width(data: ProbeData, layers: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for layer in layers:
        found.setdefault(data.width(layer), []).append(layer)
    return found


def _pass(data: ProbeData, layer: int) -> int:
    """Multiplications of scoring every training image once."""
    n = len(data.train_labels_N)
    return n * size(n, data.width(layer)) * data.classes


def _parts(data: ProbeData, layers: Sequence[int], least: int) -> list[list[int]]:
    """Layers of one width in parts for a thread each: a step costs many operators, which small layers share.

    More layers at once cost memory, and leave threads without work; how they are grouped changes no result.

    Parameters
    ----------
    least : parts to make, so that each thread has one.
    """
    worth = max(1, round(_WORTH / _pass(data, layers[0])))
    count = max(-(-len(layers) // worth), min(least, len(layers)))
    return [[int(layer) for layer in part] for part in np.array_split(np.array(layers), count)]


def _bytes(data: ProbeData, layer: int) -> int:
    """Device memory of a layer in flight: its images, once more while they are moved, and what descents remember."""
    n, numbers = len(data.train_labels_N), size(len(data.train_labels_N), data.width(layer))
    return 8 * n * numbers + state_bytes(data.classes, numbers)


def _short_of_memory(data: ProbeData, recipe: Probe, layers: list[int], tolerance: float) -> list[ProbeResult]:
    """Fit; if the device's memory runs out, half of the layers at a time."""
    try:
        return _fit(data, recipe, layers, tolerance)
    except torch.OutOfMemoryError:
        if len(layers) == 1:
            raise
    half = len(layers) // 2
    return [
        result for part in (layers[:half], layers[half:]) for result in _short_of_memory(data, recipe, part, tolerance)
    ]


@torch.inference_mode()
def _fit(data: ProbeData, recipe: Probe, layers: Sequence[int], tolerance: float = TOLERANCE) -> list[ProbeResult]:
    images = _images(data, recipe, layers)
    selection, heldout, every = (
        Softmax(images.z_LNF, images.labels_N, part, classes=data.classes, smoothing=recipe.label_smoothing)
        for part in (images.fit, images.held, images.every)
    )
    inverse = Inverse([found.metric for found in images.coordinates])
    path = Path(selection, heldout, inverse, selection.value(_start(images, images.fit, data.classes)))
    at_end_L = path.choose(recipe.penalties)
    chooser = path.settle(selection, path.value, tolerance)
    first = every.value(_start(images, images.every, data.classes))
    probe = path.settle(every, every.value(chooser.value.theta_LCF), tolerance)
    found = _results(data, images, layers, chooser.value.theta_LCF, probe.value.theta_LCF)
    converged_L = chooser.converged_L & probe.converged_L
    if data.folds_N is not None:
        crossed = _crossed(data, recipe, images, path)
        found = [_with_folds(result, crossed, images, at) for at, result in enumerate(found)]
        converged_L &= crossed.converged_L
    norm_L = probe.gradient_L / first.slope_LCF.flatten(1).norm(dim=1).clamp_min(1e-30)
    return [
        replace(
            result,
            layer=layer,
            converged=bool(converged_L[at]),
            gradient_norm=float(norm_L[at]),
            epochs_run=1 + int(probe.passes_L[at]),
            penalty=float(path.penalty_L[at]),
            penalty_at_end=bool(at_end_L[at]),
            penalties=tuple(penalty for penalty, _ in path.of(at)),
            heldout_losses=tuple(loss for _, loss in path.of(at)),
            linear=images.linear(at, probe.value.theta_LCF[at]) if data.keep_weights else None,
        )
        for at, (layer, result) in enumerate(zip(layers, found, strict=True))
    ]


def _crossed(data: ProbeData, recipe: Probe, images: _Images, path: Path) -> OutOfFold:
    """Every training image scored by a fit without its fold, from weights of zero."""
    assert data.folds_N is not None
    start_LCF = _start(images, images.every, data.classes)
    return out_of_fold(
        Inverse([found.metric for found in images.coordinates]),
        path.penalty_L,
        images.z_LNF,
        images.labels_N,
        data.folds_N[images.order_N],
        start_LCF,
        classes=data.classes,
        smoothing=recipe.label_smoothing,
    )


def _with_folds(result: ProbeResult, crossed: OutOfFold, images: _Images, at: int) -> ProbeResult:
    """A result with what its folds found, the images in the order of the data."""
    own = crossed.scores.of(at)
    in_order = Scores(own.correct_LN[:, images.order_N.argsort()], own.top5_L, own.loss_L)
    return replace(
        result,
        crossfit_correct=in_order.bits(0),
        crossfit_top1=float(own.top1_L[0]),
        crossfit_loss=float(own.loss_L[0]),
    )


@dataclass(frozen=True)
class _Images:
    """Images of both fits of layers of one width: first those that fit, then those held out.

    Attributes
    ----------
    order_N : place of each in the data.
    """

    standards: list[Standard]
    coordinates: list[Coordinates]
    z_LNF: Tensor
    labels_N: Tensor
    order_N: Tensor
    fit: slice
    held: slice

    @property
    def every(self) -> slice:
        return slice(0, len(self.labels_N))

    def linear(self, at: int, theta_CF: Tensor) -> LinearProbe:
        """The probe of one of the layers, from its weights in the layer's coordinates."""
        standard = self.standards[at]
        return LinearProbe(standard.mean_D, standard.scale_D, *self.coordinates[at].weight(theta_CF))


def _images(data: ProbeData, recipe: Probe, layers: Sequence[int]) -> _Images:
    order_N = torch.cat([part_N.nonzero().squeeze(1) for part_N in (~data.heldout_N, data.heldout_N)])
    n, held = len(order_N), int(data.heldout_N.sum())
    scaled = recipe.standardize == "feature"
    standards = [Standard.of(data.train[layer], data.device, scaled=scaled) for layer in layers]
    z_LNF = torch.empty(len(layers), n, size(n, data.width(layers[0])), device=data.device)
    found = [
        coordinates(data.train[layer], standard, order_N, z_NF)
        for layer, standard, z_NF in zip(layers, standards, z_LNF, strict=True)
    ]
    labels_N = data.train_labels_N[order_N]
    return _Images(standards, found, z_LNF, labels_N, order_N, slice(0, n - held), slice(n - held, n))


def _start(images: _Images, part: slice, classes: int) -> Tensor:
    """Weights of zero, (L, C, F), and as biases the logarithms of the classes' shares, one image added to each."""
    counts_C = torch.bincount(images.labels_N[part], minlength=classes) + 1
    theta_LCF = images.z_LNF.new_zeros(len(images.z_LNF), classes, images.z_LNF.shape[2])
    for theta_CF, found in zip(theta_LCF, images.coordinates, strict=True):
        theta_CF[:, found.bias] = (counts_C / counts_C.sum()).log()
    return theta_LCF


def _results(
    data: ProbeData, images: _Images, layers: Sequence[int], chooser_LCF: Tensor, probe_LCF: Tensor
) -> list[ProbeResult]:
    """Scores of both fits; there is one epoch, the first, chosen, best and last."""
    held = _scores(chooser_LCF, images.z_LNF[:, images.held], images.labels_N[images.held])
    train = _scores(probe_LCF, images.z_LNF, images.labels_N)
    results = []
    for at, layer in enumerate(layers):
        test = _test_scores(data, layer, images.standards[at], images.coordinates[at], probe_LCF[at])
        history = History(heldout=[held.of(at)], test=[test])
        results += summarise(history, train.of(at), [data.layer_names[layer]])
    return results


def _scores(theta_LCF: Tensor, z_LNF: Tensor, labels_N: Tensor) -> Scores:
    tally = Tally(len(theta_LCF), theta_LCF.shape[1], labels_N)
    for start in range(0, len(labels_N), _ROWS):
        part = slice(start, min(start + _ROWS, len(labels_N)))
        logits_LCB = torch.bmm(theta_LCF, z_LNF[:, part].transpose(1, 2))
        tally.add(part, logits_LCB, torch.empty_like(logits_LCB))
    return tally.scores()


def _test_scores(data: ProbeData, layer: int, standard: Standard, found: Coordinates, theta_CF: Tensor) -> Scores:
    weight_DC, bias_C = found.weight(theta_CF)
    tally = Tally(1, data.classes, data.test_labels_N)
    for start in range(0, len(data.test_labels_N), _ROWS):
        part = slice(start, min(start + _ROWS, len(data.test_labels_N)))
        logits_1CB = torch.addmm(bias_C, standard.rows(data.test[layer][part]), weight_DC).T.unsqueeze(0)
        tally.add(part, logits_1CB, torch.empty_like(logits_1CB))
    return tally.scores()
