"""On which processors, and in which precision of extraction, the curves of a store were computed.

Processors of another kind round differently, and what stands in a store is never computed again for that: a table that
holds both says so. Fragments older than the column of precision were embedded in TF32 where a GPU did a convolution.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.table.fragments import listing, read_fragment

_DEVICE, _PRECISION = "device", "extraction_precision"
_LOOKED_AT = 16  # fragments when a run begins; their names are hashes, so the first are as good as any
_SHOWN = 4


class Origins:
    """Counts curves by where they were computed.

    Attributes
    ----------
    devices : curves by the name of the processor.
    precisions : curves by the precision of extraction; None where it is not recorded.
    """

    def __init__(self) -> None:
        self.devices: Counter[str] = Counter()
        self.precisions: Counter[str | None] = Counter()

    def add(self, fragment: pa.Table) -> None:
        """Count a curve by its first row."""
        if not len(fragment):
            return
        schema = fragment.schema
        places = [schema.get_field_index(name) for name in (_DEVICE, _PRECISION)]
        device, precision = (fragment.column(place)[0].as_py() if place >= 0 else None for place in places)
        if device is not None:
            self.devices[device] += 1
        self.precisions[precision] += 1

    @property
    def mixed(self) -> list[str]:
        """A sentence for each way in which curves of one table differ; none where they do not."""
        said = []
        if len(self.devices) > 1:
            said.append(
                f"these curves were computed on {len(self.devices)} kinds of processor ({_counted(self.devices)}), "
                f"which round differently; column {_DEVICE} tells them apart"
            )
        if None in self.precisions and len(self.precisions) > 1:
            said.append(
                f"{self.precisions[None]} of {sum(self.precisions.values())} curves do not record the precision of "
                f"extraction: they are older, and convolutions on a GPU took TF32 then; column {_PRECISION} is null"
            )
        elif len(self.precisions) > 1:
            named = Counter({str(name): count for name, count in self.precisions.items()})
            said.append(f"these curves were embedded in several precisions ({_counted(named)}); see {_PRECISION}")
        return said


def _counted(found: Counter[str]) -> str:
    most = [f"{name}: {count:,}" for name, count in found.most_common(_SHOWN)]
    return "; ".join(most) + ("; …" if len(found) > _SHOWN else "")


def said_before(store: Store, here: Sequence[str], precision: str) -> str | None:
    """What to say where a store holds curves of other processors than those of a run that begins.

    Parameters
    ----------
    here : what the run's processors are called, or a part of it (``H100``); none where nobody knows.
    precision : of extraction, in the run.
    """
    found = Origins()
    for key in sorted(listing(store).done)[:_LOOKED_AT]:
        with contextlib.suppress(UserError):  # a damaged one: the export names it
            found.add(read_fragment(store, key))
    others = Counter({name: n for name, n in found.devices.items() if here and not any(word in name for word in here)})
    older, total = found.precisions[None], sum(found.precisions.values())
    said = []
    if others:
        said.append(f"{sum(others.values())} were computed on {_counted(others)}, this run is on {', '.join(here)}")
    if older:
        said.append(f"{older} are older than the record of extraction precision (this run's: {precision})")
    if not said:
        return None
    return (
        f"of {total} finished curves looked at in the store {' and '.join(said)}: one table will hold both, with "
        f"columns {_DEVICE} and {_PRECISION}; another --out keeps them apart"
    )
