#!/usr/bin/env python
"""Write one self-contained page to browse the results: backbones, layers, variables, what drives it, best layers.

    python analysis/browse.py                                      the newest sweep under results/
    python analysis/browse.py --results DIR|URI --open             a finished or running sweep
    python analysis/browse.py --results DIR --against OTHER        two sweeps side by side
    python analysis/browse.py --results DIR --against FILE.csv --mapping MAP.yaml     published values beside ours
    python analysis/browse.py --results DIR --against harun2024_experiments.csv       the same of a table that is known
    python analysis/browse.py --table FILE.csv --mapping configs/tables/harun2024.yaml --out page.html

The page works from disk and asks nothing of the network. Exit codes: 0 it is written, 2 a mistake in the call or the
table.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
sys.path[:] = [p for p in sys.path if not (Path(p).is_absolute() and Path(p).resolve() == ROOT / "analysis")]

from analysis import streams  # noqa: E402  (after the path is set: the file runs from any directory)

if __name__ == "__main__":
    streams.steady()  # before anything that takes a while is imported

from analysis.page import browse  # noqa: E402
from analysis.page.browse_data import GIVEN, Part  # noqa: E402
from analysis.tables import storage, stored  # noqa: E402
from analysis.tables.errors import UserError  # noqa: E402
from analysis.tables.mapped import read_mapped  # noqa: E402
from analysis.tables.metrics import ACCURACIES  # noqa: E402
from analysis.tables.published import found  # noqa: E402
from analysis.tables.sweep import read_sweep  # noqa: E402

PAGE = "browse.html"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", help="folder or URI of a sweep; default: the newest under results/")
    parser.add_argument("--against", help="folder or URI of a second sweep; with --mapping a table of published values")
    parser.add_argument("--table", help="a table of experiments that someone else made (CSV or Parquet)")
    parser.add_argument("--mapping", help="YAML that says what its columns are")
    parser.add_argument("--report", help="folder or URI of the report; default: report/ beside the results")
    parser.add_argument("--out", help=f"file or URI of the page; default: {PAGE} in the report's folder")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page that the command line asks for; returns the exit code."""
    call = parse(argv)
    try:
        place = write(call)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"page: {place}")
    if call.open:
        webbrowser.open(place if "://" in place else Path(place).absolute().as_uri())
    return 0


def write(call: argparse.Namespace) -> str:
    """Write the page; returns where it is."""
    if (call.table and not call.mapping) or (call.mapping and not call.table and not call.against):
        raise UserError("--table and --mapping go together: the mapping says what the columns of the table are")
    if call.table and (call.results or call.against):
        raise UserError("--table stands alone: --results and --against are sweeps")
    if call.table:
        parts = [published(call.table, call.mapping)]
        report = call.report or "report"
    else:
        results = call.results or storage.newest_sweep()
        known = None if call.mapping or not call.against else found(call.against)
        if known or call.mapping:
            parts = named_apart([sweep(results), published(*(known or (call.against, call.mapping)))])
        else:
            parts = sweeps(*(place for place in (results, call.against) if place))
        folder = storage.folder(results) if storage.ending(results).endswith(".parquet") else results
        report = call.report or storage.join(folder, "report")
    out = call.out or storage.join(report, PAGE)
    reported = storage.exists(storage.join(report, "index.html"))
    beside = reported and storage.folder(out).rstrip("/") == report.rstrip("/")
    storage.write(out, browse.render(parts, report=report, report_link="index.html" if beside else None))
    return out


def sweeps(*places: str) -> list[Part]:
    """Sweeps to browse, each under a name of its own."""
    return named_apart([sweep(place) for place in places])


def named_apart(parts: list[Part]) -> list[Part]:
    """Parts each under a name of its own."""
    if len({part.name for part in parts}) < len(parts):
        parts = [replace(part, name=f"{part.name} ({number})") for number, part in enumerate(parts, 1)]
    return parts


def published(table: str, mapping: str) -> Part:
    """Values that someone else published, beside a sweep whatever its accuracy rule."""
    mapped = read_mapped(table, mapping)
    return Part(mapped.title, "", {GIVEN: mapped}, kinds=mapped.kinds)


def sweep(place: str) -> Part:
    """A sweep by each accuracy rule whose columns its table has."""
    found = stored.find(place)
    rules = [rule for rule, columns in ACCURACIES.items() if set(columns) <= set(found.probes.schema.names)]
    by_rule = {rule: read_sweep(place, accuracy=rule) for rule in rules or ["heldout"]}
    return Part(next(iter(by_rule.values())).title, place, by_rule, found)


if __name__ == "__main__":
    streams.run(main)
