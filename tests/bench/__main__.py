"""``python -m tests.bench [NAME …] [--quick] [--json FILE]``: the names are those of :data:`BENCHMARKS`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from . import (
    attribution,
    browse,
    coverage,
    decode,
    embed,
    gpu,
    growth,
    jobs,
    machine,
    probes,
    report,
    solvers,
    steps,
    storage,
    train,
)

BENCHMARKS: dict[str, ModuleType] = {
    "probes": probes,
    "solvers": solvers,
    "train": train,
    "steps": steps,
    "decode": decode,
    "embed": embed,
    "gpu": gpu,
    "growth": growth,
    "attribution": attribution,
    "coverage": coverage,
    "storage": storage,
    "jobs": jobs,
    "browse": browse,
}
ALL = tuple(name for name in BENCHMARKS if name != "jobs")  # which takes over an hour: only if it is named
ON_CPU = ("probes", "solvers", "decode", "growth", "attribution", "coverage", "storage", "browse")
# most of the work is done by their own processes, which look like others
OWN_WORKERS = ("storage", "coverage", "decode", "growth", "jobs", "browse", "steps")
RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks (all by default), print their tables, write them down."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = set(options.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results: dict[str, Any] = {"quick": options.quick}
    for name in options.benchmarks or ALL:
        started = time.perf_counter()
        with machine.neighbours() as others:
            result = BENCHMARKS[name].run(quick=options.quick)
        where = machine.describe(torch.device("cpu") if name in ON_CPU else device)
        where |= {"others": others.share, "provisional": others.provisional and name not in OWN_WORKERS}
        results[name] = result | {"machine": where, "wall_seconds": time.perf_counter() - started}
        text = report.section(name, BENCHMARKS[name].markdown(result), where)
        print(text, flush=True)
        if not options.quick:
            report.update(RESULTS, {name: text})
        if options.json:
            options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "benchmarks", nargs="*", metavar="|".join(BENCHMARKS), help="which; all but jobs if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, within a minute; RESULTS.md stays as it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
