"""One course from start to finish: its tasks learned, what is measured of them as rows of ``continual.parquet``.

A plain function; nothing here knows Ray. The weights after each task and of each fine-tuning stay in the store, so a
course that was killed goes on where it was.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sweep import table
from sweep.base.measure import device_name
from sweep.base.spans import span
from sweep.cell.blame import Fate, fate
from sweep.cell.lessons import learn
from sweep.cell.split import NotYetError, places
from sweep.cell.swaps import matrix_rows, swap_rows, tuned_rows
from sweep.cell.task import CellTask, failure_of
from sweep.study import PlannedCourse
from sweep.train import Workshop


def run_course(task: CellTask, planned: PlannedCourse, shop: Workshop) -> Exception | None:
    """Learn, measure and publish one course.

    Parameters
    ----------
    shop : of the cell's backbone, whose own task is the first.

    Returns
    -------
    what went wrong with this course alone: recorded, or, where memory was short, for another attempt.
    """
    started, stage = time.monotonic(), ["pretrain"]
    try:
        rows = list(_rows(task, planned, shop, stage))
        stage[0] = "write"
        shared = {
            "course_key": planned.key,
            "weights_key": planned.runs[0],
            **task.provenance,
            "device": device_name(shop.device),
            "host": socket.gethostname(),
            "seconds": time.monotonic() - started,
            "finished_at": datetime.now(UTC),
        }
        table.write_course(shop.store, planned.key, [shared | row for row in rows])
    except Exception as error:
        what = fate(error, task)
        if what.is_recorded:
            about = (planned.key, task.cell.backbone.label, planned.course.label)
            transient = what is Fate.OPEN or isinstance(error, NotYetError)
            seconds = time.monotonic() - started
            record = failure_of(*about, stage[0], error, seconds, transient=transient)
            table.write_failure(shop.store, record)
        elif what is not Fate.CROWDED:
            raise
        return error.with_traceback(None)
    return None


def _rows(task: CellTask, planned: PlannedCourse, shop: Workshop, stage: list[str]) -> Iterator[dict[str, Any]]:
    """Everything that is measured of a course; ``stage`` is told what it is at."""
    about = task.cell.backbone.label
    with span("learning tasks", about):
        learned = learn(task, planned, shop)
    stage[0] = "tasks"
    with span("every task after each", about):
        yield from matrix_rows(learned)
    later = range(2, len(learned.lessons) + 1)
    asked = places(planned, learned.about, shop.store)
    with span("extractors and tunnels", about):
        for place in asked:
            for moment in later:
                yield from swap_rows(learned, place, moment)
    tuning = planned.course.tuning
    if tuning is None:
        return
    stage[0] = "fine-tune"
    with span("fine-tuning", about):
        for place in asked:
            for moment in later if place.fine_tuned else ():
                yield from tuned_rows(learned, planned, tuning, place, moment)
