"""The page to browse, in a real browser: its size, when it is ready, how fast it redraws and filters."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import browse
from tests.browse_tables import study
from tests.browser import chromium, find, settled, visit
from tests.synthetic_tables import write_sweep

from . import report

TIMES = 7


@dataclass(frozen=True)
class Case:
    """A study, and what is asked of its page: bytes, seconds until it is ready, seconds to filter."""

    name: str
    backbones: int
    datasets: int
    layers: int
    most_bytes: float | None = None
    most_ready: float | None = None
    most_filter: float | None = None


STUDY = (
    Case("the study's size", 72, 8, 16, 5e6, 1.0, 0.2),
    Case("large", 300, 12, 40, None, None, 0.2),
)
QUICK = (Case("quick", 9, 2, 8),)


def run(*, quick: bool = False, cases: Sequence[Case] | None = None) -> dict[str, Any]:
    """Write and open the page of each case; none where there is no browser."""
    if find() is None:
        return {"cases": []}
    with chromium() as browser:
        return {"cases": [measure(browser, case) for case in cases or (QUICK if quick else STUDY)]}


def measure(browser: Any, case: Case) -> dict[str, Any]:
    """Figures of one page.

    Returns
    -------
    probes, write (s, the command), bytes (of the file), ready (s from the start of loading, median), redraw (s, median,
    by tab, on the page's own clock), filter (s, median, from the key press until it is shown).
    """
    with tempfile.TemporaryDirectory() as folder:
        table = study(case.backbones, case.datasets, case.layers)
        write_sweep(Path(folder), table)
        started = time.perf_counter()
        assert browse.main(["--results", folder]) == 0
        wrote = time.perf_counter() - started
        file = Path(folder) / "report" / "browse.html"
        ready = []
        for _ in range(TIMES):
            page, heard = visit(browser, file)
            ready.append(_clock(page, "ready"))
            page.context.close()
        page, heard = visit(browser, file)
        redraw = _redraws(page)
        filtered = _filters(page)
        assert not heard.said, heard.said
        return {
            "name": case.name,
            "backbones": case.backbones,
            "probes": len(table),
            "write": wrote,
            "bytes": file.stat().st_size,
            "ready": statistics.median(ready),
            "redraw": redraw,
            "filter": statistics.median(filtered),
            "asked": {"bytes": case.most_bytes, "ready": case.most_ready, "filter": case.most_filter},
        }


def _clock(page: Any, name: str) -> float:
    return float(page.evaluate(f"document.documentElement.dataset.{name}")) / 1000


def _redraws(page: Any) -> dict[str, float]:
    """Seconds to show each tab, with two backbones selected."""
    for number in range(2):
        page.click(f"#view [data-backbone] >> nth={number}")
        settled(page)
    found = {}
    for tab in ("layers", "variables", "best", "backbones"):
        seconds = []
        for _ in range(TIMES):
            page.click("#tab-drives")
            settled(page)
            page.click(f"#tab-{tab}")
            settled(page)
            seconds.append(_clock(page, "redraw"))
        found[tab] = statistics.median(seconds)
    return found


def _filters(page: Any) -> list[float]:
    """Seconds from a new bound until the table and its picture are those of the backbones that pass."""
    page.click("#filters summary")
    seconds = []
    for number in range(TIMES):
        page.fill("[data-filter=depth][data-bound='1']", "20" if number % 2 else "40")
        started = time.perf_counter()
        page.keyboard.press("Tab")
        settled(page)
        seconds.append(time.perf_counter() - started)
    return seconds


def markdown(result: Mapping[str, Any]) -> str:
    """Tables of what was asked, and of everything measured."""
    if not result["cases"]:
        return "Not measured: there is no Chromium on this machine."
    asked = [
        [f"{case['name']}: {text}", f"≤ {limit * factor:g} {unit}", f"{case[key] * factor:.2f}", _met(case[key], limit)]
        for case in result["cases"]
        for key, text, factor, unit in (
            ("bytes", "size", 1e-6, "MB"),
            ("ready", "ready", 1, "s"),
            ("filter", "filter", 1, "s"),
        )
        if (limit := case["asked"][key]) is not None
    ]
    rows = [
        [
            case["name"], str(case["backbones"]), f"{case['probes']:,}", f"{case['write']:.1f}",
            f"{case['bytes'] / 1e6:.2f}", f"{case['ready']:.2f}", f"{case['filter']:.2f}",
            *(f"{case['redraw'][tab]:.2f}" for tab in ("backbones", "layers", "variables", "best")),
        ]
        for case in result["cases"]
    ]  # fmt: skip
    head = ["case", "backbones", "probes", "write, s", "MB", "ready, s", "filter, s"]
    head += ["Backbones, s", "Layers, s", "Variables, s", "Best layer, s"]
    text = (
        "`analysis/browse.py` over synthetic studies, opened in the system's Chromium without a screen. Ready: from "
        "the start of loading until the first view is shown. Filter: from a new bound until the view is shown anew. "
        f"The tabs: time to show each, two backbones selected. Medians of {TIMES}."
    )
    parts = [text, report.table(head, rows)]
    return "\n\n".join(
        [parts[0], report.table(["target", "asked", "measured", ""], asked), parts[1]] if asked else parts
    )


def _met(value: float, limit: float) -> str:
    return "reached" if value <= limit else "missed"
