"""One backbone trained by several processes: the first runs the cell, the others help to train.

A plain function of torch.distributed's processes, however they were started; nothing here knows Ray.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sweep import register
from sweep.base.arithmetic import reproducible
from sweep.base.store import Store
from sweep.cell.blame import device_errors
from sweep.cell.cell import run_cell, workshop
from sweep.cell.task import CellTask
from sweep.train import RankLostError, Ranks, TrainingDivergedError, help_training


class RecordedError(Exception):
    """Training has failed and says why in the store; raised so that the other processes need not be waited for."""

    def __init__(self, *keys: str) -> None:
        super().__init__(*keys)
        self.keys = keys  # of the curves that cannot be


def train_together(task: CellTask, ranks: Ranks) -> None:
    """Bring the weights of a task's backbone into the store; called by every process.

    Raises
    ------
    RecordedError
        By the first process, where another attempt would meet the same failure; its curves have records of it.
    OSError
        From storage, or because another process is gone; the checkpoint is kept, another attempt goes on from there.
    Exception
        By another process than the first: whatever befell it alone, such as a lack of memory.
    """
    if not ranks.leads:
        _help(task, ranks)
        return
    try:
        result = run_cell(replace(task, train_only=True), ranks)
    finally:
        if not ranks.told:  # nothing was to be done, or could be
            ranks.tell(None)
    if result.failed:
        raise RecordedError(*result.failed)


def _help(task: CellTask, ranks: Ranks) -> None:
    torch.set_num_threads(task.threads)
    register.load(task.imports, task.import_path)
    register.check_code(task.settings.code)
    device = torch.device("cuda" if task.gpu else "cpu")
    shop = workshop(task, Store(task.store_uri), device, ranks)
    try:
        with device_errors(task), reproducible(task.deterministic):
            help_training(task.cell.backbone, shop)
    except (RankLostError, TrainingDivergedError):
        return  # the first process meets the same, and says so; if it is gone itself, whoever started it knows
