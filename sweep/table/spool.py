"""Rows of many curves, a part at a time: read ahead, joined with their labels, on the local disk until all are there.

Only then is it known which columns of registered statistics there are; memory holds one part, whatever the number of
curves.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import pyarrow as pa

from sweep.base.store import Store
from sweep.table.fragments import conform, read_digested
from sweep.table.labels import joined, relabelled
from sweep.table.origins import Origins
from sweep.table.plans import PlannedCurve
from sweep.table.schema import SCHEMA, is_statistic

_CURVES, _FIRST, _READERS = 512, 16, 4  # of a part, at most and the first; threads that wait for the store
_BYTES = 128 << 20  # of a part, as the last one had them: bits of a million images are 160 kB in every row
_Part: TypeAlias = "tuple[list[PlannedCurve], dict[str, Future[tuple[pa.Table, str]]]]"


class Spool:
    """Rows of the probe table on the local disk, in the order of their curves; gone when the ``with`` block ends.

    Attributes
    ----------
    schema : of all parts: the table's, and every registered statistic that some curve has.
    relabelled : columns whose labels in old fragments are not the plan's; of how many curves each.
    origins : where the curves were computed.
    digests : SHA-256 of each curve's fragment.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="tunnel-sweep-export-")
        self._parts: list[Path] = []
        self._registered: dict[str, pa.Field] = {}
        self.relabelled: dict[str, int] = {}
        self.origins = Origins()
        self.digests: dict[str, str] = {}
        self._curves = _FIRST

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    @property
    def schema(self) -> pa.Schema:
        """Of all that was read so far."""
        return pa.schema([*SCHEMA, *self._registered.values()], SCHEMA.metadata)

    def read(self, store: Store, curves: Sequence[PlannedCurve]) -> None:
        """Fetch these finished curves.

        Raises
        ------
        UserError
            If a fragment is damaged.
        """
        waiting, coming = deque(curves), deque[_Part]()
        with ThreadPoolExecutor(_READERS) as pool:
            try:
                while waiting or coming:
                    while waiting and len(coming) < 2:  # the next is read while this one is joined
                        coming.append(self._started(store, waiting, pool))
                    part, futures = coming.popleft()
                    read = {key: future.result() for key, future in futures.items()}
                    self.digests |= {key: digest for key, (_, digest) in read.items()}
                    self._add({key: fragment for key, (fragment, _) in read.items()}, part)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _started(self, store: Store, waiting: deque[PlannedCurve], pool: ThreadPoolExecutor) -> _Part:
        """The next curves, and their fragments as they come."""
        part = [waiting.popleft() for _ in range(min(self._curves, len(waiting)))]
        keys = dict.fromkeys(curve.key for curve in part)
        return part, {key: pool.submit(read_digested, store, key) for key in keys}

    def _add(self, fragments: Mapping[str, pa.Table], curves: Sequence[PlannedCurve]) -> None:
        for name, count in relabelled(fragments, curves).items():
            self.relabelled[name] = self.relabelled.get(name, 0) + count
        for fragment in fragments.values():
            self.origins.add(fragment)
        each = max(1, sum(fragment.nbytes for fragment in fragments.values()) // len(curves))
        self._curves = max(1, min(_CURVES, _BYTES // each))
        self._keep(joined(fragments, curves))

    def _keep(self, rows: pa.Table) -> None:
        self._registered |= {field.name: field for field in rows.schema if is_statistic(field)}
        self._parts.append(Path(self._directory.name) / f"{len(self._parts)}.arrow")
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(self._parts[-1]), "wb") as file, pa.ipc.new_file(file, rows.schema, options=options) as sink:
            sink.write_table(rows.combine_chunks())  # hundreds of curves, one batch

    def parts(self) -> Iterator[pa.Table]:
        """Tables of :attr:`schema`, one after the other; no curve is cut."""
        for place in self._parts:
            with pa.OSFile(str(place), "rb") as file:
                yield conform(pa.ipc.open_file(file).read_all(), self.schema)
