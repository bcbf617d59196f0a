"""A variable: its kind, its levels from low to high, its name for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.tables import names as known

Array = npt.NDArray[np.float64]


Kind = Literal["numeric", "ordinal", "categorical"]


@dataclass(frozen=True)
class Variable:
    """A column that outcomes are attributed to.

    Attributes
    ----------
    kind : ordinal values enter as ranks ([H24] A.9), numeric ones keep their spacing, categorical ones one-hot.
    levels : its values, low to high. A missing value is not a level: the variable does not apply there.
    log : whether a numeric variable counts in powers rather than in steps.
    reference : the level that those of a categorical variable are compared with; None: the most frequent.
    """

    name: str
    kind: Kind
    levels: tuple[object, ...]
    log: bool = False
    reference: str | None = None

    @property
    def label(self) -> str:
        """Name for people."""
        return known.label(self.name)

    @property
    def ordered(self) -> bool:
        """Whether its levels have an order."""
        return self.kind != "categorical"

    @property
    def has_slope(self) -> bool:
        """Whether 'from low to high' means something: ordered, or two levels only."""
        return self.kind != "categorical" or len(self.levels) == 2

    @property
    def text(self) -> str:
        """'from → to' of its scale."""
        return f"{level_text(self.levels[0])} → {level_text(self.levels[-1])}"


def level_text(value: object) -> str:
    """A level in words: numbers without trailing zeros."""
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return "all" if value > 0 else "unknown"
        number = float(value)
        if abs(number) >= 1000:
            return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.0f}"
        return f"{number:.4g}"
    return str(value)


def describe(
    frame: pd.DataFrame,
    names: Sequence[str],
    kinds: Mapping[str, Kind] | None = None,
    *,
    logs: Collection[str] = (),
    references: Mapping[str, str] | None = None,
) -> tuple[Variable, ...]:
    """Levels and kind of each variable; columns of words without a known order are categorical."""
    made = (_variable(name, frame[name], (kinds or {}).get(name)) for name in sorted(names))
    return tuple(replace(v, log=v.name in logs, reference=(references or {}).get(v.name)) for v in made)


def _variable(name: str, column: pd.Series, kind: Kind | None) -> Variable:
    if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
        present = set(column.dropna().unique())
        return Variable(name, kind or "ordinal", tuple(level for level in column.dtype.categories if level in present))
    levels = list(column.dropna().unique())
    order = known.KNOWN[name].order if name in known.KNOWN else ()
    if pd.api.types.is_numeric_dtype(column):
        return Variable(name, kind or "ordinal", tuple(sorted(levels)))
    if order and set(map(str, levels)) <= set(order):
        return Variable(name, kind or "ordinal", tuple(sorted(levels, key=lambda v: order.index(str(v)))))
    return Variable(name, "categorical", tuple(sorted(levels, key=str)))


def code(variable: Variable, column: pd.Series) -> Array:
    """Values of a variable as positions in [0, 1] (ranks, or the values' own spacing if numeric); NaN if missing."""
    if variable.kind == "numeric":
        values = np.asarray(column, dtype=np.float64)
        low, high = float(variable.levels[0]), float(variable.levels[-1])  # type: ignore[arg-type]
        if variable.log:
            values, low, high = np.log(values), float(np.log(low)), float(np.log(high))
        return (values - low) / (high - low)
    ranks = {level: i / max(len(variable.levels) - 1, 1) for i, level in enumerate(variable.levels)}
    return np.asarray(column.map(ranks), dtype=np.float64)
