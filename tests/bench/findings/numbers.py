"""All numbers of a finding, as ``docs/findings.json`` keeps them: what its claims, its cells and pairs of cells say."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .claims import Finding, answer
from .layout import Difference, weighted

Numbers = dict[str, Any]
DIGITS = 4


def measured(found: Finding, frame: pd.DataFrame) -> Numbers:
    """Claims with their intervals; means of every cell; differences of the first outcome between any two cells.

    Parameters
    ----------
    frame : the finding's, one row per independent unit.
    """
    frame = frame.sort_values(list(found.varied)) if found.varied else frame
    cell_B = pd.Series([tuple(row) for row in frame[list(found.varied)].to_numpy(object)], frame.index)
    cells = list(dict.fromkeys(cell_B))
    outcomes = [name for name in found.outcomes if name in frame]
    means = []
    for cell in cells:
        own = frame[cell_B == cell]
        about = dict(zip(found.varied, map(_plain, cell), strict=True))
        means.append({**about, "n": len(own), **{name: _rounded(own[name].mean()) for name in outcomes}})
    pairs = [
        {"outcome": outcomes[0], "cells": [means.index(each) for each in pair], **_told(between)}
        for pair, between in (
            ((means[a], means[b]), weighted(frame[outcomes[0]], cell_B, {cells[b]: 1.0, cells[a]: -1.0}))
            for a, b in itertools.combinations(range(len(cells)), 2)
        )
    ]
    claims = [{"claim": claim.text, **_told(answer(found, frame, claim))} for claim in found.claims]
    return {"claims": claims, "cells": means, "pairs": pairs}


def difference(told: Mapping[str, Any]) -> Difference:
    """A difference as it was told; NaN where there is no interval."""
    low, high = (math.nan if told[end] is None else float(told[end]) for end in ("low", "high"))
    return Difference(float(told["value"]), low, high, int(told["n"]), int(told["freedom"]))


def read(file: Path) -> dict[str, Numbers]:
    """Numbers by finding; empty before the first run."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write(file: Path, numbers: Mapping[str, Numbers]) -> None:
    """A line for each claim, cell and pair, so that a change of one shows as such."""
    parts = []
    for name, own in numbers.items():
        lists = [f'  "{key}": [\n   ' + ",\n   ".join(map(_json, rows)) + "\n  ]" for key, rows in own.items() if rows]
        parts.append(f' "{name}": {{\n' + ",\n".join(lists) + "\n }")
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _told(found: Difference) -> dict[str, Any]:
    ends = {name: _rounded(getattr(found, name)) for name in ("value", "low", "high")}
    return {**ends, "n": found.n, "freedom": found.freedom}


def _rounded(value: float) -> float | None:
    return round(float(value), DIGITS) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
