"""The files a person looks at: figures, tables and one self-contained page. Only layout is computed here."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from analysis import figures, text_tables, words
from analysis.drawing import draw

if TYPE_CHECKING:
    from analysis.pipeline import Analysis

PIXELS_PER_INCH = 100
TEMPLATES = Path(__file__).parent / "templates"


def files(analysis: Analysis) -> dict[str, bytes]:
    """Every file by its name below the report's folder: figures, tables (Markdown, LaTeX), ``index.html``."""
    drawn, captions = draw(analysis)
    for made in drawn.values():
        figures.sign(made, f"{analysis.report['title']}. Accuracy: {analysis.report['accuracy']}.")
    pngs = {name: figures.save(made, "png") for name, made in drawn.items()}
    widths = {name: round(PIXELS_PER_INCH * made.get_figwidth()) for name, made in drawn.items()}
    result = {f"figures/{name}.png": data for name, data in pngs.items()}
    result |= {f"figures/{name}.svg": figures.save(made, "svg") for name, made in drawn.items()}
    result |= {f"tables/{name}": text.encode() for name, text in text_tables.files(analysis.report).items()}
    result["index.html"] = render(analysis.report, pngs, captions, widths).encode()
    return result


def render(
    report: Mapping[str, Any], pngs: Mapping[str, bytes], captions: Mapping[str, str], widths: Mapping[str, int]
) -> str:
    """The page. Images are embedded, ``widths`` px wide; nothing is fetched."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals.update(words=words)
    images = {name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in pngs.items()}
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    template = environment.get_template("report.html.j2")
    return template.render(report=report, images=images, captions=captions, widths=widths, made=made)
