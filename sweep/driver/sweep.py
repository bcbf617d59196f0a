"""The grid on Ray: skip what is finished, run what is missing, record what fails, show how far it is.

The store is the truth. One listing says what is done before Ray starts; one coarse task per backbone that still
lacks a curve does the rest; only keys and URIs pass through Ray.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweep import table
from sweep.base.errors import StorageError, UserError
from sweep.base.line import duration
from sweep.base.provenance import provenance
from sweep.base.spans import span
from sweep.base.store import Store
from sweep.cell import CellTask, failure_record
from sweep.config import AUTO, Config, Resources
from sweep.driver.cluster import (
    JOB_VARIABLE,
    connect,
    places,
    processors,
    refuse_too_many,
    room,
    tasks_of_a_node,
    with_cpus,
)
from sweep.driver.decoding import decode_first
from sweep.driver.meter import Meter
from sweep.driver.tasks import Lost, run_cells
from sweep.study import (
    Cell,
    Curve,
    Grid,
    Keyring,
    Planned,
    PlannedCell,
    Rates,
    cache_dir,
    costs,
    curve_cost,
    dataset_options,
    ends_after,
    expand,
    keyring,
    labels,
    layer_widths,
    sizes,
    training_flops,
    used_datasets,
    varied_roles,
)


@dataclass(frozen=True)
class Sweep:
    """A config with everything that follows from it and from what is stored.

    ``cells`` are those of the grid with the keys of their curves; ``profile`` names the profile the run is to have;
    ``threads`` is what ``threads: auto`` stands for, if that is settled; ``rates`` are those of ``--calibrate``, if it
    was asked.
    """

    config: Config
    grid: Grid
    keys: Keyring
    cells: tuple[PlannedCell, ...]
    store: Store
    profile: str | None = None
    threads: int | None = None
    rates: Rates | None = None

    @functools.cached_property
    def curves(self) -> dict[str, Planned]:
        """What there is to compute: planned curves by key, in plan order; of those that share a key the first."""
        found: dict[str, Planned] = {}
        for planned in self.planned:
            found.setdefault(planned.key, planned)
        return found

    @property
    def planned(self) -> Iterator[Planned]:
        """Every curve of the grid with its keys."""
        return (planned for cell in self.cells for planned in cell.curves)


@dataclass(frozen=True)
class Outcome:
    """How a run ended, in curve keys and in seconds."""

    done: tuple[str, ...]
    computed: int
    failures: tuple[dict[str, Any], ...]
    given_up: int  # failures of earlier runs that were not tried again
    missing: tuple[str, ...]
    seconds: float
    table: str


def prepare(config: Config, out: str) -> Sweep:
    """Expand the grid and give every curve its key; reads fingerprints of the data, no images."""
    refuse_relative_in_job(out)
    table.refuse_taken(config.statistics)
    grid = expand(config, lambda name: sizes(config, name))
    keys = keyring(config)
    store = Store(out)
    threads = table.planned_threads(store, config.name) if config.resources.threads == AUTO else None
    return Sweep(config, grid, keys, keys.cells(grid), store, threads=threads, rates=table.kept_rates(store))


def refuse_relative_in_job(out: str) -> None:
    """Inside a Ray job a relative path would land in the session's copy of the working directory."""
    if os.environ.get(JOB_VARIABLE) and "://" not in out and not os.path.isabs(out):
        raise UserError(
            f"--out {out}: inside a Ray job this would be written to a temporary copy of the working directory; "
            "give an absolute path that every node sees, or a URI such as s3://bucket/sweep"
        )


def finished(sweep: Sweep) -> dict[Curve, bool]:
    """Which planned curves the store has."""
    done = table.listing(sweep.store).done
    return {planned.curve: planned.key in done for planned in sweep.planned}


def missing_cells(
    sweep: Sweep, done: Container[str], *, measured: Container[str] | None = None, spared: Container[str] = ()
) -> list[PlannedCell]:
    """Cells that lack curves, reduced to those curves, the most work first; of two with one key the first.

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
        if curves:
            cells.append(replace(cell, curves=curves))
    work = _work(sweep, cells)
    return sorted(cells, key=lambda cell: -sum(work(cell)))


def _work(sweep: Sweep, cells: Sequence[PlannedCell]) -> Callable[[PlannedCell], list[float]]:
    """What says how much is behind each curve of a cell, training spread over them: seconds, if all of these cells were
    calibrated on what tasks run on, else operations.
    """
    config, rates = sweep.config, _known_rates(sweep, cells)

    def operations(cell: PlannedCell) -> list[float]:
        share = training_flops(config, cell.backbone) / len(cell.curves)
        return [share + curve_cost(config, planned.curve).flops for planned in cell.curves]

    def seconds(cell: PlannedCell) -> list[float]:
        assert rates is not None
        share = rates.training_seconds(config, cell.backbone) / len(cell.curves)
        curves = [planned.curve for planned in cell.curves]
        own = [rates.extraction_seconds(config, curve) + rates.probe_seconds(config, curve) for curve in curves]
        return [share + each for each in own]

    return operations if rates is None else seconds


def _known_rates(sweep: Sweep, cells: Sequence[PlannedCell]) -> Rates | None:
    """The calibrated rates, if they are of the device that tasks run on and of all these cells."""
    rates, gpus = sweep.rates, sweep.config.resources.gpus
    if rates is None or (gpus != AUTO and rates.kind != ("cuda" if float(gpus) > 0 else "cpu")):
        return None
    known = all(rates.know(cell.backbone, [planned.curve for planned in cell.curves]) for cell in cells)
    return rates if known else None


def _lacking(planned: Planned, measured: Container[str] | None, claimed: set[str]) -> bool:
    """Whether a curve lacks readings that no other was told to make; from now on it is."""
    if measured is None:
        return False
    own = {key for _, key in planned.readings if key not in measured} - claimed
    claimed |= own
    return bool(own)


def _unmeasured(sweep: Sweep) -> set[str]:
    """Keys of the curves that lack a reading."""
    if not any(planned.readings for planned in sweep.planned):
        return set()
    there = table.measured_keys(sweep.store)
    return {planned.key for planned in sweep.planned if any(key not in there for _, key in planned.readings)}


def run(sweep: Sweep, *, retry_failed: bool = False) -> Outcome:
    """Run what is missing, export the table, say how it went.

    Parameters
    ----------
    retry_failed : also what failed for a reason that stays; other failures are always tried again.

    Raises
    ------
    InterruptedSweepError
        On SIGINT or SIGTERM; finished curves are kept.
    UserError
        If the cluster cannot give what a task asks for.
    StorageError
        If the store cannot be read or written; finished curves are kept.
    """
    started = time.monotonic()
    before = table.listing(sweep.store)
    given_up = frozenset() if retry_failed else _given_up(sweep, before)
    table.publish_plan(sweep.store, plan_of(sweep))
    _tidy(sweep, before)
    ready = before.done & _kept(sweep, before.done)
    measured = table.measured_keys(sweep.store) if _unmeasured(sweep) else None
    cells = missing_cells(sweep, ready | given_up, measured=measured, spared=given_up)
    if cells:
        with connect(sweep.config.resources) as resources:
            sweep = _with_resources(sweep, resources)
            with span("waiting for tasks"):
                _run(sweep, cells, resources, ready)
    done = table.listing(sweep.store).done
    missing = [key for key in sweep.curves if key not in done]
    unmeasured = _unmeasured(sweep) & done
    unkept = (set(sweep.curves) & done - _kept(sweep, done)) | unmeasured
    failures = table.read_failures(sweep.store, [*missing, *sorted(unkept)])
    failed = {record["curve_key"] for record in failures}
    with span("the table"):
        path = export(sweep, done=done, failed=failed)
    return Outcome(
        done=tuple(key for key in sweep.curves if key in done),
        computed=len(set(sweep.curves) & (done - before.done)),
        failures=tuple(failures),
        given_up=len(given_up & failed),
        missing=tuple(key for key in (*missing, *sorted(unmeasured)) if key not in failed),
        seconds=time.monotonic() - started,
        table=path,
    )


def _with_resources(sweep: Sweep, resources: Resources) -> Sweep:
    """The sweep with ``auto`` resolved. Threads are settled by its first run and stand in the plan: on CPU they decide
    the order of sums, so later runs keep to them, whatever their nodes.
    """
    settled = replace(sweep, config=sweep.config.model_copy(update={"resources": resources}))
    if sweep.config.resources.threads == AUTO and sweep.threads is None:
        settled = replace(settled, threads=int(resources.threads))
        table.publish_plan(sweep.store, plan_of(settled))
    return settled


def _tidy(sweep: Sweep, found: table.Listing) -> None:
    """Remove what nobody will ask for: files of killed writers, failure records of done curves and of no plan's."""
    for folder in ("", table.FRAGMENTS, table.KEPT, "weights/", "checkpoints/"):
        sweep.store.tidy(folder)
    try:
        planned = {key for plan in table.read_plans(sweep.store) for key in plan.keys} if found.failed else set()
    except UserError:  # a damaged plan of another config: who knows what it asks for
        planned = set(found.failed)
    table.clear_failures(sweep.store, found.outvoted | (found.failed - planned))


def _kept(sweep: Sweep, done: frozenset[str]) -> frozenset[str]:
    """Of finished curves those whose probes are kept as far as the config asks; all where it does not."""
    wish = sweep.config.keep_probes
    return done if wish is None else done & table.kept_curves(sweep.store, wish)


def _given_up(sweep: Sweep, found: table.Listing) -> frozenset[str]:
    """Planned curves whose last attempt failed for a reason that another attempt would meet again."""
    records = table.read_failures(sweep.store, [key for key in sweep.curves if key in found.failed])
    return frozenset(record["curve_key"] for record in records if not record["transient"])


def export(sweep: Sweep, *, done: Container[str], failed: Container[str] = ()) -> str:
    """Write the table of what is done; returns its path for people."""
    plan = plan_of(sweep)
    path = table.export_probes(sweep.store, plan, done=done, failed=failed)
    table.export_readings(sweep.store, plan)
    return path


def plan_of(sweep: Sweep) -> table.Plan:
    """What is planned, with the labels of all rows: whoever has the store needs neither the config nor the data."""
    blocks: dict[int, list[str]] = {}
    for cell in sweep.cells:
        for number in cell.blocks:
            blocks.setdefault(number, []).extend(planned.key for planned in cell.curves)
    curves = tuple(
        table.PlannedCurve(
            key=planned.key,
            run=planned.run,
            backbone=planned.curve.backbone.label,
            dataset=planned.curve.dataset,
            labels=labels(planned),
            readings=tuple(key for _, key in planned.readings),
        )
        for planned in sweep.planned
    )
    roles, adjust = varied_roles(sweep.config, sweep.grid), sweep.config.adjust
    return table.Plan(sweep.config.name, blocks, curves, roles, adjust, sweep.threads)


def _run(sweep: Sweep, cells: list[PlannedCell], resources: Resources, before: frozenset[str]) -> None:
    """Run cells on the cluster, with a progress line."""
    refuse_too_many(max(cell.backbone.processes for cell in cells), resources, room(resources))
    behind = _work(sweep, cells)
    work = {
        planned.key: (amount, len(layer_widths(planned.curve.backbone)))
        for cell in cells
        for planned, amount in zip(cell.curves, behind(cell), strict=True)
    }
    cells = sorted(cells, key=lambda cell: -sum(behind(cell)))  # the device is known by now
    cells = [longest_first(cell, {key: amount for key, (amount, _) in work.items()}) for cell in cells]
    meter = Meter(sweep.config.name, sweep.store, work)
    meter.announce(len(cells), len(set(sweep.curves) & before))
    _say_arithmetic(sweep.config, cells, gpu=float(resources.gpus) > 0)
    if before and (said := table.said_before(sweep.store, processors(resources), sweep.config.extraction_precision)):
        print(f"notice: {said}", file=sys.stderr)
    _say_together(sweep, cells, places(resources))
    common = task_of(
        sweep, cells[0], float(resources.gpus) > 0, share=float(resources.gpus), tasks=tasks_of_a_node(resources)
    )
    try:
        with span("decoding beforehand"):
            decode_first(cells, _images(sweep, cells), resources, task=common, show=meter.show)
        run_cells(
            cells,
            resources,
            task_of=lambda cell, train_only: replace(common, cell=cell, train_only=train_only),
            lost=lambda attempt: _record_lost(sweep, attempt),
            show=lambda _running: meter.show(waiting_for="nodes" if resources.wait_for_nodes else ""),
        )
    finally:
        meter.end()


def _images(sweep: Sweep, cells: list[PlannedCell]) -> int:
    asked = (Cell(cell.backbone, tuple(planned.curve for planned in cell.curves), cell.blocks) for cell in cells)
    return costs.cost(sweep.config, asked).images


def longest_first(cell: PlannedCell, work: Mapping[str, float]) -> PlannedCell:
    """The cell with its curves by their estimated work: where they are dealt out to tasks, these end together."""
    return replace(cell, curves=tuple(sorted(cell.curves, key=lambda planned: -work[planned.key])))


def _say_arithmetic(config: Config, cells: Sequence[PlannedCell], *, gpu: bool) -> None:
    """What GPUs could do in fewer bits is said once; it is another result, so nobody chooses it but the user."""
    trained = any(cell.backbone.recipe and cell.backbone.recipe.precision == "float32" for cell in cells)
    slow = ["recipe.precision"] * trained + ["extraction.precision"] * (config.extraction_precision == "float32")
    if gpu and slow:
        print(
            f"notice: {' and '.join(slow)}: float32, with all its bits; GPUs are several times faster in bfloat16 or "
            "tf32, which are other results under other keys",
            file=sys.stderr,
        )


def _say_together(sweep: Sweep, cells: Sequence[PlannedCell], places: int) -> None:
    """Whether processes that train together bring the end forward, by calibrated time; only the user can change it, as
    it is another result.
    """
    rates, most = _known_rates(sweep, cells), max(cell.backbone.processes for cell in cells)
    if rates is None or most == 1 or most > places:
        return
    work = _work(sweep, cells)
    jobs = [(sum(work(cell)), cell.backbone.processes) for cell in cells]
    together, alone = ends_after(jobs, places), ends_after([(seconds, 1) for seconds, _ in jobs], places)
    if together >= alone:
        print(
            f"notice: recipe.data_parallel: calibrated, {places} places end after {duration(together)} with it and "
            f"after {duration(alone)} without: 1 is as fast here",
            file=sys.stderr,
        )


def task_of(sweep: Sweep, cell: PlannedCell, gpu: bool, *, share: float = 1.0, tasks: int = 1) -> CellTask:
    """What a worker needs to run a cell; ``share``: of a GPU; ``tasks``: on a node at once."""
    config = sweep.config
    resources = with_cpus(config.resources, [], float(gpu))  # where no cluster resolved ``auto``
    return CellTask(
        cell=cell,
        settings=sweep.keys.settings,
        datasets={name: dataset_options(config, name) for name in used_datasets(config)},
        store_uri=sweep.store.uri,
        cache_dir=str(cache_dir(config)),
        cpus=int(resources.cpus),
        cache_bytes=None if config.cache_limit is None else round(1e9 * config.cache_limit),
        share_decoded=config.share_decoded,
        threads=sweep.threads or int(resources.threads),
        loader_workers=int(resources.loader_workers),
        gpu=gpu,
        share=share if gpu else 1.0,
        tasks=tasks,
        memory=config.resources.memory,
        deterministic=config.deterministic,
        keep_embeddings=config.keep_embeddings,
        keep_probes=config.keep_probes,
        provenance=provenance(),
        imports=config.imports,
        import_path=_import_path(config),
        profile=sweep.profile,
    )


def _import_path(config: Config) -> str | None:
    """Where workers find plug-ins: inside a Ray job relative to the copy of the working directory that each has."""
    path, here = config.import_path, os.getcwd()
    if path is not None and os.environ.get(JOB_VARIABLE) and Path(path).is_relative_to(here):
        return os.path.relpath(path, here)
    return path


def _record_lost(sweep: Sweep, lost: Lost) -> None:
    """An attempt at a cell that died or met an I/O error: its unfinished curves get a failure record each."""
    try:
        done = table.listing(sweep.store).done
        for planned in lost.cell.curves:
            if planned.key not in done:
                record = failure_record(planned, "worker", lost.error, lost.seconds, transient=lost.transient)
                table.write_failure(sweep.store, record)
    except StorageError as error:  # perhaps the very reason of the loss; the curves stay missing, and are tried again
        print(f"{lost.cell.backbone.label}: {lost.error}; no record of it: {error}", file=sys.stderr)
