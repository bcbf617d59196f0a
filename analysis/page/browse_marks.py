"""Parts that the charts of the browsing page share: colours, shapes, encodings, and how ``$name`` is filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
# Okabe and Ito's colours that show on white and on dark; shapes and dashes tell series apart without them
COLOURS = ("#0a84d0", "#d55e00", "#009e73", "#cc79a7", "#b98a00", "#7a6fd0", "#56b4e9", "#8c6d5a")
RANGE = ("#0a84d0", "#a06fa8", "#d55e00")  # from low to high, on white and on dark
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
OFFSET = {"field": "jitter", "type": "quantitative", "scale": {"domain": [-1, 1]}}  # within the room of a word
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [10, 4], [1, 3], [6, 2, 2, 2])


def fill(spec: Any, words: Mapping[str, Any]) -> Any:
    """A spec with every ``$name`` replaced; the page's script does the same."""
    if isinstance(spec, dict):
        return {key: fill(value, words) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [fill(value, words) for value in spec]
    return words[spec[1:]] if isinstance(spec, str) and spec.startswith("$") else spec


def tip_of(*fields: tuple[str, str]) -> list[Spec]:
    """What hovering tells: fields and their titles."""
    return [{"field": name, "title": title} for name, title in fields]


def series(title: str = "$series", colours: Sequence[str] | str = COLOURS) -> Spec:
    """Colour by series, in the order that the page gives."""
    scale = {"domain": "$order", "range": colours}
    return {"field": "series", "type": "nominal", "title": title, "scale": scale, "legend": legend()}


def legend() -> Spec:
    """A legend above the chart."""
    symbol = {"symbolOpacity": 1, "symbolStrokeWidth": 0}  # a dashed rim would blur the shape
    return {"orient": "top", "columns": "$legend_columns", "labelLimit": 420, **symbol}


def shapes(shapes: Sequence[str] | str = SHAPES) -> Spec:
    """Shape by series, in the order that the page gives."""
    scale = {"domain": "$order", "range": shapes}
    return {"field": "series", "type": "nominal", "title": "$series", "scale": scale, "legend": legend()}


def number(field: str, title: str, **more: Any) -> Spec:
    """A field of numbers on an axis or a colour."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def rows(title: str | None = None, limit: int | str = 360) -> Spec:
    """One line per row, in the order that the page gives."""
    axis = {"labelLimit": limit, "labelOverlap": False, "ticks": False, "domain": False, "grid": False}
    return {"field": "label", "type": "nominal", "sort": "$rows", "title": title, "axis": axis}


def header() -> Spec:
    """Titles of small panels."""
    return {"labelFontWeight": "bold", "labelAnchor": "start", "labelLimit": "$width", "title": None}


def colour_of(kind: str) -> Spec:
    """Colour by a number (``quantitative``) or by words (``nominal``)."""
    if kind == "quantitative":
        return {"field": "colour", "type": kind, "title": "$series", "scale": {"range": list(RANGE)}}
    return series()
