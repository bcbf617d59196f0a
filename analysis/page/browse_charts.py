"""The charts of the browsing page: Vega-Lite as plain dictionaries. They hold no data and fit nothing.

A text ``$name`` stands for what the page (or a test, with :func:`fill`) puts there: a title, a type, an order. Rows
have fixed field names, so that no name of a user's table ever becomes part of a Vega expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# Okabe and Ito's colours that show on white and on dark; shapes and dashes tell series apart without them
COLOURS = ("#0a84d0", "#d55e00", "#009e73", "#cc79a7", "#b98a00", "#7a6fd0", "#56b4e9", "#8c6d5a")
RANGE = ("#0a84d0", "#a06fa8", "#d55e00")  # from low to high, on white and on dark
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [10, 4], [1, 3], [6, 2, 2, 2])


def fill(spec: Any, words: Mapping[str, Any]) -> Any:
    """A spec with every ``$name`` replaced; the page's script does the same."""
    if isinstance(spec, dict):
        return {key: fill(value, words) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [fill(value, words) for value in spec]
    return words[spec[1:]] if isinstance(spec, str) and spec.startswith("$") else spec


def charts() -> dict[str, Spec]:
    """Every chart of the page by its name."""
    made = {
        "strengths": strengths(),
        "layers": layers(),
        "variables": variables(),
        "heat": heat(),
        "estimates": estimates(),
        "pairs": pairs(),
        "beeswarm": beeswarm(),
        "dependence": dependence(),
        "interactions": interactions(),
        "best": best(),
        "against": against(),
    }
    return {name: {"$schema": SCHEMA, "data": {"name": "rows"}, **spec} for name, spec in made.items()}


def _tip(*fields: tuple[str, str]) -> list[Spec]:
    return [{"field": name, "title": title} for name, title in fields]


def _series(title: str = "$series") -> Spec:
    """Colour by series, in the order that the page gives."""
    scale = {"domain": "$order", "range": list(COLOURS)}
    return {"field": "series", "type": "nominal", "title": title, "scale": scale, "legend": _legend()}


def _legend() -> Spec:
    return {"orient": "top", "columns": "$legend_columns", "labelLimit": 420, "symbolOpacity": 1}


def _shapes() -> Spec:
    scale = {"domain": "$order", "range": list(SHAPES)}
    return {"field": "series", "type": "nominal", "title": "$series", "scale": scale, "legend": _legend()}


def _number(field: str, title: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _rows(title: str | None = None, limit: int = 360) -> Spec:
    """One line per row, in the order that the page gives."""
    axis = {"labelLimit": limit, "ticks": False, "domain": False, "grid": False}
    return {"field": "label", "type": "nominal", "sort": "$rows", "title": title, "axis": axis}


def strengths() -> Spec:
    """Mean % retained of each backbone with its interval."""
    tip = _tip(("label", "backbone"), ("value", "% retained"), ("interval", "95 % interval"), ("strength", "tunnel"))
    bounds = {"domain": "$strengths", "range": ["#d55e00", "#b98a00", "#0a84d0", "#009e73"]}
    colour = {"field": "strength", "type": "nominal", "title": "tunnel", "scale": bounds, "legend": {"orient": "top"}}
    shape = {**colour, "scale": {"domain": "$strengths", "range": ["circle", "square", "triangle-up", "diamond"]}}
    return {
        "width": "$width",
        "height": {"step": 15},
        "encoding": {"y": _rows()},
        "layer": [
            {
                "mark": {"type": "rule", "opacity": 0.6},
                "encoding": {"x": _number("low", "$title"), "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1, "cursor": "pointer"},
                "encoding": {
                    "x": _number("value", "$title", scale={"zero": False}),
                    "color": colour,
                    "shape": shape,
                    "tooltip": tip,
                },
            },
        ],
    }


def layers() -> Spec:
    """Curves by layer, one small panel per dataset or backbone; the tunnel is shaded from its start."""
    tip = _tip(
        ("backbone", "backbone"), ("dataset", "dataset"), ("layer", "layer"), ("name", "name"), ("width", "width"),
        ("test", "test accuracy"), ("interval", "95 % interval"), ("heldout", "held-out accuracy"),
        ("measure", "$y"), ("probe_epoch", "probe's epoch"), ("epoch", "after training epoch"),
    )  # fmt: skip
    x = _number("x", "$x", scale={"nice": False, "padding": 6}, axis={"tickMinStep": "$step", "grid": False})
    y = _number("y", "$y", scale={"zero": "$zero"})
    dashes = {"field": "series", "type": "nominal", "title": "$series", "legend": _legend()}
    dashes["scale"] = {"domain": "$order", "range": [list(dash) for dash in DASHES]}
    return {
        "facet": {"field": "panel", "type": "nominal", "title": None, "sort": "$panels", "header": _header()},
        "columns": "$columns",
        "spec": {
            "width": "$width",
            "height": 190,
            "layer": [
                {
                    "transform": [{"filter": "datum.tunnel"}],
                    "mark": {"type": "rect", "opacity": 0.1},
                    "encoding": {"x": {**x, "field": "from"}, "x2": {"field": "to"}, "color": _series()},
                },
                {
                    "transform": [{"filter": "!datum.tunnel"}],
                    "mark": {"type": "line", "strokeWidth": 2},
                    "encoding": {"x": x, "y": y, "color": _series(), "strokeDash": dashes, "detail": {"field": "line"}},
                },
                {
                    "transform": [{"filter": "!datum.tunnel"}],
                    "mark": {"type": "point", "filled": True, "size": 42, "opacity": 1},
                    "encoding": {"x": x, "y": y, "color": _series(), "shape": _shapes(), "tooltip": tip},
                },
            ],
        },
    }


def _header() -> Spec:
    return {"labelFontWeight": "bold", "labelAnchor": "start", "labelLimit": "$width", "title": None}


def variables() -> Spec:
    """Any column against any metric; matched pairs joined by lines."""
    tip = _tip(("backbone", "backbone"), ("dataset", "dataset"), ("x", "$x"), ("y", "$y"), ("series", "$series"))
    x = {
        "field": "x",
        "type": "$x_type",
        "title": "$x",
        "sort": "$x_order",
        "scale": "$x_scale",
        "axis": {"labelAngle": "$angle"},
    }
    y = _number("y", "$y", scale={"zero": False})
    offset = {"field": "jitter", "type": "quantitative", "scale": {"domain": [-1, 1]}}
    joined = {"x": x, "y": y, "xOffset": offset, "detail": {"field": "pair"}}
    dot = {"x": x, "y": y, "xOffset": offset, "color": "$colour", "shape": "$shape", "tooltip": tip}
    return {
        "facet": {"field": "panel", "type": "nominal", "title": None, "sort": "$panels", "header": _header()},
        "columns": "$columns",
        "spec": {
            "width": "$width",
            "height": "$height",
            "layer": [
                {
                    "transform": [{"filter": "isValid(datum.pair)"}],
                    "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.45, "color": "#8894a0"},
                    "encoding": joined,
                },
                {
                    "transform": [{"filter": "!isValid(datum.pair)"}],
                    "mark": {"type": "point", "filled": True, "size": 48, "opacity": 0.85, "cursor": "pointer"},
                    "encoding": dot,
                },
            ],
        },
    }


def colour_of(kind: str) -> Spec:
    """Colour by a number (``quantitative``) or by words (``nominal``)."""
    if kind == "quantitative":
        return {"field": "colour", "type": kind, "title": "$series", "scale": {"range": list(RANGE)}}
    return _series()


def heat() -> Spec:
    """A metric of every backbone on every dataset."""
    tip = _tip(("label", "backbone"), ("dataset", "dataset"), ("value", "$title"))
    return {
        "width": {"step": 74},
        "height": {"step": 17},
        "encoding": {
            "y": _rows(),
            "x": {
                "field": "dataset",
                "type": "nominal",
                "title": None,
                "axis": {"orient": "top", "labelAngle": "$angle"},
            },
        },
        "layer": [
            {
                "mark": {"type": "rect", "cursor": "pointer"},
                "encoding": {
                    "color": _number("value", "$title", scale={"scheme": "viridis"}, legend={"orient": "bottom"}),
                    "tooltip": tip,
                },
            },
            {
                "mark": {"type": "text", "fontSize": 10},
                "encoding": {
                    "text": {"field": "text"},
                    "color": {
                        "condition": {"test": "datum.light", "value": "#000000"},
                        "value": "#ffffff",
                    },
                },
            },
        ],
    }


def estimates() -> Spec:
    """All estimates of a target: matched differences, adjusted effects, SHAP slopes, each with its interval."""
    tip = _tip(
        ("label", "variable"), ("series", "estimate"), ("scale", "from → to"), ("value", "$x"),
        ("interval", "95 % interval"), ("basis", "from"), ("verdict", "verdict"),
    )  # fmt: skip
    sure = {"condition": {"test": "datum.sure", "value": 1}, "value": 0.45}
    place = {"y": _rows(), "yOffset": {"field": "series", "type": "nominal", "sort": "$order"}, "opacity": sure}
    zero = {"x": {"datum": 0}, "color": {"value": "#8894a0"}}
    return {
        "width": "$width",
        "height": {"step": 15, "for": "offset"},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [3, 3]}, "encoding": zero},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {**place, "x": _number("low", "$x"), "x2": {"field": "high"}, "color": _series()},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "cursor": "pointer"},
                "encoding": {
                    **place,
                    "x": _number("value", "$x"),
                    "color": _series(),
                    "shape": _shapes(),
                    "tooltip": tip,
                },
            },
        ],
    }


def pairs() -> Spec:
    """The two sides of each matched pair of backbones, joined."""
    tip = _tip(("backbone", "backbone"), ("y", "$y"), ("difference", "difference"))
    x = {"field": "side", "type": "ordinal", "title": "$x", "sort": "$order", "axis": {"labelAngle": 0}}
    y = _number("y", "$y", scale={"zero": False})
    return {
        "width": 240,
        "height": 260,
        "encoding": {"x": x, "y": y},
        "layer": [
            {"mark": {"type": "line", "opacity": 0.6, "color": "#8894a0"}, "encoding": {"detail": {"field": "pair"}}},
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1, "cursor": "pointer"},
                "encoding": {"tooltip": tip, "color": {"value": COLOURS[0]}},
            },
        ],
    }


def beeswarm() -> Spec:
    """SHAP value of each experiment, by variable; the colour is where the variable's value lies in its order."""
    tip = _tip(
        ("backbone", "backbone"), ("dataset", "dataset"), ("label", "variable"), ("level", "value"), ("value", "$x")
    )
    legend = {
        "title": "value of the variable",
        "orient": "top",
        "values": [0, 1],
        "labelExpr": "datum.value ? 'high' : 'low'",
    }
    return {
        "width": "$width",
        "height": {"step": 44},
        "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.8, "cursor": "pointer"},
        "encoding": {
            "y": _rows(),
            "yOffset": {"field": "jitter", "type": "quantitative", "scale": {"domain": [-1, 1]}},
            "x": _number("value", "$x"),
            "color": _number("code", "value", scale={"range": list(RANGE), "domain": [0, 1]}, legend=legend),
            "tooltip": tip,
        },
    }


def dependence() -> Spec:
    """SHAP value against the variable's own value, coloured by another variable."""
    tip = _tip(("backbone", "backbone"), ("dataset", "dataset"), ("x", "$x"), ("y", "$y"), ("series", "$series"))
    x = {"field": "x", "type": "ordinal", "title": "$x", "sort": "$x_order", "axis": {"labelAngle": "$angle"}}
    return {
        "width": "$width",
        "height": 260,
        "mark": {"type": "point", "filled": True, "size": 36, "opacity": 0.8, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "xOffset": {"field": "jitter", "type": "quantitative", "scale": {"domain": [-1, 1]}},
            "y": _number("y", "$y"),
            "color": _series(),
            "shape": _shapes(),
            "tooltip": tip,
        },
    }


def interactions() -> Spec:
    """Mean |SHAP interaction| of each two variables; the main effects are on the diagonal."""
    tip = _tip(("label", "variable"), ("other", "with"), ("value", "$title"))
    axis = {"labelAngle": -35, "labelLimit": 200, "labelOverlap": False}
    return {
        "width": {"step": 52},
        "height": {"step": 30},
        "mark": {"type": "rect"},
        "encoding": {
            "y": _rows(),
            "x": {"field": "other", "type": "nominal", "sort": "$rows", "title": None, "axis": axis},
            "color": _number("value", "$title", scale={"scheme": "viridis"}),
            "tooltip": tip,
        },
    }


def best() -> Spec:
    """For each dataset: its best backbone and layer, that backbone's last layer, and the best last layer of all."""
    tip = _tip(
        ("label", "dataset"), ("series", ""), ("backbone", "backbone"), ("layer", "layer"), ("value", "accuracy, %")
    )
    return {
        "width": "$width",
        "height": {"step": 30},
        "encoding": {"y": _rows()},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.5},
                "encoding": {
                    "x": _number("value", "$title", aggregate="min"),
                    "x2": {"field": "value", "aggregate": "max"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "cursor": "pointer"},
                "encoding": {
                    "x": _number("value", "$title", scale={"zero": False}),
                    "color": _series(),
                    "shape": _shapes(),
                    "tooltip": tip,
                },
            },
        ],
    }


def against() -> Spec:
    """A metric in two sweeps, of the experiments that both have; on the dashed line they are equal."""
    tip = _tip(("label", "backbone"), ("dataset", "dataset"), ("x", "$x"), ("y", "$y"), ("difference", "difference"))
    line = {"type": "line", "strokeDash": [4, 4], "color": "#8894a0"}
    diagonal = {"x": _number("v", "$x"), "y": _number("v", "$y")}
    return {
        "width": "$height",
        "height": "$height",
        "layer": [
            {"data": {"values": "$diagonal"}, "mark": line, "encoding": diagonal},
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.85, "cursor": "pointer"},
                "encoding": {
                    "x": _number("x", "$x", scale={"zero": False}),
                    "y": _number("y", "$y", scale={"zero": False}),
                    "color": _series(),
                    "shape": _shapes(),
                    "tooltip": tip,
                },
            },
        ],
    }


def words() -> dict[str, Sequence[Any]]:
    """What the page's script needs besides the charts."""
    return {
        "colours": COLOURS,
        "shapes": SHAPES,
        "legend": [colour_of("nominal"), colour_of("quantitative"), _shapes()],
    }
