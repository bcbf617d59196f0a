"""What the main job prints: layer lists, plans, and how a run ended."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from sweep import cell, data, driver, table
from sweep.base.errors import InterruptedSweepError, StorageError, UserError
from sweep.base.line import duration
from sweep.base.spans import recorded
from sweep.base.store import Store
from sweep.cell import CellTask
from sweep.config import Config, closest
from sweep.driver import status as progress
from sweep.models import facts
from sweep.study import (
    NOT_KNOWN,
    TrialOutcome,
    block_values,
    expand,
    group_label,
    id_dataset_of,
    layers_said,
    outcomes,
    packing,
    probes_said,
    propose,
    render_plan,
    resolution_of,
    said_of_sizes,
    sizes,
    trial_key,
    view_of,
    without_downloads,
)
from sweep.table import read_records
from sweep.train import clear_checkpoint

_SHOWN = 5
T = TypeVar("T")


def layers(config: Config, name: str, resolution: int) -> str:
    """Probed layers of an architecture, one a line, as the config's ``layers`` has them."""
    try:
        said = layers_said(config, name)
    except KeyError:
        near = ", ".join(closest(name, facts.names())[:8])
        raise UserError(f"--layers {name}: no such architecture; the closest are {near}") from None
    found = facts.layers(name, resolution=resolution, layers=said)
    rows = [f"{number:>4}  {layer.width:>6}  {layer.name}" for number, layer in enumerate(found, start=1)]
    head = f"{name} at {resolution} px: {len(found)} probed layers, the last is the penultimate layer"
    return "\n".join([head, f"{'#':>4}  {'width':>6}  module", *rows])


def weights(config: Config, name: str, *, every_name: bool = False) -> int:
    """Print how the config's own weights of that name fit every architecture that the grid uses them for.

    Returns the exit code: 1 where they do not fit.
    """
    if name not in config.weights:
        near = ", ".join(closest(name, config.weights)) or "there are none"
        raise UserError(f"--weights {name}: the config's section weights has no such entry; {near}")
    used = {
        (values["architecture"], resolution_of(config, values) or 0): values
        for block in config.grid
        for values in block_values(block)
        if values["pretraining"] == name
    }
    fits = True
    for (architecture, resolution), values in sorted(used.items(), key=lambda item: item[0]):
        report = cell.look_at_weights(
            config,
            name,
            architecture,
            resolution,
            id_dataset_of(config, values) or NOT_KNOWN,
            seen=view_of(config, values),
            every_name=every_name,
        )
        print(report.text)
        fits = fits and report.fits
    if not used:
        print(f"{name}: no block of the grid uses these weights")
    return 0 if fits else 1


def calibrated(config: Config, out: str) -> str:
    """Hours of a config on this machine, from a few seconds of each of its networks; the rates stay with the results,
    where the next run looks which backbones take longest.
    """
    import torch

    threads = config.resources.threads
    torch.set_num_threads(threads if isinstance(threads, int) else 1)  # auto is 1 on a CPU
    config = without_downloads(config)
    device = torch.device("cuda" if torch.cuda.is_available() and config.resources.gpus != 0 else "cpu")
    with data.glance():
        grid = expand(config, lambda name: sizes(config, name))
        measured = cell.calibrate(config, grid, device)
        said = f"{cell.hours(config, grid, measured)}\n{packing.said(config, grid.cells, measured)}"
    store = Store(out)
    try:
        earlier = table.kept_rates(store)
        table.publish_rates(store, measured.beside(earlier))
    except StorageError as error:  # the hours are what was asked for
        return f"{said}\nthe next run will not know: {error}"
    if earlier is not None and earlier.device != measured.device:
        said += f"\nin place of what was measured on one {earlier.device}"
    return said


def plan(config: Config, out: str) -> str:
    """The plan of a config, with what is already done if the data is here to compute keys; nothing is fetched."""
    config = without_downloads(config)
    with data.glance():
        try:
            sweep = driver.prepare(config, out)
        except UserError as error:
            grid = expand(config, lambda name: sizes(config, name))
            return render_plan(config, grid, done=None, why_unknown=str(error).splitlines()[0], out=out)
        return render_plan(config, sweep.grid, done=driver.finished(sweep), why_unknown=None, out=out)


def status(out: str, name: str | None, *, watch: bool = False) -> int:
    """Print how far the sweeps in a store are, or that of a name; with ``watch`` until all is done."""
    if not watch:
        print(progress.show(out, name))
        return 0
    try:
        progress.watch(out, name)
    except KeyboardInterrupt:
        print()
    return 0


def run(config: Config, out: str, *, retry_failed: bool = False, verify: bool = False, profile: bool = False) -> int:
    """Run a config, print the summary, return the exit code."""
    if verify:
        found = table.verify_fragments(Store(out))
        print(table.describe_verified(found), file=sys.stderr)
        for said in table.changed_tables(Store(out), found.digests):
            print(f"  {said}", file=sys.stderr)
    sweep = driver.prepare(config, out)
    if profile:
        sweep = replace(sweep, profile=table.new_profile())
    if sweep.grid.merged:
        print(
            f"notice: {sweep.grid.merged} backbones stand in more than one block; each is run once",
            file=sys.stderr,
        )
    for said in said_of_sizes(config):
        print(f"notice: {said}", file=sys.stderr)
    try:
        outcome = _profiled(sweep, lambda: driver.run(sweep, retry_failed=retry_failed))
    except (InterruptedSweepError, KeyboardInterrupt) as interruption:
        kept = sum(driver.finished(sweep).values())
        print(
            f"interrupted ({str(interruption) or 'SIGINT'}): {kept} of {len(sweep.curves)} curves are kept in {out}; "
            "run the same command again to go on",
            file=sys.stderr,
        )
        return 130
    said = probes_said(planned.curve for planned in sweep.planned)
    print(last_words(outcome, len(sweep.curves), out, probes=said))
    return 1 if outcome.failures or outcome.missing else 0


def _profiled(sweep: driver.Sweep, work: Callable[[], T]) -> T:
    """Do it; if the sweep is to have a profile, record the driver too; print where the time went, however it ends."""
    if sweep.profile is None:
        return work()
    try:
        with recorded("rest", table.saver(sweep.store, sweep.profile, lane=table.DRIVER)):
            return work()
    finally:
        try:
            print(table.finish_profile(sweep.store, sweep.profile))
        except StorageError as error:  # the run has ended as it has
            print(f"notice: no profile: {error}", file=sys.stderr)


def last_words(outcome: driver.Outcome, planned: int, out: str, *, probes: str) -> str:
    """The last words of a run; ``probes``: how they were fitted."""
    lines = [
        f"{len(outcome.done)} of {planned} curves are in the table ({outcome.computed} computed now, "
        f"in {duration(outcome.seconds)})"
    ]
    for record in outcome.failures[:_SHOWN]:
        message = record["message"].splitlines()[0] if record["message"] else ""
        lines.append(
            f"failed: {record['backbone']} on {record['dataset']}, stage {record['stage']}: "
            f"{record['exception']}: {message}"
        )
    if len(outcome.failures) > _SHOWN:
        lines.append(f"and {len(outcome.failures) - _SHOWN} more failures")
    if outcome.failures:
        lines.append(f"failure records with tracebacks: {out.rstrip('/')}/failures/")
        lines.append(_what_next(outcome))
    if outcome.missing:
        lines.append(f"{len(outcome.missing)} curves are missing without a failure record; run again")
    lines += [f"probes: {probes}", f"table:  {outcome.table}"]
    lines += [f"tasks:  {outcome.courses}"] if outcome.courses else []
    lines.append(f"report: python analysis/shap_report.py --results {shlex.quote(out)}")
    return "\n".join(lines)


def _what_next(outcome: driver.Outcome) -> str:
    """Which failures another run would try again."""
    stay = sum(not record["transient"] for record in outcome.failures)
    words = []
    if stay < len(outcome.failures):
        words.append(f"the next run tries {len(outcome.failures) - stay} of them again")
    if stay:
        earlier = f" ({outcome.given_up} failed in an earlier run and were left alone)" if outcome.given_up else ""
        words.append(f"{stay} would fail again as they are{earlier}: mend the reason, then --retry-failed")
    return "; ".join(words)


def search_plan(config: Config, out: str) -> str:
    """The trials of a config's recipe search, one a line."""
    return _listed(_outcomes(_searched(config, out)))


def search(config: Config, out: str) -> int:
    """Run a recipe search and leave what it found; returns the exit code."""
    sweep = _searched(config, out)
    try:
        _run_trials(sweep, _outcomes(sweep))
    except (InterruptedSweepError, KeyboardInterrupt):
        print("interrupted: trials that ended are kept; run the same command again to go on", file=sys.stderr)
        return 130
    return _conclude(sweep)


def _searched(config: Config, out: str) -> driver.Sweep:
    if config.search is None:
        raise UserError(f"{config.name}: no search section: it names the recipe keys to search, with ranges")
    return driver.prepare(config, out)


def _outcomes(sweep: driver.Sweep) -> list[TrialOutcome]:
    """Every trial of the config's search, with what the store knows of it."""
    assert sweep.config.search is not None
    trials = propose(sweep.config.search, sweep.grid)
    records = read_records(sweep.store, [trial_key(sweep.keys, trial) for trial in trials])
    return outcomes(trials, sweep.keys, records)


def _listed(found: Sequence[TrialOutcome]) -> str:
    """The trials of a search, one a line."""
    groups = len({outcome.trial.group for outcome in found})
    done = sum(outcome.record is not None for outcome in found)
    lines = [f"{len(found)} trials for {groups} groups of backbones, {done} already there"]
    for outcome in sorted(found, key=lambda o: (group_label(o.trial.group), o.trial.number)):
        lines.append(f"  {outcome.trial.label}{' (the config)' if outcome.trial.number == 0 else ''}")
    return "\n".join(lines)


def _run_trials(sweep: driver.Sweep, found: Sequence[TrialOutcome]) -> None:
    """Run the trials that have no record."""
    missing = [number for number, outcome in enumerate(found) if outcome.record is None]
    if not missing:
        return
    print(f"{sweep.config.name}: {len(missing)} of {len(found)} trials to do", file=sys.stderr)
    search = sweep.config.search
    assert search is not None
    with driver.connect(sweep.config.resources) as resources:
        sweep = replace(sweep, config=sweep.config.model_copy(update={"resources": resources}))
        share = min(1.0, float(resources.gpus)) / search.trials_per_gpu
        tasks = {number: _trial_task(sweep, found[number], share) for number in missing}
        driver.run_trials(search, found, tasks, sweep.store, resources)


def _trial_task(sweep: driver.Sweep, outcome: TrialOutcome, share: float) -> CellTask:
    return driver.task_of(sweep, sweep.keys.cell(outcome.trial.backbone), share > 0, share=share)


def _conclude(sweep: driver.Sweep) -> int:
    """Write what was found, drop the checkpoints of trials that ended, say it; returns the exit code."""
    found, store = _outcomes(sweep), sweep.store
    driver.search_report.write(store, found, name=sweep.config.name)
    for outcome in found:
        if outcome.record is not None:
            clear_checkpoint(store, outcome.key)
    print(driver.search_report.summary(found))
    print(f"recipes:  {store.path(driver.search_report.RECIPES)} (in a config: recipes: FILE)")
    print(f"evidence: {store.path(driver.search_report.TRIALS)}, {store.path(driver.search_report.FIGURE)}")
    groups = {outcome.trial.group for outcome in found}
    return 0 if groups == {outcome.trial.group for outcome in found if outcome.chosen} else 1
