"""Run a sweep to its end, and read what it measured."""

from __future__ import annotations

from typing import Any

from sweep import driver, table


def finish(sweep: driver.Sweep) -> tuple[driver.Outcome, list[dict[str, Any]]]:
    """How it ended, and the rows of its finished curves with their labels."""
    outcome = driver.run(sweep, retry_failed=True)
    done = set(outcome.done)
    curves = [curve for curve in driver.plan_of(sweep).curves if curve.key in done]
    return outcome, table.labelled_probes(sweep.store, curves).to_pylist() if curves else []


def reasons(outcome: driver.Outcome) -> list[str]:
    """Why curves failed, one line each, whole."""
    lines = [f"failed: {r['backbone']}: {r['exception']}: {' '.join(r['message'].split())}" for r in outcome.failures]
    return lines + [f"{len(outcome.missing)} curves are missing without a failure record"] * bool(outcome.missing)
