"""The browsing page: one self-contained HTML file, with the numbers, the charts, and the libraries that show them.

Vega-Lite comes from ``vl-convert-python`` and DataTables from ``itables``, as they are installed; none of their
JavaScript is ours to keep.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from analysis.page import browse_charts, browse_report, browse_tasks
from analysis.page.browse_data import Part, pack
from analysis.page.page import TEMPLATES
from analysis.tables.errors import UserError

SCRIPTS = ("core", "state", "tools", "sql", "backbones", "layers", "variables", "drives", "best", "tasks", "main")
MISSING = "the page needs what is not installed: pip install 'tunnel-sweep[browse]' ({})"


def render(parts: Sequence[Part], *, report: str | None, report_link: str | None) -> str:
    """The page, as text.

    Parameters
    ----------
    report : folder of the report on the first part, whose estimates are shown if they are there.
    report_link : where the page links to for it; None: no link.

    Raises
    ------
    UserError
        If the libraries are not installed.
    """
    vega, table, table_css = _vega(), *datatables()
    found = browse_report.read(report) if report else None
    extra: dict[str, Any] = {
        "charts": browse_charts.charts(),
        "chart_words": browse_charts.words(),
        "tasks": browse_tasks.of(parts[0].first),
        "report": _joined(parts[0], found, several=len(parts) > 1),
    }
    packed = pack(parts, extra)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    script = "\n".join((TEMPLATES / f"browse_{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return environment.get_template("browse.html.j2").render(
        title=packed.header["title"],
        data=packed.text(),
        vega=Markup(vega),
        datatables=Markup(table),
        datatables_css=Markup(table_css),
        style=Markup((TEMPLATES / "browse.css").read_text(encoding="utf-8")),
        script=Markup(script),
        report_link=report_link,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _joined(part: Part, report: dict[str, Any] | None, *, several: bool) -> dict[str, Any] | None:
    """The report with what finds a contrast's pairs: the columns that are equal in each of them."""
    if report is None:
        return None
    found = part.first
    columns = [c for c in dict.fromkeys((*found.variables, *found.context, *found.replicates)) if c in found.frame]
    for row in report["contrasts"]:
        row["equal"] = [c for c in columns if c != row["variable"] and c not in row["together"]]
    if several:
        for entry in report["shap"].values():
            entry["backbone"] = [f"{part.name}/{name}" for name in entry["backbone"]]
    return {**report, "sweep": part.name if several else None}


def _vega() -> str:
    try:
        import vl_convert
    except ImportError as error:
        raise UserError(MISSING.format(error)) from None
    return _bundle(vl_convert)


@cache
def _bundle(vl_convert: Any) -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; bundling takes seconds."""
    return inline(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def datatables() -> tuple[str, str]:
    """The script and the style sheet of DataTables; its module hands its class to the page."""
    try:
        folder = resources.files("itables") / "html"
    except ImportError as error:
        raise UserError(MISSING.format(error)) from None
    script = (folder / "dt_bundle.js").read_text(encoding="utf-8")
    exported = re.search(r"export\s*\{([^}]*)\}", script)
    name = exported and re.search(r"(\w+) as default", exported[1])
    if not exported or not name:
        raise UserError("this itables has no DataTables that the page can use: pip install 'itables>=2.4'")
    script = script.replace(exported[0], f"window.DataTable = {name[1]};")
    return inline(script), (folder / "dt_bundle.css").read_text(encoding="utf-8").replace("</", "<\\/")


def inline(script: str) -> str:
    """A script that may stand inside a page."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
