"""One backbone from start to finish: weights, then for each missing curve embeddings, probes and rows.

Plain functions; nothing here knows Ray. What fails is recorded beside the probes and the other curves go on;
only errors that another attempt may cure leave this file, for the driver to try again: see :mod:`sweep.cell.blame`.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sweep import register, table
from sweep.base.arithmetic import reproducible
from sweep.base.errors import UserError
from sweep.base.measure import device_name, measured
from sweep.base.spans import span
from sweep.base.store import Store
from sweep.cell.bench import Bench, Reference
from sweep.cell.blame import Fate, device_errors, fate
from sweep.cell.course import run_course
from sweep.cell.kept import keep_probes
from sweep.cell.measuring import lacking, measure, measure_weights
from sweep.cell.parameters import parameters_so_far
from sweep.cell.probing import probe_curve
from sweep.cell.rows import Embedded, make_rows
from sweep.cell.saved_fit import forget_fit, save_fit, saved_fit
from sweep.cell.task import CellResult, CellTask, failure_of, failure_record, library_of
from sweep.data import Images, Library
from sweep.embed import Embeddings, cached, descriptions, embed, moments_bytes, room_bytes
from sweep.models import ProbedLayer, layers_of
from sweep.probes import budget_bytes
from sweep.study import Backbone, Curve, Planned, id_curve
from sweep.table import Progress
from sweep.train import (
    ALONE,
    OnEpoch,
    Ranks,
    Weights,
    Workshop,
    has_weights,
    initial_network,
    obtain,
    obtain_weights,
    train_missing,
)


def run_cell(task: CellTask, ranks: Ranks = ALONE) -> CellResult:
    """Bring one backbone's missing curves into the table.

    Parameters
    ----------
    ranks : this process, the first of those that train the backbone together, see :mod:`sweep.cell.together`.

    Raises
    ------
    OSError
        From storage; finished curves are kept, another call does the rest.
    DeviceError
        If the device or its driver fails; likewise.
    MemoryError, torch.OutOfMemoryError
        Where others use the memory too, once the other curves are finished; likewise.
    """
    with device_errors(task), reproducible(task.deterministic):
        return _run_cell(task, ranks)


def _run_cell(task: CellTask, ranks: Ranks) -> CellResult:
    torch.set_num_threads(task.threads)
    device = torch.device("cuda" if task.gpu else "cpu")
    store = Store(task.store_uri)
    backbone = task.cell.backbone
    missing = [planned for planned in task.cell.curves if not _finished(task, store, planned)]
    learned = table.done_courses(store) if task.cell.courses else frozenset()
    courses = [] if task.train_only else [course for course in task.cell.courses if course.key not in learned]
    if not _imported(task, store, missing):
        return CellResult((), (*(planned.key for planned in missing), *(course.key for course in courses)))
    done: list[str] = []
    failed: list[str] = []
    crowded: list[Exception] = []
    with Progress(store, task.cell.run, backbone.label) as progress:
        shop = replace(workshop(task, store, device, ranks), on_epoch=_told(progress))
        for weights, curves in _by_weights(missing, task, shop):
            if task.train_only:
                failed += [planned.key for planned in curves if weights is None]
                continue
            reference = functools.cache(functools.partial(_reference, task, curves[0], weights, store, device))
            for planned in curves:
                progress.say("probing", len(done) + len(failed), len(missing), detail=planned.curve.dataset)
                error = run_curve(task, planned, weights, store, device, reference) if weights is not None else None
                if error is not None and not fate(error, task).is_recorded:
                    crowded.append(error)
                else:
                    (done if weights is not None and error is None else failed).append(planned.key)
        for course in courses:
            progress.say("learning tasks", len(done) + len(failed), len(missing) + len(courses))
            error = run_course(task, course, shop)
            if error is not None and not fate(error, task).is_recorded:
                crowded.append(error)
            else:
                (done if error is None else failed).append(course.key)
    if crowded:
        raise crowded[0]
    return CellResult(tuple(done), tuple(failed))


def _done(store: Store, planned: Planned) -> bool:
    return store.exists(f"{table.FRAGMENTS}{planned.key}.parquet")


def _finished(task: CellTask, store: Store, planned: Planned) -> bool:
    """Whether nothing of what a curve is to have is missing."""
    return _done(store, planned) and _kept(task, store, planned) and not lacking(store, planned)


def _kept(task: CellTask, store: Store, planned: Planned) -> bool:
    """Whether as many of a curve's probes are kept as the task asks for."""
    return task.keep_probes is None or table.is_kept(store, planned.key, task.keep_probes)


def _imported(task: CellTask, store: Store, curves: Sequence[Planned]) -> bool:
    """Whether plug-ins are here, and those that keys were made from; if not, that is why these curves fail."""
    started = time.monotonic()
    try:
        register.load(task.imports, task.import_path)
        register.check_code(task.settings.code)
    except UserError as error:
        seconds = time.monotonic() - started
        for planned in curves:
            table.write_failure(store, failure_record(planned, "import", error, seconds))
        for course in task.cell.courses:
            about = (course.key, task.cell.backbone.label, course.course.label)
            table.write_failure(store, failure_of(*about, "import", error, seconds, transient=False))
        return False
    return True


def _by_weights(
    missing: Sequence[Planned], task: CellTask, shop: Workshop
) -> Iterator[tuple[Weights | None, list[Planned]]]:
    """Train once, then the weights of each epoch asked for with its curves; None where they failed, and recorded so.

    Where training breaks off, the epochs before that can still be probed.
    """
    groups: dict[Backbone, list[Planned]] = {}
    for planned in missing:
        groups.setdefault(planned.curve.backbone, []).append(planned)
    started, broken = time.monotonic(), None
    try:
        train_missing(groups, shop)
    except Exception as error:
        if not fate(error, task).is_recorded:
            raise
        broken = error
    for backbone, curves in groups.items():
        try:
            if broken is not None and not has_weights(backbone, shop):
                raise broken
            with span("building with weights", backbone.label):
                weights = _obtained(backbone, curves, shop, as_trained=task.train_only)
        except Exception as error:
            if not fate(error, task).is_recorded:
                raise
            for planned in curves:
                _record(task, shop.store, planned, "pretrain", error, time.monotonic() - started)
            yield None, curves
        else:
            yield weights, curves


def _obtained(backbone: Backbone, curves: Sequence[Planned], shop: Workshop, *, as_trained: bool) -> Weights:
    """Weights that curves of one backbone are probed with."""
    return obtain_weights(backbone, shop) if as_trained else obtain(backbone, shop, curves[0].donor)


def _record(task: CellTask, store: Store, planned: Planned, stage: str, error: Exception, seconds: float) -> None:
    """Leave the record of a curve that failed here."""
    record = failure_record(planned, stage, error, seconds, transient=fate(error, task) is Fate.OPEN)
    table.write_failure(store, record)


def _told(progress: Progress) -> OnEpoch:
    return lambda history, total: progress.say("training", len(history), total)


def workshop(task: CellTask, store: Store, device: torch.device, ranks: Ranks) -> Workshop:
    """What a task's weights need."""
    return Workshop(
        store=store,
        library=library_of(task),
        run=task.cell.run,
        stages=task.cell.stages,
        images=task.cell.images,
        device=device,
        loader_workers=task.loader_workers,
        sharing=task.sharing(device.type),
        ranks=ranks,
    )


def run_curve(
    task: CellTask,
    planned: Planned,
    weights: Weights,
    store: Store,
    device: torch.device,
    reference: Callable[[], Reference],
) -> Exception | None:
    """Embed, probe and publish one curve, keep its probes and measure its layers if asked.

    Parameters
    ----------
    reference : gives the backbone's ID images, for what is measured against them.

    Returns
    -------
    what went wrong with this curve alone: recorded, or, where memory was short, for another attempt.
    """
    started, stage = time.monotonic(), ""
    try:
        for stage in _stages(task, planned, weights, store, device, reference):  # noqa: B007  (where it ended counts)
            pass
    except Exception as error:
        what = fate(error, task)
        if what.is_recorded:
            _record(task, store, planned, stage, error, time.monotonic() - started)
        elif what is not Fate.CROWDED:
            raise
        return error.with_traceback(None)  # whose frames hold the embeddings
    return None


def _stages(
    task: CellTask,
    planned: Planned,
    weights: Weights,
    store: Store,
    device: torch.device,
    reference: Callable[[], Reference],
) -> Iterator[str]:
    """Do what a curve lacks, stage after stage; each is named before it begins."""
    about, backbone = planned.curve.dataset, planned.curve.backbone
    yield "measure"
    initial = functools.partial(initial_network, backbone, task.cell.run)
    measure_weights(store, planned, weights.model, initial, layers_of_backbone(backbone))
    if _finished(task, store, planned):
        return
    yield "data"
    with span("opening images", about):
        images = probe_images(library_of(task), planned.curve)
        publish_split(store, planned.curve, images)
    yield "embed"
    with span("embedding", about):
        embedded = embed_curve(task, planned, weights, images, device)
    if not _done(store, planned):
        yield "probe"
        with span("probes", about):
            before = saved_fit(store, planned.fit, device_name(device))
            keep = functools.partial(save_fit, store, planned.fit)
            fitted = probe_curve(
                task, planned.curve, images, embedded, device, key=planned.key, before=before, keep=keep
            )
        yield "write"
        with span("writing", about):
            rows = make_rows(task, planned, weights, images, embedded, fitted, device)
            table.write_fragment(store, planned.key, rows, statistics=descriptions(task.settings.statistics))
            if before is not None:
                forget_fit(store, planned.fit)
    yield "keep"
    if not _kept(task, store, planned):
        with span("keeping probes", about):
            keep_probes(task, planned, images, embedded, store, device)
    yield "measure"
    measure(Bench(task, planned, images, embedded, store, device), reference)


def _reference(
    task: CellTask, planned: Planned, weights: Weights | None, store: Store, device: torch.device
) -> Reference:
    """ID images of a curve's backbone, embedded, whatever curve it is; they are no part of the cache of embeddings."""
    assert weights is not None
    own = replace(planned, curve=id_curve(planned.curve))
    with span("embedding ID images", own.curve.dataset):
        images = probe_images(library_of(task), own.curve)
        embedded = embed_curve(replace(task, keep_embeddings=False), own, weights, images, device)
    return Reference(Bench(task, own, images, embedded, store, device))


def probe_images(library: Library, curve: Curve) -> Images:
    """Images of a curve: on its ID dataset a backbone's own classes and images, elsewhere all; shifted ones beside its
    own training images.
    """
    backbone = curve.backbone
    own = {"classes": backbone.id_classes, "images_per_class": backbone.images_per_class}
    if curve.shifted is not None:
        return library.shifted(curve.dataset, curve.shifted, backbone.view, own=backbone.id_dataset, **own)
    return library.images(curve.dataset, backbone.view, **(own if curve.is_id else {}))


def publish_split(store: Store, curve: Curve, images: Images) -> None:
    """A split of our own making goes with the results: which images were tested on, and in which order."""
    name = f"splits/{images.fingerprint}.json"
    if images.split_note != "official" and not store.exists(name):
        split = {"dataset": curve.dataset, "split": images.split_note, "test": images.test_names}
        store.put(name, json.dumps(split, indent=0).encode())


def layers_of_backbone(backbone: Backbone) -> list[ProbedLayer]:
    """Which of its layers are probed, and how each is pooled."""
    return layers_of(
        backbone.architecture,
        resolution=backbone.resolution,
        width=backbone.width,
        pattern=backbone.layers_pattern,
        pooling=backbone.pooling,
        norm=backbone.norm,
    )


def embed_curve(task: CellTask, planned: Planned, weights: Weights, images: Images, device: torch.device) -> Embedded:
    """Embeddings of every layer for the curve's training and test images.

    They are read from the cache of embeddings or put there if the task keeps them. What the host's memory is not to
    hold is mapped from files in the cache directory.
    """
    backbone, scratch = planned.curve.backbone, Path(task.cache_dir)
    model: nn.Module = weights.model.eval().to(device)
    layers = layers_of_backbone(backbone)
    parts = [images.train_NHWC, images.test_NHWC]
    everything = sum(room_bytes(len(part), layer.width, pinned=task.gpu) for part in parts for layer in layers)
    if not task.gpu:  # where statistics are computed
        everything += moments_bytes(len(parts[0]), [layer.width for layer in layers])
    spill = scratch / "spill" if everything > budget_bytes(torch.device("cpu"), task.memory, tasks=task.tasks) else None
    kept = scratch / "embeddings" / planned.embedding if task.keep_embeddings else None

    def embedded(part: str, pixels_NHWC: np.ndarray) -> Embeddings:
        """Of the training or test part, from the cache if they are there."""
        return cached(
            kept and kept.with_suffix(f".{part}.safetensors"),
            lambda: embed(
                model,
                layers,
                pixels_NHWC,
                mean=weights.mean,
                std=weights.std,
                device=device,
                precision=task.settings.extraction,
                spill=spill,
            ),
        )

    with measured(device) as cost:
        train, test = embedded("train", images.train_NHWC), embedded("test", images.test_NHWC)
    return Embedded(layers, parameters_so_far(model, layers), train, test, cost)
