#!/usr/bin/env python
"""Ask a sweep in SQL: DuckDB with the views probes, curves, experiments, backbones, failures.

    python -m analysis.sql results/demo                              a shell; a statement ends with a semicolon
    python -m analysis.sql results/demo -c "FROM backbones"          one or more statements, then the end
    python -m analysis.sql s3://bucket/mine -c "…" --csv > rows.csv  the last result as CSV, with all digits

The place is a sweep's folder or URI (a running one has its fragments), or a Parquet file of probes.
The views epochs, readings and continual are there where the sweep has such rows (docs/sql.md).
Exit codes: 0 done, 2 a mistake in the call, the statement or the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
sys.path[:] = [p for p in sys.path if not (Path(p).is_absolute() and Path(p).resolve() == ROOT / "analysis")]

from analysis import streams  # noqa: E402  (after the path is set: the file runs from any directory)

if __name__ == "__main__":
    streams.steady()  # before anything that takes a while is imported

from analysis.tables import database, stored  # noqa: E402
from analysis.tables.errors import UserError  # noqa: E402
from analysis.tables.metrics import ACCURACIES  # noqa: E402

if TYPE_CHECKING:
    import duckdb

PROMPT, MORE = "sql> ", "...> "
VIEWS = ("probes", "curves", "experiments", "backbones", "failures", "epochs", "readings", "continual")
WIDTH = 200  # characters of a printed table, where the terminal does not say


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m analysis.sql",
        description=head,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="folder or URI of a sweep, or a Parquet file of probes")
    parser.add_argument("-c", dest="statement", help="run these statements instead of a shell")
    parser.add_argument("--csv", action="store_true", help="print the result of -c as CSV")
    parser.add_argument("--accuracy", choices=tuple(ACCURACIES), default="heldout", help="which accuracy counts")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the statements of the command line, or a shell; returns the exit code."""
    call = parse(argv)
    try:
        connection = database.connect(stored.find(call.results), accuracy=call.accuracy)
        if call.statement is None:
            return _shell(connection)
        _run(connection, call.statement, csv=call.csv)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(connection: duckdb.DuckDBPyConnection, statement: str, *, csv: bool = False) -> None:
    """Run statements and print what the last one gives."""
    import duckdb

    try:
        result = connection.sql(statement)
        if result is None:
            return
        if csv:
            result.df().to_csv(sys.stdout, index=False)
        else:
            result.show(max_width=WIDTH, max_rows=60)
    except duckdb.Error as error:
        raise UserError(str(error)) from None


def _shell(connection: duckdb.DuckDBPyConnection) -> int:
    """Read statements until the input ends; a mistake is told and the shell goes on."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  (arrow keys and history)

        there = {name for (name,) in connection.sql("SHOW TABLES").fetchall()}
        print(f"views: {', '.join(name for name in VIEWS if name in there)}; DESCRIBE backbones; ends with Ctrl-D")
    for statement in _statements():
        try:
            _run(connection, statement)
        except UserError as error:
            print(error, file=sys.stderr)
    return 0


def _statements() -> Iterator[str]:
    """Statements from the standard input, each up to its semicolon."""
    lines: list[str] = []
    asked = sys.stdin.isatty()  # from a file or a pipe only the answers are printed
    while True:
        try:
            lines.append(input((MORE if lines else PROMPT) if asked else ""))
        except EOFError:
            break
        except KeyboardInterrupt:
            lines.clear()
            print()
            continue
        if lines[-1].rstrip().endswith(";"):
            yield "\n".join(lines)
            lines.clear()
    if "".join(lines).strip():
        yield "\n".join(lines)


if __name__ == "__main__":
    streams.run(main)
