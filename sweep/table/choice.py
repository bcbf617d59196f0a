"""Which layer of a curve is the best, by images that no probe was fitted on and that no reported number is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# what may choose, the better first: all training images in turn, where a table has them, else the held-out part
_CHOOSERS = (("crossfit_top1", "crossfit_loss"), ("heldout_top1", "heldout_loss"))


def choosing_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Which accuracy and which loss choose among the rows of one curve that are in the running."""
    return next(pair for pair in _CHOOSERS if all(row.get(pair[0]) is not None for row in rows))


def best_row(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of a curve's best layer: highest held-out top-1, then lowest held-out loss, then the middle one.

    Of two middle ones the deeper. The rule looks at images and not at depth. Only probes that held-out images chose
    for their layer take part.

    Parameters
    ----------
    rows : of one curve, with the columns of the table.

    Returns
    -------
    None if no layer has numbers.
    """
    chosen = sorted((row for row in rows if row["chosen"] and row["problem"] is None), key=lambda row: row["layer"])
    if not chosen:
        return None
    top1, loss = choosing_columns(chosen)
    highest = max(row[top1] for row in chosen)
    among = [row for row in chosen if row[top1] == highest]
    lowest = min(_number(row.get(loss)) for row in among)
    among = [row for row in among if _number(row.get(loss)) == lowest]
    return among[len(among) // 2]


def _number(value: float | None) -> float:
    return float("inf") if value is None else value
