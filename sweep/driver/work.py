"""What is left of a sweep: the cells that lack something, how much is behind them, what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace

from sweep import table
from sweep.base.line import duration
from sweep.config import AUTO, Config, Resources
from sweep.driver.asked import Sweep
from sweep.driver.cluster import Packed
from sweep.study import (
    Planned,
    PlannedCell,
    Rates,
    curve_cost,
    ends_after,
    packing,
    training_flops,
)


def missing_cells(
    sweep: Sweep, done: Container[str], *, measured: Container[str] | None = None, spared: Container[str] = ()
) -> list[PlannedCell]:
    """Cells that lack curves or courses, reduced to those, the most work first; of two with one key the first.

    Parameters
    ----------
    measured : keys of the readings that the store has; a curve that lacks one is wanted too. None: nobody asks.
    spared : keys of curves that are left alone whatever they lack.
    """
    wanted = {planned.key: planned.curve for planned in sweep.curves.values() if planned.key not in done}
    claimed: set[str] = set()  # readings that several curves share are those of the first
    cells = []
    for cell in sweep.cells:
        curves = tuple(
            planned
            for planned in cell.curves
            if planned.key not in spared
            and (_lacking(planned, measured, claimed) or wanted.get(planned.key) == planned.curve)
        )
        learned = tuple(course for course in cell.courses if course.key not in done)
        if curves or learned:
            cells.append(replace(cell, curves=curves, courses=learned))
    work = behind(sweep, cells)
    return sorted(cells, key=lambda cell: -sum(work(cell)))


def behind(sweep: Sweep, cells: Sequence[PlannedCell]) -> Callable[[PlannedCell], list[float]]:
    """What says how much is behind each curve of a cell, training spread over them: seconds, if all of these cells were
    calibrated on what tasks run on, else operations.
    """
    config, rates = sweep.config, known_rates(sweep, cells)

    def operations(cell: PlannedCell) -> list[float]:
        share = training_flops(config, cell.backbone) / max(1, len(cell.curves))
        return [share + curve_cost(config, planned.curve).flops for planned in cell.curves]

    def seconds(cell: PlannedCell) -> list[float]:
        assert rates is not None
        share = rates.training_seconds(config, cell.backbone) / max(1, len(cell.curves))
        curves = [planned.curve for planned in cell.curves]
        own = [rates.extraction_seconds(config, curve) + rates.probe_seconds(config, curve) for curve in curves]
        return [share + each for each in own]

    return operations if rates is None else seconds


def known_rates(sweep: Sweep, cells: Sequence[PlannedCell]) -> Rates | None:
    """The calibrated rates, if they are of the device that tasks run on and of all these cells."""
    rates, gpus = sweep.rates, sweep.config.resources.gpus
    if rates is None or (gpus != AUTO and rates.kind != ("cuda" if float(gpus) > 0 else "cpu")):
        return None
    known = all(rates.know(cell.backbone, [planned.curve for planned in cell.curves]) for cell in cells)
    return rates if known else None


def packed_of(sweep: Sweep, cells: Sequence[PlannedCell]) -> Packed | None:
    """How many of these backbones best share a GPU, if ``--calibrate`` has measured it."""
    rates = sweep.rates
    number = packing.together(sweep.config, cells, rates)
    return None if rates is None or number is None else Packed(number, rates.device, len(cells))


def _lacking(planned: Planned, measured: Container[str] | None, claimed: set[str]) -> bool:
    """Whether a curve lacks readings that no other was told to make; from now on it is."""
    if measured is None:
        return False
    own = {key for _, key in planned.readings if key not in measured} - claimed
    claimed |= own
    return bool(own)


def lacking_readings(sweep: Sweep) -> set[str]:
    """Keys of the curves that lack a reading."""
    if not any(planned.readings for planned in sweep.planned):
        return set()
    there = table.measured_keys(sweep.store)
    return {planned.key for planned in sweep.planned if any(key not in there for _, key in planned.readings)}


def longest_first(cell: PlannedCell, work: Mapping[str, float]) -> PlannedCell:
    """The cell with its curves by their estimated work: where they are dealt out to tasks, these end together."""
    return replace(cell, curves=tuple(sorted(cell.curves, key=lambda planned: -work[planned.key])))


def say_arithmetic(config: Config, cells: Sequence[PlannedCell], *, gpu: bool) -> None:
    """What GPUs could do in fewer bits is said once; it is another result, so nobody chooses it but the user."""
    trained = any(cell.backbone.recipe and cell.backbone.recipe.precision == "float32" for cell in cells)
    slow = ["recipe.precision"] * trained + ["extraction.precision"] * (config.extraction_precision == "float32")
    if gpu and slow:
        print(
            f"notice: {' and '.join(slow)}: float32, with all its bits; GPUs are several times faster in bfloat16 or "
            "tf32, which are other results under other keys",
            file=sys.stderr,
        )


def say_packed(asked: Resources, resources: Resources) -> None:
    """That ``auto`` has made backbones share a GPU."""
    gpus = float(resources.gpus)
    if asked.gpus == AUTO and 0 < gpus < 1:
        print(
            f"notice: {round(1 / gpus)} backbones at a time share each GPU, as --calibrate has measured; "
            "resources.gpus: 1 gives each its own",
            file=sys.stderr,
        )


def say_together(sweep: Sweep, cells: Sequence[PlannedCell], places: int) -> None:
    """Whether processes that train together bring the end forward, by calibrated time; only the user can change it, as
    it is another result.
    """
    rates, most = known_rates(sweep, cells), max(cell.backbone.processes for cell in cells)
    if rates is None or most == 1 or most > places:
        return
    work = behind(sweep, cells)
    jobs = [(sum(work(cell)), cell.backbone.processes) for cell in cells]
    together, alone = ends_after(jobs, places), ends_after([(seconds, 1) for seconds, _ in jobs], places)
    if together >= alone:
        print(
            f"notice: recipe.data_parallel: calibrated, {places} places end after {duration(together)} with it and "
            f"after {duration(alone)} without: 1 is as fast here",
            file=sys.stderr,
        )
