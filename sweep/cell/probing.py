"""Embeddings and labels of a curve as its probes are fitted on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sweep.base.seeds import derive_seed
from sweep.cell.rows import Embedded
from sweep.data import Images
from sweep.probes import ProbeData
from sweep.study import Curve


def probe_seed(images: Images, curve: Curve) -> int:
    """Of a curve's probes. It excludes the backbone, so that backbones meet the same batches."""
    return derive_seed("probe", images.fingerprint, curve.backbone.seed)


def probe_data(
    images: Images,
    embedded: Embedded,
    device: torch.device,
    *,
    layers: Sequence[int] | None = None,
    keep_weights: bool = False,
    folds: int = 1,
) -> ProbeData:
    """Of all layers, or of some; 1 fold: probes are not cross-fitted."""
    taken = range(len(embedded.layers)) if layers is None else layers
    return ProbeData(
        train=[embedded.train[at] for at in taken],
        train_labels_N=torch.from_numpy(images.train_labels_N).to(device),
        heldout_N=torch.from_numpy(images.heldout_N).to(device),
        test=[embedded.test[at] for at in taken],
        test_labels_N=torch.from_numpy(images.test_labels_N).to(device),
        classes=images.classes,
        layer_names=[embedded.layers[at].name for at in taken],
        keep_weights=keep_weights,
        folds_N=None if folds == 1 else torch.from_numpy(images.folds(folds)).to(device),
    )
