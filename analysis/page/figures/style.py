"""The house style of figures, and how they are saved."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from analysis.page.figures import fonts

INK, MUTED, GRID = "#1f2933", "#697586", "#d9dee5"
UP, DOWN, UNSURE = "#0072b2", "#d55e00", "#9aa5b1"  # Okabe-Ito blue and vermilion; grey: the interval includes zero
STYLE: Mapping[str, Any] = {
    "font.family": fonts.OWN,
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "text.parse_math": False,  # names come from tables: a dollar sign is a dollar sign
    "xtick.color": MUTED,
    "ytick.color": INK,
    "svg.hashsalt": "tunnel-sweep",  # the same numbers give the same bytes
    "svg.fonttype": "path",
    "figure.facecolor": "white",
}
MAP = "cividis"
CHARACTERS_PER_INCH = 20  # of the small print


def figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """A figure in the house style with its axes; no global state of matplotlib is touched."""
    with matplotlib.rc_context(dict(STYLE)):
        made = Figure(figsize=(width, height), layout="constrained")
        return made, made.subplots(**subplots)


def true_minus(axes: Any) -> None:
    """Ticks of the horizontal axis with true minus signs, without trailing zeros."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", "−")))


def sign(made: Figure, text: str) -> None:
    """Write in small print below a figure what it rests on, since figures leave the page that says so."""
    width, height = made.get_size_inches()
    lines = textwrap.wrap(text, round(CHARACTERS_PER_INCH * width))
    strip = 0.07 + 0.12 * len(lines)
    total = height + strip
    made.set_size_inches(width, total)
    engine = made.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, strip / total, 1, height / total))
    made.text(0.06 / width, 0.05 / total, "\n".join(lines), fontsize=6.5, color=MUTED, va="bottom")


def label_below(grid: Any, shown: int, text: str) -> None:
    """One label for the horizontal axes of a grid of panels: below the middle one of its last row."""
    columns = grid.shape[1]
    last_row = grid.flat[(shown - 1) // columns * columns : shown]
    last_row[(len(last_row) - 1) // 2].set_xlabel(text, fontsize=9, color=INK)


def save(made: Figure, kind: str) -> bytes:
    """The figure as ``png`` or ``svg`` bytes, without a date in it."""
    sink = io.BytesIO()
    fonts.fit(made)
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(dict(STYLE)):
        made.savefig(sink, format=kind, dpi=150, metadata=metadata)
    made.set_layout_engine("none")  # every further format keeps the layout that the first was given
    return sink.getvalue()
