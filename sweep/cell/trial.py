"""One trial of the recipe search: train, say after every epoch how good it is on held-out images, leave a record.

A plain function; nothing here knows Ray. The training run is that of the sweep, with its checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch

from sweep import register
from sweep.base.arithmetic import reproducible
from sweep.base.store import Store
from sweep.cell.blame import fate, leaving
from sweep.cell.task import CellTask, library_of
from sweep.study import Record
from sweep.table import write_record
from sweep.train import Workshop, train_backbone


def run_trial(task: CellTask, report: Callable[[Record], None]) -> Record:
    """Train the task's backbone with its recipe and publish the record.

    Parameters
    ----------
    task : its cell's backbone carries the recipe; curves are not looked at.
    report : gets the record so far after every epoch; it may not return, where the trial is stopped.

    Raises
    ------
    OSError
        From storage; the checkpoint is kept, another call goes on from there. So it is with a DeviceError, and with
        MemoryError where others use the memory too. Everything else becomes the record.
    """
    torch.set_num_threads(task.threads)
    store, backbone, started = Store(task.store_uri), task.cell.backbone, time.monotonic()
    device = torch.device("cuda" if task.gpu else "cpu")
    so_far: list[Record] = [Record("stopped")]
    try:
        register.load(task.imports, task.import_path)
        register.check_code(task.settings.code)
        n_heldout = _heldout(task)

        def after_epoch(history: Sequence[Mapping[str, float]], _total: int) -> None:
            accuracies = tuple(entry["heldout_top1"] for entry in history)
            so_far.append(Record("stopped", accuracies, n_heldout, time.monotonic() - started))
            report(so_far[-1])

        with reproducible(task.deterministic):
            trained, _ = train_backbone(backbone, _workshop(task, store, device, after_epoch))
        accuracies = tuple(entry["heldout_top1"] for entry in trained.history)
        record = Record("finished", accuracies, n_heldout, trained.seconds)
    except Exception as error:
        if not fate(error, task).is_recorded:
            raise leaving(error, task) from error
        last = so_far[-1]
        problem = f"{type(error).__name__}: {error}"
        record = Record("failed", last.heldout_top1_epochs, last.n_heldout, time.monotonic() - started, problem)
    write_record(store, task.cell.run, record)
    return record


def _workshop(
    task: CellTask,
    store: Store,
    device: torch.device,
    after_epoch: Callable[[Sequence[Mapping[str, float]], int], None],
) -> Workshop:
    return Workshop(
        store=store,
        library=library_of(task),
        run=task.cell.run,
        images=task.cell.images,
        device=device,
        loader_workers=task.loader_workers,
        sharing=task.sharing(device.type),
        on_epoch=after_epoch,
    )


def _heldout(task: CellTask) -> int:
    backbone = task.cell.backbone
    images = library_of(task).images(
        backbone.id_dataset,
        backbone.view,
        classes=backbone.id_classes,
        images_per_class=backbone.images_per_class,
    )
    return int(images.heldout_N.sum())
