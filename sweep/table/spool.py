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

import pyarrow as pa

from sweep.base.store import Store
from sweep.table.fragments import conform, read_fragment
from sweep.table.labels import joined, relabelled
from sweep.table.origins import Origins
from sweep.table.plans import PlannedCurve
from sweep.table.schema import SCHEMA, is_statistic

_CURVES, _READERS = 512, 4  # of a part; threads that wait for the store


class Spool:
    """Rows of the probe table on the local disk, in the order of their curves; gone when the ``with`` block ends.

    Attributes
    ----------
    schema : of all parts: the table's, and every registered statistic that some curve has.
    relabelled : columns whose labels in old fragments are not the plan's; of how many curves each.
    origins : where the curves were computed.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="tunnel-sweep-export-")
        self._parts: list[Path] = []
        self._registered: dict[str, pa.Field] = {}
        self.relabelled: dict[str, int] = {}
        self.origins = Origins()

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
        parts = [curves[start : start + _CURVES] for start in range(0, len(curves), _CURVES)]
        with ThreadPoolExecutor(_READERS) as pool:
            coming: deque[dict[str, Future[pa.Table]]] = deque()
            try:
                for number, part in enumerate(parts):
                    for ahead in parts[number + len(coming) : number + 2]:  # the next is read while this one is joined
                        keys = dict.fromkeys(curve.key for curve in ahead)
                        coming.append({key: pool.submit(read_fragment, store, key) for key in keys})
                    fragments = {key: future.result() for key, future in coming.popleft().items()}
                    self._add(fragments, part)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _add(self, fragments: Mapping[str, pa.Table], curves: Sequence[PlannedCurve]) -> None:
        for name, count in relabelled(fragments, curves).items():
            self.relabelled[name] = self.relabelled.get(name, 0) + count
        for fragment in fragments.values():
            self.origins.add(fragment)
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
