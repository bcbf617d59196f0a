"""What a network with weights in place answers, and what its classifier sees; a classifier of its own trained anew.

Shapes: N images, D numbers that the classifier sees, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sweep.base.arithmetic import arithmetic
from sweep.config import CONVERGED, PENALTIES, Probe
from sweep.data import Images
from sweep.models import IMAGENET_MEAN, IMAGENET_STD, Feeder
from sweep.probes import ProbeData, fit_probes
from sweep.study import Backbone
from sweep.train.weights import layout_of

_BATCH = 512
# the classifier alone is a convex problem, so it is trained to its end: the study's converged probe
_HEAD = Probe(
    solver=CONVERGED, penalties=PENALTIES[CONVERGED], label_smoothing=0.0, standardize="feature", weight_decay=0.0
)


@dataclass(frozen=True)
class Glasses:
    """How images are shown to a network: where, in which arithmetic, and as which pixels."""

    device: torch.device
    precision: str
    layout: torch.memory_format
    mean: Sequence[float]
    std: Sequence[float]


def glasses_of(backbone: Backbone, device: torch.device) -> Glasses:
    """As a backbone's training shows it images."""
    precision = backbone.recipe.precision if backbone.recipe is not None else "float32"
    weights = backbone.weights
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if weights is None else (weights.mean, weights.std)
    return Glasses(device, precision, layout_of(backbone, device), mean, std)


@dataclass(frozen=True)
class Seen:
    """What a network made of images: the class that it chose of each, and what its classifier saw (N, D)."""

    chosen_N: np.ndarray
    inputs_ND: Tensor

    def correct(self, labels_N: np.ndarray) -> np.ndarray:
        """Whether each image is right, bool (N,)."""
        return self.chosen_N == labels_N


@torch.inference_mode()
def look(network: nn.Module, head: nn.Module, images_NHWC: np.ndarray, glasses: Glasses) -> Seen:
    """Show a network images (uint8), in evaluation mode.

    Parameters
    ----------
    head : the module of the network that tells classes apart.
    """
    network.eval().to(glasses.device).to(memory_format=glasses.layout)
    feeder = Feeder(glasses.mean, glasses.std, device=glasses.device, layout=glasses.layout)
    inputs, chosen = list[Tensor](), list[Tensor]()
    handle = head.register_forward_pre_hook(lambda _module, given: inputs.append(given[0].float().cpu()))
    starts = range(0, len(images_NHWC), _BATCH)
    parts = (torch.from_numpy(np.array(images_NHWC[start : start + _BATCH])) for start in starts)
    try:
        for images in feeder.on_device(parts):
            with arithmetic(glasses.device, glasses.precision):
                chosen.append(network(feeder.normalized(images)).argmax(1).cpu())
    finally:
        handle.remove()
    return Seen(torch.cat(chosen).numpy(), torch.cat(inputs))


def refitted_top1(train: Seen, test: Seen, images: Images, device: torch.device) -> float | None:
    """Test top-1 with the classifier alone trained anew on these images; None where what it sees is not finite."""
    data = ProbeData(
        train=[train.inputs_ND],
        train_labels_N=torch.from_numpy(images.train_labels_N).to(device),
        heldout_N=torch.from_numpy(images.heldout_N).to(device),
        test=[test.inputs_ND],
        test_labels_N=torch.from_numpy(images.test_labels_N).to(device),
        classes=images.classes,
        layer_names=["classifier"],
    )
    (result,) = fit_probes(data, _HEAD, seed=0)
    return result.top1 if result.problem is None else None
