"""The page of a sweep beside published values: one table with the browsing page's own means, and what it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis.estimates.published import CLASSES, Own
from analysis.page import browse
from analysis.page.page import TEMPLATES
from analysis.tables.published import METRICS, Published

PERCENT = {"final_accuracy"}  # shown as %
HEADS = (
    ("published_in", "table", None),
    ("metric", "metric", None),
    ("own", "own", 3),
    ("published", "published", 3),
    ("difference", "difference", 3),
    ("half_width", "± ours", 3),
    ("units", "in units of ±", 2),
    ("class", "agreement", None),
    ("n_own", "n", 0),
    ("n_published", "n published", 0),
    ("misprint", "misprint", None),
    ("where", "where", None),
)
_AFTER_CONDITIONS = 2  # heads that stand before the conditions


def render(own: Own, tables: Sequence[Published], rows: pd.DataFrame, sums: pd.DataFrame) -> str:
    """The page, as text.

    Parameters
    ----------
    rows, sums : of :func:`analysis.estimates.published.compare` and ``summary``.

    Raises
    ------
    UserError
        If the libraries of the browsing page are not installed.
    """
    script, css = browse.datatables()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    # one word in a script of data: no markup can stand in it
    data = json.dumps({"heads": _heads(rows), "rows": _plain(rows)}, ensure_ascii=True, allow_nan=False)
    return environment.get_template("against.html.j2").render(
        own=own,
        tables=tables,
        sums=_plain(sums),
        metrics=METRICS,
        classes=CLASSES,
        counts=rows["class"].value_counts().to_dict(),
        data=Markup(data.replace("<", "\\u003c")),
        datatables=Markup(script),
        datatables_css=Markup(css),
        style=Markup((TEMPLATES / "browse.css").read_text(encoding="utf-8")),
        tools=Markup((TEMPLATES / "against.js").read_text(encoding="utf-8")),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _heads(rows: pd.DataFrame) -> list[dict[str, Any]]:
    known = {key for key, _, _ in HEADS}
    heads = [{"key": key, "title": title, "digits": digits} for key, title, digits in HEADS]
    own = [
        {"key": name, "title": name.replace("_", " "), "digits": None} for name in map(str, rows) if name not in known
    ]
    return heads[:_AFTER_CONDITIONS] + own + heads[_AFTER_CONDITIONS:]


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON and the template: None for what is missing."""
    return [
        {str(name): None if value is None or _missing(value) else value for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


def _missing(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
