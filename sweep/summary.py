"""What the main job prints: layer lists, plans, and how a run ended."""

from __future__ import annotations

import sys

from sweep import driver, table
from sweep import status as progress
from sweep.base.errors import InterruptedSweepError, UserError
from sweep.base.line import duration
from sweep.base.store import Store
from sweep.config import Config, closest
from sweep.models import facts
from sweep.study import block_values, expand, located_weights, render, resolution_of, sizes, without_downloads

_SHOWN = 5


def layers(name: str, resolution: int) -> str:
    """Probed layers of an architecture, one a line."""
    try:
        found = facts.layers(name, resolution=resolution)
    except KeyError:
        near = ", ".join(closest(name, facts.names())[:8])
        raise UserError(f"--layers {name}: no such architecture; the closest are {near}") from None
    rows = [f"{number:>4}  {layer.width:>6}  {layer.name}" for number, layer in enumerate(found, start=1)]
    head = f"{name} at {resolution} px: {len(found)} probed layers, the last is the penultimate layer"
    return "\n".join([head, f"{'#':>4}  {'width':>6}  module", *rows])


def weights(config: Config, name: str) -> str:
    """How the config's own weights of that name fit every architecture that the grid uses them for."""
    if name not in config.weights:
        near = ", ".join(closest(name, config.weights)) or "there are none"
        raise UserError(f"--weights {name}: the config's section weights has no such entry; {near}")
    from sweep.models import match_weights  # torch: only here

    used = {
        (values["architecture"], resolution_of(config, values) or 0)
        for block in config.grid
        for values in block_values(block)
        if values["pretraining"] == name
    }
    entry = located_weights(config, config.weights[name])
    lines = [f"{name}: {entry.source}"]
    for architecture, resolution in sorted(used):
        found = match_weights(architecture, entry, resolution=resolution)
        head = f"{architecture} at {resolution} px: {'fits' if found.fits else 'does not fit'}"
        lines += [head, *(f"    {line}" for line in found.report().splitlines())]
    return "\n".join(lines if used else [*lines, "no block of the grid uses them"])


def plan(config: Config, out: str) -> str:
    """The plan of a config, with what is already done if the data is here to compute keys; nothing is fetched."""
    config = without_downloads(config)
    try:
        sweep = driver.prepare(config, out)
    except UserError as error:
        grid = expand(config, lambda name: sizes(config, name))
        return render(config, grid, done=None, why_unknown=str(error).splitlines()[0], out=out)
    return render(config, sweep.grid, done=driver.finished(sweep), why_unknown=None, out=out)


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


def run(config: Config, out: str, *, retry_failed: bool = False, verify: bool = False) -> int:
    """Run a config, print the summary, return the exit code."""
    if verify:
        print(table.describe_verified(table.verify_fragments(Store(out))), file=sys.stderr)
    sweep = driver.prepare(config, out)
    if sweep.grid.merged:
        print(
            f"notice: {sweep.grid.merged} backbones stand in more than one block; each is run once",
            file=sys.stderr,
        )
    try:
        outcome = driver.run(sweep, retry_failed=retry_failed)
    except (InterruptedSweepError, KeyboardInterrupt) as interruption:
        kept = sum(driver.finished(sweep).values())
        print(
            f"interrupted ({interruption}): {kept} of {len(sweep.curves)} curves are kept in {out}; "
            "run the same command again to go on",
            file=sys.stderr,
        )
        return 130
    print(describe(outcome, len(sweep.curves), out))
    return 1 if outcome.failures or outcome.missing else 0


def describe(outcome: driver.Outcome, planned: int, out: str) -> str:
    """The last words of a run."""
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
    lines.append(f"table:  {outcome.table}")
    lines.append(f"report: python analysis/shap_report.py --results {out}")
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
