"""Exports of many fragments, and of more bits of images than an array of bytes may have: seconds and memory.

    python -m tests.bench.exports                                    # 19,800 fragments: `table export`, run, rerun
    python -m tests.bench.exports --curves 600 --bits 250000         # 2.7 GB of `correct`
    python -m tests.bench.exports --keep STORE                       # the store stays, and is used if it is there

The store is a sweep's, with real columns and made-up numbers. Memory is the most that a process had: all of it, and
without the pages of files that it maps, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep import driver, table
from sweep.study.check import read_config

from .storage import FINISHED, ROOT, rows, write

_LAYERS, _DATASETS = 18, 4  # of the config's architecture; its own dataset among these


def fill(home: Path, curves: int, bits: int) -> Path:
    """A finished store of so many curves, each layer with so many bytes of ``correct``; returns its config."""
    file = write(home, FINISHED, classes="10", seeds=list(range(curves // _DATASETS)))
    sweep = driver.prepare(read_config(file), str(home / "out"))
    first, planned = next(iter(sweep.curves.items()))
    table.write_fragment(sweep.store, first, rows(first, planned.curve))
    form = table.read_fragments(sweep.store, [first])
    for key in sweep.curves.keys() - (table.listing(sweep.store).done - {first}):
        columns = {
            "curve_key": pa.array([key] * len(form), pa.string()),
            "correct": pa.array([os.urandom(bits) for _ in range(len(form))], pa.binary()),
        }
        own = form
        for name, values in columns.items():
            own = own.set_column(own.schema.get_field_index(name), own.schema.field(name), values)
        sweep.store.put(f"{table.FRAGMENTS}{key}.parquet", table.serialised(own))
    table.publish_plan(sweep.store, driver.plan_of(sweep))
    return file


def measured(command: Sequence[object]) -> tuple[float, int, int]:
    """Seconds of a command, the most memory it had, and the same without mapped files, in bytes."""
    started, anonymous = time.perf_counter(), 0
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        anonymous = max(anonymous, _anonymous(process.pid))
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024, anonymous


def _anonymous(process: int) -> int:
    """Memory of a process that is no file's, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Fill a store, export it in both ways, say what that took; 1 if something is not in the exports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--curves", type=int, default=19_800)
    parser.add_argument("--bits", type=int, default=256, help="bytes of `correct` in a row")
    parser.add_argument("--keep", type=Path, help="where the store is, or is to stay")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        home = given.keep or Path(directory) / "store"
        home.mkdir(parents=True, exist_ok=True)
        file, out, big = fill(home, given.curves, given.bits), home / "out", Path(directory) / "big"
        for old in (out / "probes.parquet", *out.glob("exports/*")):
            old.unlink(missing_ok=True)
        run = [sys.executable, ROOT / "sweep" / "run.py", "--config", file, "--out", out]
        export = [sys.executable, "-m", "sweep.table", "export", out, "--to", big]
        for what, command in {"table export": export, "run that exports": run, "run again": run}.items():
            seconds, peak, anonymous = measured(command)
            print(f"{what}: {seconds:.1f} s, {peak / 1e6:,.0f} MB, {anonymous / 1e6:,.0f} MB without mapped files")
        for place in (big, out):
            curves, size = content(sorted(place.glob("probes*.parquet")))
            print(f"{place.name}: {curves:,} curves, {size / 2**30:.2f} GiB of `correct`")
            if (curves, size) != (given.curves, given.curves * _LAYERS * given.bits):
                return 1
    return 0


def content(files: Sequence[Path]) -> tuple[int, int]:
    """Curves of an export, and bytes of their ``correct``."""
    keys, size = set(), 0
    for file in files:
        for part in pq.ParquetFile(file).iter_batches(columns=["curve_key", "correct"], batch_size=1000):
            keys |= set(part["curve_key"].to_pylist())
            size += pc.sum(pc.binary_length(part["correct"])).as_py()
    return len(keys), size


if __name__ == "__main__":
    sys.exit(main())
