"""Work on the fragments of a sweep without running it.

    python -m sweep.table verify results/mine                      parse all; damaged ones are set aside
    python -m sweep.table export s3://bucket/mine --to big/        every fragment, sorted, in few Parquet files

The export is a copy for readers; the fragments stay the truth. Its files are named by their content, and
``export.json``, written last, lists those that belong together: whoever reads what it lists never sees half of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence

import pyarrow as pa

from sweep import integrity, table
from sweep.base.errors import StorageError, UserError
from sweep.base.line import Line
from sweep.base.store import Store

MANIFEST = "export.json"
_ROWS_PER_FILE = 2_000_000
_SORTED_BY = ("architecture", "id_dataset", "dataset", "weights_key", "curve_key", "layer")


def export(store: Store, target: Store, *, rows_per_file: int = _ROWS_PER_FILE) -> list[str]:
    """Write all fragments as few files, sorted by backbone, dataset and layer.

    Parameters
    ----------
    target : another place than the fragments'.
    rows_per_file : a file ends after the curve that reaches so many rows.

    Returns
    -------
    names of the files.

    Raises
    ------
    UserError
        If there is no fragment, or the target is the store itself.
    """
    if target.uri.rstrip("/") == store.uri.rstrip("/"):
        raise UserError(f"--to {target.uri}: that is where the fragments are; name another directory")
    keys = sorted(table.listing(store).done)
    if not keys:
        raise UserError(f"{store.uri}: there is no fragment (is that the --out of a sweep?)")
    names = []
    for number, part in enumerate(_parts(_sorted(table.read_fragments(store, keys)), rows_per_file)):
        data = table.serialised(part)
        names.append(f"probes-{number:04d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet")
        target.put(names[-1], data)
    old = [name for name in target.names() if name.startswith("probes-") and name not in names]
    target.put(MANIFEST, json.dumps({"of": store.uri, "curves": len(keys), "files": names}, indent=1).encode())
    for name in old:
        target.delete(name)
    return names


def _sorted(probes: pa.Table) -> pa.Table:
    return probes.sort_by([(column, "ascending") for column in _SORTED_BY])


def _parts(probes: pa.Table, rows: int) -> Iterator[pa.Table]:
    """Slices of about so many rows that never cut a curve."""
    keys = probes["curve_key"].to_pylist()
    start = 0
    while start < len(keys):
        end = min(start + rows, len(keys))
        while end < len(keys) and keys[end] == keys[end - 1]:
            end += 1
        yield probes.slice(start, end - start)
        start = end


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
    for action in (checking, copying):
        action.add_argument("store", help="directory or URI of the results")
    copying.add_argument("--to", required=True, help="directory or URI of the copy")
    copying.add_argument("--rows-per-file", type=int, default=_ROWS_PER_FILE, help=f"default {_ROWS_PER_FILE:,}")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks: 0 all is well, 1 something is damaged or the store fails, 2 a mistake."""
    arguments = parse(argv)
    try:
        store = Store(arguments.store)
        if arguments.action == "export":
            names = export(store, Store(arguments.to), rows_per_file=arguments.rows_per_file)
            print(f"{len(names)} files and {MANIFEST} in {arguments.to}")
            return 0
        line = Line()
        found = integrity.verify(store, each=lambda done, total: line.show(f"verified {done}/{total} fragments"))
        line.end()
        print(integrity.describe(found))
        return 1 if found.quarantined else 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
