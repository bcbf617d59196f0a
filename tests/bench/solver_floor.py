"""What the converged solver and scikit-learn cannot do without: their passes over the images, as bare operators.

A pass is a matmul each way and a softmax, in the precision, the shapes and the chunks of the one who makes it, on one
thread, in memory that is there. Nothing is decided between passes, no step is made, no label is looked at.

Shapes: N images, B images of a chunk, D width, C classes, F coordinates of an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from unittest.mock import patch

import numpy as np
import torch
from sklearn._loss import HalfMultinomialLoss
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from sweep.config import Probe
from sweep.probes import ProbeData, fit_probes, softmax
from sweep.probes.softmax import Softmax, Value

from . import machine

CPU = torch.device("cpu")
_REPEATS = 20  # passes timed together
_TURNS = 5  # of which the fastest counts


def images_passed(data: ProbeData, recipe: Probe, *, seed: int) -> Counter[int]:
    """Images that the converged solver goes over, all fits together, by the numbers F of an image."""
    found: Counter[int] = Counter()
    whole = Softmax.value

    def counted(self: Softmax, theta_LCF: Tensor, going: Sequence[int] | None = None) -> Value:
        found[theta_LCF.shape[2]] += self.n * (len(theta_LCF) if going is None else len(going))
        return whole(self, theta_LCF, going)

    with patch.object(Softmax, "value", counted):
        fit_probes(data, recipe, seed=seed)
    return found


def floor_seconds(data: ProbeData, passed: Counter[int]) -> float:
    """Seconds of these passes, shared out evenly to the threads that layers can have."""
    n = len(data.train_labels_N)
    work = sum(images / n * pass_seconds(n, numbers, data.classes) for numbers, images in passed.items())
    return work / min(torch.get_num_threads(), len(data.train))


def pass_seconds(n: int, numbers: int, classes: int) -> float:
    """Seconds of one pass over a layer as our solver makes it."""
    rows = softmax.chunk_rows(n, numbers, classes)
    z_NF, theta_CF = torch.randn(n, numbers), torch.randn(classes, numbers) / numbers
    slope_CF = torch.zeros_like(theta_CF)
    chunks = [(z_BF, z_BF.T, torch.empty(classes, len(z_BF))) for z_BF in z_NF.split(rows)]

    def passes() -> None:
        for _ in range(_REPEATS):
            slope_CF.zero_()
            for z_BF, z_FB, logits_CB in chunks:
                torch.mm(theta_CF, z_FB, out=logits_CB)
                torch.softmax(logits_CB, 0, out=logits_CB)
                slope_CF.addmm_(logits_CB, z_BF)

    return _alone(torch.inference_mode()(passes))


def sklearn_pass_seconds(x_ND: np.ndarray, labels_N: np.ndarray, classes: int) -> float:
    """Seconds of one pass as scikit-learn makes it: its own softmax, between two matmuls of NumPy."""
    loss = HalfMultinomialLoss(n_classes=classes)
    weight_CD = (np.random.default_rng(0).normal(size=(classes, x_ND.shape[1])) / x_ND.shape[1]).astype(x_ND.dtype)
    target_N, loss_N = labels_N.astype(x_ND.dtype), np.empty(len(x_ND), x_ND.dtype)
    gradient_NC = np.empty((len(x_ND), classes), x_ND.dtype)

    def passes() -> None:
        for _ in range(_REPEATS):
            raw_NC = x_ND @ weight_CD.T
            loss.loss_gradient(target_N, raw_NC, loss_out=loss_N, gradient_out=gradient_NC, n_threads=1)
            gradient_NC.T @ x_ND

    return _alone(passes)


def sklearn_images_passed(models: Sequence[tuple[LogisticRegression, float]], images: Sequence[int]) -> int:
    """Images that its fits went over, by the iterations that it tells of: it looks at each point at least once."""
    return sum(int(model.n_iter_.max()) * n for (model, _), n in zip(models, images, strict=True))


def _alone(passes: Callable[[], None]) -> float:
    """Seconds of one of the passes on one thread."""
    with machine.threads(1), threadpool_limits(1):
        seconds, _ = machine.timed(passes, device=CPU, repeats=_TURNS)
    return seconds / _REPEATS
