"""The tab of several tasks on the browsing page: what it shows, and its charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.estimates.continual import summarised
from analysis.page import browse_marks as marks
from analysis.page import tasks
from analysis.tables.experiments import Experiments

Spec = marks.Spec


def of(experiments: Experiments) -> dict[str, Any] | None:
    """The numbers of a sweep's courses; None where it has none, and the tab does not appear."""
    return None if experiments.courses is None else tasks.of(summarised(experiments.courses))


def charts() -> Mapping[str, Spec]:
    """Charts of the tab by name."""
    return {"tasks_layers": layers(), "tasks_forgetting": forgetting()}


def layers() -> Spec:
    """Accuracy of extractors and tunnels together against the layer where they part, a panel for each task."""
    tip = marks.tip_of(
        ("panel", "networks"), ("series", "parts"), ("layer", "extractor ends with layer"), ("value", "accuracy, %"),
        ("interval", "95 % interval"),
    )  # fmt: skip
    x = marks.number("layer", "last layer of the extractor", axis={"tickMinStep": 1, "grid": False})
    y = marks.number("value", "accuracy, %", scale={"zero": False})
    dashes = {**marks.series("parts"), "scale": {"domain": "$order", "range": list(marks.DASHES)}}
    drawn = {"x": x, "y": y, "color": marks.series("parts")}
    line = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**drawn, "strokeDash": dashes}}
    shape = {**marks.shapes(), "title": "parts"}
    dots = {
        "mark": {"type": "point", "filled": True, "size": 42, "opacity": 1},
        "encoding": {**drawn, "shape": shape, "tooltip": tip},
    }
    return {
        "facet": {"field": "panel", "type": "nominal", "title": None, "sort": "$panels", "header": marks.header()},
        "columns": "$columns",
        "resolve": {"axis": {"x": "independent"}},
        "spec": {"width": "$width", "height": 190, "layer": [line, dots]},
    }


def forgetting() -> Spec:
    """What is forgotten against the depth of the network."""
    tip = marks.tip_of(
        ("label", "networks"), ("series", "classifier"), ("value", "forgotten, points"), ("interval", "95 % interval")
    )
    x = marks.number(
        "depth",
        "depth of the network, layers",
        scale={"zero": False, "padding": 20},
        axis={"grid": False, "tickMinStep": 1},
    )
    y = marks.number("value", "forgotten, points")
    colour, shape = marks.series("classifier"), {**marks.shapes(), "title": "classifier"}
    rule = {"x": x, "y": marks.number("low", "forgotten, points"), "y2": {"field": "high"}, "color": colour}
    dot = {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tip}
    return {
        "width": "$width",
        "height": 230,
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "opacity": 0.6},
                "encoding": rule,
            },
            {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1}, "encoding": dot},
        ],
    }
