"""The grid on Ray: skip what is finished, run what is missing, record what fails, show how far it is.

The store is the truth. One listing says what is done before Ray starts; one coarse task per backbone that still
lacks a curve does the rest; only keys and URIs pass through Ray.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweep import table
from sweep.base.errors import StorageError, UserError
from sweep.base.provenance import provenance
from sweep.base.spans import span
from sweep.base.store import Store
from sweep.cell import CellTask, failure_of, failure_record
from sweep.config import AUTO, Config, Resources
from sweep.driver.asked import Sweep
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
from sweep.driver.work import (
    behind,
    lacking_readings,
    longest_first,
    missing_cells,
    packed_of,
    say_arithmetic,
    say_packed,
    say_together,
)
from sweep.study import (
    Cell,
    Curve,
    PlannedCell,
    cache_dir,
    costs,
    course_labels,
    dataset_options,
    expand,
    keyring,
    labels,
    layer_widths,
    sizes,
    used_datasets,
    varied_roles,
)


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
    courses: str | None = None  # the table of courses, and how many of them are in it


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
    before = sweep.listing()
    given_up = frozenset() if retry_failed else _given_up(sweep, before)
    table.publish_plan(sweep.store, plan_of(sweep))
    _tidy(sweep, before)
    ready = before.done & _kept(sweep, before.done)
    measured = table.measured_keys(sweep.store) if lacking_readings(sweep) else None
    cells = missing_cells(sweep, ready | given_up, measured=measured, spared=given_up)
    if cells:
        with connect(sweep.config.resources, packed_of(sweep, cells)) as resources:
            say_packed(sweep.config.resources, resources)
            sweep = _with_resources(sweep, resources)
            with span("waiting for tasks"):
                _run(sweep, cells, resources, ready)
    done = sweep.listing().done
    missing = [key for key in (*sweep.curves, *sweep.courses) if key not in done]
    unmeasured = lacking_readings(sweep) & done
    unkept = (set(sweep.curves) & done - _kept(sweep, done)) | unmeasured
    failures = table.read_failures(sweep.store, [*missing, *sorted(unkept)])
    failed = {record["curve_key"] for record in failures}
    with span("the table"):
        path = export(sweep, done=done, failed=failed)
        learned = export_courses(sweep, done)
    return Outcome(
        done=tuple(key for key in sweep.curves if key in done),
        computed=len(set(sweep.curves) & (done - before.done)),
        failures=tuple(failures),
        given_up=len(given_up & failed),
        missing=tuple(key for key in (*missing, *sorted(unmeasured)) if key not in failed),
        seconds=time.monotonic() - started,
        table=path,
        courses=learned,
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
    for folder in (
        "",
        table.FRAGMENTS,
        table.KEPT,
        table.READINGS,
        "weights/",
        "checkpoints/",
        "checkpoints/best/",
        table.FITS,
    ):
        sweep.store.tidy(folder)
    if not found.failed:  # no curve waits for another attempt
        table.forget_fits(sweep.store)
    try:
        plans = table.read_plans(sweep.store) if found.failed else []
        planned = {key for plan in plans for key in (*plan.keys, *(course.key for course in plan.courses))}
    except UserError:  # a damaged plan of another config: who knows what it asks for
        planned = set(found.failed)
    table.clear_failures(sweep.store, found.outvoted | (found.failed - planned))


def _kept(sweep: Sweep, done: frozenset[str]) -> frozenset[str]:
    """Of finished curves those whose probes are kept as far as the config asks; all where it does not."""
    wish = sweep.config.keep_probes
    return done if wish is None else done & table.kept_curves(sweep.store, wish)


def _given_up(sweep: Sweep, found: table.Listing) -> frozenset[str]:
    """Planned curves whose last attempt failed for a reason that another attempt would meet again."""
    records = table.read_failures(sweep.store, [key for key in (*sweep.curves, *sweep.courses) if key in found.failed])
    return frozenset(record["curve_key"] for record in records if not record["transient"])


def export(sweep: Sweep, *, done: Container[str], failed: Container[str] = ()) -> str:
    """Write the table of what is done; returns its path for people."""
    plan = plan_of(sweep)
    path = table.export_probes(sweep.store, plan, done=done, failed=failed)
    table.export_readings(sweep.store, plan)
    return path


def export_courses(sweep: Sweep, done: Container[str]) -> str | None:
    """Write the table of courses, of every plan that shares the store; returns what to say of it, None: nothing."""
    if not sweep.courses:
        return None
    others = [plan for plan in table.readable_plans(sweep.store)[0] if plan.name != sweep.config.name]
    every = table.done_courses(sweep.store)
    path = table.export_courses(sweep.store, [plan_of(sweep), *others], every)
    return f"{path} ({sum(key in done for key in sweep.courses)} of {len(sweep.courses)} courses)"


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
    courses = tuple(
        table.LabelledCourse(course.key, cell.run, cell.backbone.label, course_labels(cell, course))
        for cell in sweep.cells
        for course in cell.courses
    )
    return table.Plan(sweep.config.name, blocks, curves, roles, adjust, sweep.threads, courses)


def _run(sweep: Sweep, cells: list[PlannedCell], resources: Resources, before: frozenset[str]) -> None:
    """Run cells on the cluster, with a progress line."""
    refuse_too_many(max(cell.backbone.processes for cell in cells), resources, room(resources))
    work_of = behind(sweep, cells)
    work = {
        planned.key: (amount, len(layer_widths(planned.curve.backbone)))
        for cell in cells
        for planned, amount in zip(cell.curves, work_of(cell), strict=True)
    }
    cells = sorted(cells, key=lambda cell: -sum(work_of(cell)))  # the device is known by now
    cells = [longest_first(cell, {key: amount for key, (amount, _) in work.items()}) for cell in cells]
    meter = Meter(sweep.config.name, sweep.store, work)
    meter.announce(len(cells), len(set(sweep.curves) & before), sum(len(cell.courses) for cell in cells))
    say_arithmetic(sweep.config, cells, gpu=float(resources.gpus) > 0)
    if before and (said := table.said_before(sweep.store, processors(resources), sweep.config.extraction_precision)):
        print(f"notice: {said}", file=sys.stderr)
    say_together(sweep, cells, places(resources))
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
    asked = (Cell(c.backbone, tuple(planned.curve for planned in c.curves), c.blocks) for c in cells if c.curves)
    return costs.cost(sweep.config, asked).images


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
        done, how = sweep.listing().done, ("worker", lost.error, lost.seconds)
        records = [
            failure_record(each, *how, transient=lost.transient) for each in lost.cell.curves if each.key not in done
        ]
        for course in lost.cell.courses:
            about = (course.key, lost.cell.backbone.label, course.course.label)
            records += [] if course.key in done else [failure_of(*about, *how, transient=lost.transient)]
        for record in records:
            table.write_failure(sweep.store, record)
    except StorageError as error:  # perhaps the very reason of the loss; the curves stay missing, and are tried again
        print(f"{lost.cell.backbone.label}: {lost.error}; no record of it: {error}", file=sys.stderr)
