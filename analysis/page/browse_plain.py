"""Values of a table as JSON has them, for the browsing page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.variables import level_text

Columns = dict[str, list[Any]]


def plain(frame: pd.DataFrame) -> Columns:
    """Columns as lists for JSON: None for what is missing, words where a number would be infinite."""
    return {str(name): [value(each) for each in frame[name].tolist()] for name in frame}


def level(given: Any) -> Any:
    """A value of a variable: a truth value is a word."""
    return str(given) if isinstance(given, bool | np.bool_) else value(given)


def value(given: Any) -> Any:
    """A value for JSON: None for what is missing, words for what it does not know."""
    if given is None or given is pd.NA or given is pd.NaT:
        return None
    if isinstance(given, float) and not math.isfinite(given):
        return None if math.isnan(given) else level_text(given)
    if isinstance(given, np.generic):
        return value(given.item())
    return given if isinstance(given, bool | int | float | str) else str(given)
