#!/usr/bin/env python
"""Set a finished sweep beside published values, cell by cell: a page and a CSV file.

    python analysis/against.py --list                                  which published tables are known
    python analysis/against.py --results results/paper --published harun2024_text
    python analysis/against.py --results DIR --published harun2024_table5.csv harun2024_table6.csv
    python analysis/against.py --results DIR --published FILE.csv --mapping MAP.yaml     anyone's table

The values of most tables are their authors' and not shipped: give the file that you have. Own values are by the papers'
rule (--accuracy paper) unless you say otherwise. Exit codes: 0 it is written, 2 a mistake in the call or a table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
sys.path[:] = [p for p in sys.path if not (Path(p).is_absolute() and Path(p).resolve() == ROOT / "analysis")]

from analysis import streams  # noqa: E402  (after the path is set: the file runs from any directory)

if __name__ == "__main__":
    streams.steady()  # before anything that takes a while is imported

from analysis.estimates import published as estimates  # noqa: E402
from analysis.page import against as page  # noqa: E402
from analysis.tables import storage  # noqa: E402
from analysis.tables.errors import UserError  # noqa: E402
from analysis.tables.mapping import read_spec  # noqa: E402
from analysis.tables.metrics import ACCURACIES  # noqa: E402
from analysis.tables.published import declared, read_published  # noqa: E402

PAGE, ROWS = "against.html", "against.csv"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", help="folder or URI of a sweep; default: the newest under results/")
    parser.add_argument("--published", nargs="+", default=[], metavar="NAME|FILE", help="published tables")
    parser.add_argument("--mapping", help="YAML that says which cell of a sweep a row of the one --published FILE is")
    parser.add_argument("--accuracy", choices=tuple(ACCURACIES), default="paper", help="rule of our own values")
    parser.add_argument("--out", help="folder or URI; default: report/ beside the results")
    parser.add_argument("--list", action="store_true", help="the published tables that are known, and stop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; returns the exit code."""
    call = parse(argv)
    try:
        print(listed() if call.list else write(call))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def listed() -> str:
    """The published tables that the project knows, with where their values are."""
    lines = []
    for name, path in declared().items():
        spec = read_spec(str(path))
        here = "values here" if path.with_name(spec["file"]).is_file() else f"bring {spec['file']}"
        lines.append(f"{name:<18}  {spec['title']} ({here})")
        lines += [f"{'':<20}not at hand: {what}" for what in spec.get("missing") or ()]
    return "\n".join(lines)


def write(call: argparse.Namespace) -> str:
    """Write page and rows; returns what to print."""
    if not call.published:
        raise UserError(f"--published: name a table ({', '.join(declared())}) or a file; --list says more")
    if call.mapping and len(call.published) > 1:
        raise UserError("--mapping is of one --published file")
    results = call.results or storage.newest_sweep()
    tables = [read_published(given, call.mapping) for given in call.published]
    own = estimates.own_experiments(results, call.accuracy)
    rows = estimates.compare(own, tables)
    sums = estimates.summary(rows)
    root = storage.folder(results) if storage.ending(results).endswith(".parquet") else results
    out = call.out or storage.join(root, "report")
    storage.write(storage.join(out, ROWS), rows.to_csv(index=False))
    storage.write(storage.join(out, PAGE), page.render(own, tables, rows, sums))
    counts = rows["class"].value_counts()
    said = [
        f"{int(counts[name]):>6}  {name}: {meaning}" for name, meaning in estimates.CLASSES.items() if name in counts
    ]
    return "\n".join([*said, f"page: {storage.join(out, PAGE)}", f"rows: {storage.join(out, ROWS)}"])


if __name__ == "__main__":
    streams.run(main)
