"""A curve's probes: the data they are fitted on, the fit, and what the embeddings look like."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from sweep.base.measure import Measured, device_name, measured
from sweep.base.seeds import derive_seed
from sweep.base.spans import span
from sweep.cell.rows import Embedded, Fitted
from sweep.cell.saved_fit import SavedFit
from sweep.cell.task import CellTask
from sweep.data import Images
from sweep.embed import Statistics, layer_statistics, moments_bytes, registered_statistics
from sweep.probes import ProbeData, budget_bytes, drawn, fit_probes
from sweep.study import Curve

log = logging.getLogger(__name__)


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


@span("layer statistics")
def statistics_of(
    task: CellTask, embedded: Embedded, labels_N: torch.Tensor, classes: int, seed: int
) -> tuple[list[Statistics | None], list[dict[str, float | None]]]:
    """What each layer's embeddings look like, ours and what plug-ins measure; computed where the labels are."""
    about = (embedded.train, labels_N)
    described = layer_statistics(*about, classes=classes, threshold=task.settings.rank_threshold)
    return described, registered_statistics(task.settings.statistics, *about, classes=classes, seed=seed)


def statistics_within(
    task: CellTask, curve: Curve, embedded: Embedded, data: ProbeData, seed: int, budget: float
) -> tuple[list[Statistics | None], list[dict[str, float | None]]]:
    """The same on the device of the probes, within so many bytes; on the CPU where that has too little memory."""
    labels_N, n = data.train_labels_N, len(data.train_labels_N)
    try:
        if data.device.type == "cuda" and moments_bytes(n, [layer.width for layer in embedded.layers]) > budget:
            raise torch.OutOfMemoryError("moments of embeddings are larger than what the task may take")
        return statistics_of(task, embedded, labels_N, data.classes, seed)
    except torch.OutOfMemoryError as error:  # the probes are fitted: nothing is to be lost now
        log.warning("statistics of %s are computed on the CPU: %s", curve.backbone.label, error)
        return statistics_of(task, embedded, labels_N.cpu(), data.classes, seed)


def probe_curve(
    task: CellTask,
    curve: Curve,
    images: Images,
    embedded: Embedded,
    device: torch.device,
    *,
    key: str = "",
    before: SavedFit | None = None,
    keep: Callable[[SavedFit], None] = lambda _fitted: None,
) -> Fitted:
    """Fit every layer's probe and describe its embeddings.

    Parameters
    ----------
    key : of the curve; it draws the layers that are checked.
    before : probes of this curve that an earlier attempt has fitted.
    keep : is given the probes where the embeddings cannot be described, before that error is raised.
    """
    seed, data = probe_seed(images, curve), probe_data(images, embedded, device, folds=curve.probe.folds)
    budget = budget_bytes(device, task.memory, tasks=task.sharing(device.type))
    with measured(device) as cost:
        if before is None:
            check = (
                drawn(len(data.layer_names), curve.probe.check, derive_seed("check", key)) if curve.probe.check else ()
            )
            results = fit_probes(
                data,
                curve.probes,
                seed=seed,
                seeds=curve.probe_seeds,
                budget=budget,
                check=check,
                cpus=task.host_threads(device.type),
            )
        else:
            results = list(before.results)
    if before is not None:
        cost = Measured(before.seconds, before.peak_bytes)
    try:
        with measured(device) as more:
            described, registered = statistics_within(task, curve, embedded, data, seed, budget)
    except Exception:
        keep(SavedFit(results, cost.seconds, cost.peak_bytes, device_name(device)))
        raise
    cost = Measured(cost.seconds + more.seconds, max(cost.peak_bytes, more.peak_bytes))
    return Fitted(results, described, registered, seed, cost)
