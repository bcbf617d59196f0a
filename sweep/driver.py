"""The grid on Ray: skip what is finished, run what is missing, record what fails, show how far it is.

The store is the truth. One listing says what is done before Ray starts; one coarse task per backbone that still
lacks a curve does the rest; only keys and URIs pass through Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from sweep import table
from sweep.config import Config, Resources
from sweep.console import Line, duration
from sweep.errors import UserError
from sweep.grid import Cell, Curve, Grid, Keyring, expand
from sweep.inventory import cache_dir, dataset_options, keyring, named_weights, sizes, used_datasets
from sweep.plan import curve_cost, layer_widths, training_flops, varied_roles
from sweep.progress import read_notes
from sweep.provenance import provenance
from sweep.store import Store
from sweep.task import CellResult, CellTask, failure_record

_POLL_SECONDS = 1.0
_STALE_SECONDS = 120.0  # a note this old belongs to a worker that is gone
_WAITING_IN_FLIGHT = 256  # an autoscaler starts nodes for the tasks it sees, up to a maximum of its own
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by `ray job submit`


class InterruptedSweepError(Exception):
    """A signal ended the run early; what is finished is kept."""


@dataclass(frozen=True)
class Sweep:
    """A config with everything that follows from it and from what is stored.

    ``curves`` maps the key of each planned curve to the curve, in plan order.
    """

    config: Config
    grid: Grid
    keys: Keyring
    curves: Mapping[str, Curve]
    store: Store


@dataclass(frozen=True)
class Outcome:
    """How a run ended, in curve keys and in seconds."""

    done: tuple[str, ...]
    computed: int
    failures: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]
    seconds: float
    table: str


def prepare(config: Config, out: str) -> Sweep:
    """Expand the grid and give every curve its key; reads fingerprints of the data, no images."""
    refuse_relative_in_job(out)
    grid = expand(config, lambda name: sizes(config, name))
    keys = keyring(config)
    curves: dict[str, Curve] = {}
    for curve in grid.curves:
        curves.setdefault(keys.curve(curve), curve)
    return Sweep(config, grid, keys, curves, Store(out))


def refuse_relative_in_job(out: str) -> None:
    """Inside a Ray job a relative path would land in the session's copy of the working directory."""
    if os.environ.get(_JOB_VARIABLE) and "://" not in out and not os.path.isabs(out):
        raise UserError(
            f"--out {out}: inside a Ray job this would be written to a temporary copy of the working directory; "
            "give an absolute path that every node sees, or a URI such as s3://bucket/sweep"
        )


def finished(sweep: Sweep) -> dict[Curve, bool]:
    """Which planned curves the store has."""
    done = table.listing(sweep.store).done
    return {curve: key in done for key, curve in sweep.curves.items()}


def missing_cells(sweep: Sweep, done: frozenset[str]) -> list[Cell]:
    """Cells that lack curves, reduced to those curves, the most work first."""
    wanted = {curve for key, curve in sweep.curves.items() if key not in done}
    cells = []
    for cell in sweep.grid.cells:
        curves = tuple(curve for curve in cell.curves if curve in wanted)
        if curves:
            cells.append(replace(cell, curves=curves))
    return sorted(cells, key=lambda cell: -sum(_work(sweep.config, cell)))


def _work(config: Config, cell: Cell) -> list[float]:
    """Estimated operations behind each curve of a cell, training spread over them."""
    share = training_flops(config, cell.backbone) / len(cell.curves)
    return [share + curve_cost(config, curve).flops for curve in cell.curves]


def run(sweep: Sweep) -> Outcome:
    """Run what is missing, export the table, say how it went.

    Raises
    ------
    InterruptedSweepError
        On SIGINT or SIGTERM; finished curves are kept.
    UserError
        If the cluster cannot give what a task asks for.
    """
    started = time.monotonic()
    before = table.listing(sweep.store).done
    cells = missing_cells(sweep, before)
    if cells:
        with cluster(sweep.config.resources) as resources:
            _run_cells(sweep, cells, resources, before)
    done = table.listing(sweep.store).done
    missing = [key for key in sweep.curves if key not in done]
    failures = table.read_failures(sweep.store, missing)
    failed = {record["curve_key"] for record in failures}
    path = table.export(
        sweep.store,
        [key for key in sweep.curves if key in done],
        name=sweep.config.name,
        roles=varied_roles(sweep.config, sweep.grid),
        missing=[key for key in missing if key not in failed],
        failed=[key for key in missing if key in failed],
    )
    return Outcome(
        done=tuple(key for key in sweep.curves if key in done),
        computed=len(set(sweep.curves) & (done - before)),
        failures=tuple(failures),
        missing=tuple(key for key in missing if key not in failed),
        seconds=time.monotonic() - started,
        table=path,
    )


@contextmanager
def cluster(resources: Resources) -> Iterator[Resources]:
    """A connection to the cluster of RAY_ADDRESS, or a local one; yields resources with ``auto`` resolved."""
    import ray

    os.environ.setdefault("RAY_task_oom_retries", str(resources.retries))  # Ray's own default is for ever
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    environment = {}
    if not os.environ.get(_JOB_VARIABLE):  # a job's workers find the code in its working directory
        root = str(Path(__file__).resolve().parents[1])
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}}
    address = os.environ.get("RAY_ADDRESS", "local")  # without one, Ray waits for ever for a head that died here
    ray.init(
        address,
        logging_level="ERROR",
        log_to_driver=False,
        include_dashboard=False if address == "local" else None,
        runtime_env=environment,
    )
    try:
        yield resolve(resources, ray.nodes())
    finally:
        ray.shutdown()


class _Signals:
    """Notes SIGTERM and SIGINT; the loop asks. Raising from a handler inside Ray's C code ends in a SystemError."""

    def __init__(self) -> None:
        self._caught: list[int] = []
        # ray.init installs handlers of its own, so this comes after it
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._caught.append(number)

    def check(self) -> None:
        """Raise InterruptedSweepError if a signal has come."""
        if self._caught:
            raise InterruptedSweepError(signal.Signals(self._caught[0]).name)


def resolve(resources: Resources, nodes: Sequence[Mapping[str, Any]]) -> Resources:
    """Replace ``auto`` by what the cluster has; refuse what no node can give, since it would wait for ever.

    With ``wait_for_nodes`` the nodes of now say nothing: the request stands as it is, and so many tasks are in
    flight that an autoscaler sees what to grow for.

    Parameters
    ----------
    nodes : as ``ray.nodes()`` lists them.

    Raises
    ------
    UserError
        If no node has what a task asks for, and the config does not say that nodes are still to come.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = resources.gpus
    if gpus == "auto":
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in alive) else 0.0
    if resources.wait_for_nodes:
        in_flight = _WAITING_IN_FLIGHT if resources.max_in_flight == "auto" else resources.max_in_flight
        return resources.model_copy(update={"gpus": gpus, "max_in_flight": in_flight})
    for name, wanted in (("CPU", resources.cpus), ("GPU", gpus)):
        most = max((node.get(name, 0) for node in alive), default=0)
        if wanted > most:
            raise UserError(
                f"resources.{name.lower()}s = {wanted:g}: no node of this cluster has that many (the largest has "
                f"{most:g}); the tasks would wait for ever. If such nodes are still to come (an autoscaler, a "
                "queue), say resources.wait_for_nodes: true"
            )
    slots = sum(
        int(min(node.get("CPU", 0) // resources.cpus, node.get("GPU", 0) / gpus if gpus else float("inf")))
        for node in alive
    )
    in_flight = 2 * max(1, slots) if resources.max_in_flight == "auto" else resources.max_in_flight
    return resources.model_copy(update={"gpus": gpus, "max_in_flight": in_flight})


def _run_task(task: CellTask) -> CellResult:
    """Body of the Ray task; torch is imported in the worker only."""
    from sweep.cell import run_cell

    return run_cell(task)


def _run_cells(sweep: Sweep, cells: list[Cell], resources: Resources, before: frozenset[str]) -> None:
    """Keep a bounded number of cells in flight until all have ended."""
    import ray

    gpu = float(resources.gpus) > 0
    remote = ray.remote(
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_calls=1 if gpu else 0,  # a fresh process gives the GPU's memory back; on CPU it would only cost seconds
        max_retries=resources.retries,
        retry_exceptions=[OSError],
    )(_run_task)
    waiting = list(reversed(cells))
    running: dict[Any, tuple[Cell, float]] = {}
    meter, signals = _Meter(sweep, cells, before), _Signals()
    try:
        while waiting or running:
            signals.check()
            while waiting and len(running) < int(resources.max_in_flight):
                cell = waiting.pop()
                running[remote.remote(task_of(sweep, cell, gpu))] = (cell, time.monotonic())
            ended, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_SECONDS)
            for reference in ended:
                cell, since = running.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    _record_lost(sweep, cell, error, time.monotonic() - since)
            meter.show(len(running), len(waiting))
    finally:
        meter.end()


def task_of(sweep: Sweep, cell: Cell, gpu: bool) -> CellTask:
    """What a worker needs to run a cell."""
    config = sweep.config
    return CellTask(
        cell=cell,
        keys=sweep.keys,
        datasets={name: dataset_options(config, name) for name in used_datasets(config)},
        store_uri=sweep.store.uri,
        cache_dir=str(cache_dir(config)),
        threads=config.resources.threads,
        loader_workers=config.resources.loader_workers,
        gpu=gpu,
        keep_embeddings=config.keep_embeddings,
        weights=named_weights(config),
        provenance=provenance(),
        imports=config.imports,
        import_path=_import_path(config),
    )


def _import_path(config: Config) -> str | None:
    """Where workers find plug-ins: inside a Ray job relative to the copy of the working directory that each has."""
    path, here = config.import_path, os.getcwd()
    if path is not None and os.environ.get(_JOB_VARIABLE) and Path(path).is_relative_to(here):
        return os.path.relpath(path, here)
    return path


def _record_lost(sweep: Sweep, cell: Cell, error: Exception, seconds: float) -> None:
    """A task that died, or ran out of retries: its unfinished curves become failures."""
    done = table.listing(sweep.store).done
    cause = getattr(error, "cause", None) or error
    for curve in cell.curves:
        key = sweep.keys.curve(curve)
        if key not in done:
            table.write_failure(sweep.store, failure_record(key, curve, "worker", cause, seconds))


class _Meter:
    """The progress line of a run: curves and probes done, probes per second, time left, what is under way."""

    def __init__(self, sweep: Sweep, cells: Sequence[Cell], before: frozenset[str]) -> None:
        self._sweep, self._before, self._line = sweep, before, Line()
        self._work = {
            sweep.keys.curve(curve): (work, len(layer_widths(curve.backbone)))
            for cell in cells
            for curve, work in zip(cell.curves, _work(sweep.config, cell), strict=True)
        }
        self._started = time.monotonic()
        print(
            f"{sweep.config.name}: {len(self._work)} curves of {len(cells)} backbones to do, "
            f"{len(set(sweep.curves) & before)} already there",
            file=sys.stderr,
        )

    def show(self, running: int, waiting: int) -> None:
        """Draw the line anew from what the store holds."""
        done = table.listing(self._sweep.store).done & self._work.keys()
        elapsed = time.monotonic() - self._started
        share = sum(self._work[key][0] for key in done) / sum(work for work, _ in self._work.values())
        probes = sum(self._work[key][1] for key in done)
        left = f"{duration(elapsed * (1 - share) / share)} left" if share else "estimating the time left"
        parts = [f"{len(done)}/{len(self._work)} curves", f"{probes / elapsed:.1f} probes/s", left]
        notes = [n for n in read_notes(self._sweep.store) if time.time() - n["time"] < _STALE_SECONDS]
        if notes:
            note = max(notes, key=lambda n: n["time"])
            parts.append(f"{note['stage']} {note['backbone']} {note['done']}/{note['total']}")
        del running, waiting
        self._line.show(f"{self._sweep.config.name}  " + " · ".join(parts))

    def end(self) -> None:
        """Leave the line."""
        self._line.end()
