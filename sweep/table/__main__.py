"""Work on the fragments of a sweep without running it.

    python -m sweep.table verify results/mine                      parse all; damaged ones are set aside
    python -m sweep.table columns                                  what each column means
    python -m sweep.table columns --of continual                   likewise, of continual.parquet
    python -m sweep.table export s3://bucket/mine --to big/      every fragment, sorted, in few Parquet files

The export is a copy for readers; the fragments stay the truth. Its files are named by their content, and
``export.json``, written last, lists those that belong together: whoever reads what it lists never sees half of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sweep.base import streams
from sweep.base.errors import StorageError, UserError
from sweep.base.line import Line
from sweep.base.store import Store
from sweep.table.continual import continual_dictionary
from sweep.table.export import MANIFEST, ROWS_PER_FILE, changed_tables, copy_sorted
from sweep.table.readings import readings_dictionary
from sweep.table.schema import data_dictionary
from sweep.table.verify import describe_verified, verify_fragments

DICTIONARIES = {"probes": data_dictionary, "readings": readings_dictionary, "continual": continual_dictionary}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m sweep.table",
        description=head,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser("verify", help="parse every fragment; damaged ones move to quarantine/")
    copying = actions.add_parser("export", help="write all fragments as few sorted Parquet files")
    describing = actions.add_parser("columns", help="print the data dictionary of a table as Markdown")
    describing.add_argument("--of", choices=tuple(DICTIONARIES), default="probes", help="which table (default: probes)")
    for action in (checking, copying):
        action.add_argument("store", help="directory or URI of the results")
    copying.add_argument("--to", required=True, help="directory or URI of the copy")
    copying.add_argument("--rows-per-file", type=int, default=ROWS_PER_FILE, help=f"default {ROWS_PER_FILE:,}")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks: 0 all is well, 1 something is damaged or the store fails, 2 a mistake."""
    arguments = parse(argv)
    if arguments.action == "columns":
        print(DICTIONARIES[arguments.of](), end="")
        return 0
    try:
        store = Store(arguments.store)
        if arguments.action == "export":
            names = copy_sorted(store, Store(arguments.to), rows_per_file=arguments.rows_per_file)
            print(f"{len(names)} files and {MANIFEST} in {arguments.to}")
            return 0
        line = Line()
        found = verify_fragments(store, each=lambda done, total: line.show(f"verified {done}/{total} fragments"))
        line.end()
        print(describe_verified(found))
        changed = changed_tables(store, found.digests)
        for said in changed:
            print(f"  {said}")
        return 1 if found.quarantined or changed else 2 if found.newer else 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    streams.steady()
    streams.run(main)
