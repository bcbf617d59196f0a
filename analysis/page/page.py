"""One self-contained page from a study and its pictures. Only layout is computed here."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from analysis.estimates import backbones
from analysis.page import alts, report_json, rows, tasks
from analysis.page.report_json import MOST_LISTED
from analysis.study import Study
from analysis.tables.metrics import FEW_CHOOSING

TEMPLATES = Path(__file__).parent / "templates"
CALIBRATION = Path(__file__).parent / "calibration.json"  # written by `python -m tests.bench coverage`


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, its width in px, and what of its caption depends on the table."""

    svg: bytes
    width: int
    caption: str

    @property
    def source(self) -> str:
        """The picture as an address that needs no file."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


def render(study: Study, images: Mapping[str, Picture], source: str) -> str:
    """The page. Pictures are embedded; nothing is fetched."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    listed = report_json.records(backbones.extremes(study.backbones, MOST_LISTED))
    return environment.get_template("report.html.j2").render(
        study=study,
        words=rows,
        alts=alts,
        images=images,
        source=source,
        protocol=report_json.protocol(study),
        counts=report_json.counts(study),
        listed=[row for row in listed if row["retained"] is not None],
        few_choosing=FEW_CHOOSING,
        choosing=_choosing(study),
        ties=None if study.ties is None else report_json.confounding(study.ties),
        incomplete=report_json.records(study.experiments.incomplete),
        emergence=report_json.of_emergence(study),
        courses=tasks.of(study.tasks),
        tasks=tasks,
        calibration=json.loads(CALIBRATION.read_text(encoding="utf-8")),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _choosing(study: Study) -> str:
    """How many images chose the peak layers, from the fewest to the most; empty where that is unknown."""
    frame = study.experiments.frame
    counts = frame["n_choosing"].dropna() if "n_choosing" in frame else frame["dataset"].iloc[:0]
    if not len(counts) or study.experiments.choice == "paper":
        return ""
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
