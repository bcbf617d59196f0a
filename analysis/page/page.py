"""The files a person looks at: figures, tables and one self-contained page. Only layout is computed here."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from analysis.page import rows

TEMPLATES = Path(__file__).parent / "templates"


def render(
    report: Mapping[str, Any], pngs: Mapping[str, bytes], captions: Mapping[str, str], widths: Mapping[str, int]
) -> str:
    """The page. Images are embedded, ``widths`` px wide; nothing is fetched."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals.update(words=rows)
    images = {name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in pngs.items()}
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    template = environment.get_template("report.html.j2")
    return template.render(report=report, images=images, captions=captions, widths=widths, made=made)
