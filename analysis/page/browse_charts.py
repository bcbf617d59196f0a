"""The charts of the browsing page: Vega-Lite as plain dictionaries. They hold no data and fit nothing.

A text ``$name`` stands for what the page (or a test, with :func:`analysis.page.browse_marks.fill`) puts there: a title,
a type, an order. Rows have fixed field names, so that no name of a user's table ever becomes part of a Vega expression.
"""

from __future__ import annotations

from typing import Any

from analysis.page import browse_marks as marks
from analysis.page import browse_tasks

Spec = marks.Spec
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


def charts() -> dict[str, Spec]:
    """Every chart of the page by its name."""
    made = {
        "strengths": strengths(),
        "layers": layers(),
        "layers_alone": _without_first(layers()),
        "variables": variables(),
        "variables_alone": _without_first(variables()),
        "heat": heat(),
        "estimates": estimates(),
        "pairs": pairs(),
        "beeswarm": beeswarm(),
        "dependence": dependence(),
        "interactions": interactions(),
        "best": best(),
        "against": against(),
        **browse_tasks.charts(),
    }
    return {name: {"$schema": SCHEMA, "data": {"name": "rows"}, **spec} for name, spec in made.items()}


def _without_first(spec: Spec) -> Spec:
    """A faceted chart without its first layer, for when that has no rows: Vega warns of scales without any."""
    return {**spec, "spec": {**spec["spec"], "layer": spec["spec"]["layer"][1:]}}


def strengths() -> Spec:
    """Mean % retained of each backbone with its interval."""
    tip = marks.tip_of(
        ("label", "backbone"), ("value", "% retained"), ("interval", "95 % interval"), ("strength", "tunnel")
    )
    bounds = {"domain": "$strengths", "range": ["#d55e00", "#b98a00", "#0a84d0", "#009e73", "#767676"]}
    colour = {"field": "strength", "type": "nominal", "title": "tunnel", "scale": bounds, "legend": marks.legend()}
    shape = {
        **colour,
        "scale": {"domain": "$strengths", "range": ["circle", "square", "triangle-up", "diamond", "cross"]},
    }
    return {
        "width": "$width",
        "height": {"step": 15},
        "encoding": {"y": marks.rows(limit="$label_limit")},
        "layer": [
            {
                "mark": {"type": "rule", "opacity": 0.6},
                "encoding": {"x": marks.number("low", "$title"), "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1, "cursor": "pointer"},
                "encoding": {
                    "x": marks.number("value", "$title", scale={"zero": False}),
                    "color": colour,
                    "shape": shape,
                    "tooltip": tip,
                },
            },
        ],
    }


def layers() -> Spec:
    """Curves by layer, one small panel per dataset or backbone; the tunnel is shaded from its start."""
    tip = marks.tip_of(
        ("backbone", "backbone"), ("dataset", "dataset"), ("layer", "layer"), ("name", "name"), ("width", "width"),
        ("test", "test accuracy"), ("interval", "95 % interval"), ("heldout", "held-out accuracy"),
        ("measure", "$y"), ("probe_epoch", "probe's epoch"), ("epoch", "after training epoch"),
    )  # fmt: skip
    axis = {"tickMinStep": "$step", "grid": False, "format": "$format"}
    x = marks.number("x", "$x", scale={"nice": False, "padding": 6}, axis=axis)
    y = marks.number("y", "$y", scale={"zero": "$zero"})
    dashes = {**marks.series(), "scale": {"domain": "$order", "range": "$dashes"}}
    colours, shapes = marks.series(colours="$colours"), marks.shapes(shapes="$shapes")
    return {
        "facet": {"field": "panel", "type": "nominal", "title": None, "sort": "$panels", "header": marks.header()},
        "columns": "$columns",
        "resolve": {"axis": {"x": "independent"}},  # or the last row draws axes for panels that are not there
        "spec": {
            "width": "$width",
            "height": 190,
            "layer": [
                {
                    "transform": [{"filter": "datum.tunnel"}],
                    "mark": {"type": "rect", "opacity": "$shade"},
                    "encoding": {"x": {**x, "field": "from"}, "x2": {"field": "to"}, "color": colours},
                },
                {
                    "transform": [{"filter": "!datum.tunnel"}],
                    "mark": {"type": "line", "strokeWidth": 2},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": colours,
                        "strokeDash": dashes,
                        "detail": {"field": "line"},
                    },
                },
                {
                    "transform": [{"filter": "!datum.tunnel"}],
                    "mark": {"type": "point", "filled": True, "size": 42, "opacity": 1},
                    "encoding": {"x": x, "y": y, "color": colours, "shape": shapes, "tooltip": tip},
                },
            ],
        },
    }


def variables() -> Spec:
    """Any column against any metric; matched pairs joined by lines."""
    tip = marks.tip_of(
        ("backbone", "backbone"), ("dataset", "dataset"), ("x", "$x"), ("y", "$y"), ("series", "$series")
    )
    x = {
        "field": "x",
        "type": "$x_type",
        "title": "$x",
        "sort": "$x_order",
        "scale": "$x_scale",
        "axis": {"labelAngle": "$angle"},
    }
    y = marks.number("y", "$y", scale={"zero": False})
    # one path with a break after each pair: a path of its own for each takes ten times as long
    joined = {"x": x, "y": y, "xOffset": "$offset", "order": {"field": "pair", "type": "quantitative"}}
    dot = {"x": x, "y": y, "xOffset": "$offset", "color": "$colour", "shape": "$shape", "tooltip": tip}
    return {
        "facet": {"field": "panel", "type": "nominal", "title": None, "sort": "$panels", "header": marks.header()},
        "columns": "$columns",
        "resolve": {"axis": {"x": "independent"}},
        "spec": {
            "width": "$width",
            "height": "$height",
            "layer": [
                {
                    "transform": [{"filter": "isValid(datum.pair)"}],
                    "mark": {"type": "line", "aria": False, "strokeWidth": 1, "opacity": 0.45, "color": "#8894a0"},
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


def heat() -> Spec:
    """A metric of every backbone on every dataset."""
    tip = marks.tip_of(("label", "backbone"), ("dataset", "dataset"), ("value", "$title"))
    return {
        "width": {"step": "$step"},
        "height": {"step": 17},
        "encoding": {
            "y": marks.rows(limit="$label_limit"),
            "x": {
                "field": "dataset",
                "type": "nominal",
                "title": None,
                "axis": {"orient": "top", "labelAngle": "$angle", "labelOverlap": False, "labelLimit": 130},
            },
        },
        "layer": [
            {
                "mark": {"type": "rect", "cursor": "pointer"},
                "encoding": {
                    "color": marks.number("value", "$title", scale={"scheme": "viridis"}, legend={"orient": "bottom"}),
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
    tip = marks.tip_of(
        ("label", "variable"), ("series", "estimate"), ("scale", "from → to"), ("value", "$x"),
        ("interval", "95 % interval"), ("basis", "from"), ("verdict", "verdict"),
    )  # fmt: skip
    sure = {"condition": {"test": "datum.sure", "value": 1}, "value": 0.55}
    offset = {"field": "series", "type": "nominal", "sort": "$order"}
    place = {"y": marks.rows(limit="$label_limit"), "yOffset": offset, "opacity": sure}
    zero = {"x": {"datum": 0}, "color": {"value": "#8894a0"}}
    return {
        "width": "$width",
        "height": {"step": 15, "for": "offset"},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [3, 3]}, "encoding": zero},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {**place, "x": marks.number("low", "$x"), "x2": {"field": "high"}, "color": marks.series()},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "cursor": "pointer"},
                "encoding": {
                    **place,
                    "x": marks.number("value", "$x"),
                    "color": marks.series(),
                    "shape": marks.shapes(),
                    "tooltip": tip,
                },
            },
        ],
    }


def pairs() -> Spec:
    """The two sides of each matched pair of backbones, joined."""
    tip = marks.tip_of(("backbone", "backbone"), ("y", "$y"), ("difference", "difference"))
    x = {"field": "side", "type": "ordinal", "title": "$x", "sort": "$order", "axis": {"labelAngle": 0}}
    y = marks.number("y", "$y", scale={"zero": False})
    return {
        "width": 240,
        "height": 260,
        "encoding": {"x": x, "y": y},
        "layer": [
            {"mark": {"type": "line", "opacity": 0.6, "color": "#8894a0"}, "encoding": {"detail": {"field": "pair"}}},
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1, "cursor": "pointer"},
                "encoding": {"tooltip": tip, "color": {"value": marks.COLOURS[0]}},
            },
        ],
    }


def beeswarm() -> Spec:
    """SHAP value of each experiment, by variable; the colour is where the variable's value lies in its order."""
    tip = marks.tip_of(
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
            "y": marks.rows(limit="$label_limit"),
            "yOffset": marks.OFFSET,
            "x": marks.number("value", "$x"),
            "color": marks.number("code", "value", scale={"range": list(marks.RANGE), "domain": [0, 1]}, legend=legend),
            "tooltip": tip,
        },
    }


def dependence() -> Spec:
    """SHAP value against the variable's own value, coloured by another variable."""
    tip = marks.tip_of(
        ("backbone", "backbone"), ("dataset", "dataset"), ("x", "$x"), ("y", "$y"), ("series", "$series")
    )
    x = {"field": "x", "type": "ordinal", "title": "$x", "sort": "$x_order", "axis": {"labelAngle": "$angle"}}
    return {
        "width": "$width",
        "height": 260,
        "mark": {"type": "point", "filled": True, "size": 36, "opacity": 0.8, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "xOffset": marks.OFFSET,
            "y": marks.number("y", "$y"),
            "color": marks.series(),
            "shape": marks.shapes(),
            "tooltip": tip,
        },
    }


def interactions() -> Spec:
    """Mean |SHAP interaction| of each two variables; the main effects are on the diagonal."""
    tip = marks.tip_of(("label", "variable"), ("other", "with"), ("value", "$title"))
    axis = {"labelAngle": -35, "labelLimit": 200, "labelOverlap": False}
    return {
        "width": {"step": 52},
        "height": {"step": 30},
        "mark": {"type": "rect"},
        "encoding": {
            "y": marks.rows(),
            "x": {"field": "other", "type": "nominal", "sort": "$rows", "title": None, "axis": axis},
            "color": marks.number("value", "$title", scale={"scheme": "viridis"}),
            "tooltip": tip,
        },
    }


def best() -> Spec:
    """For each dataset: its best backbone and layer, that backbone's last layer, and the best last layer of all."""
    tip = marks.tip_of(
        ("label", "dataset"), ("series", ""), ("backbone", "backbone"), ("layer", "layer"), ("value", "accuracy, %")
    )
    return {
        "width": "$width",
        "height": {"step": 30},
        "encoding": {"y": marks.rows(limit="$label_limit")},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.5},
                "encoding": {
                    "x": marks.number("value", "$title", aggregate="min"),
                    "x2": {"field": "value", "aggregate": "max"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "cursor": "pointer"},
                "encoding": {
                    "x": marks.number("value", "$title", scale={"zero": False}),
                    "color": marks.series(),
                    "shape": marks.shapes(),
                    "tooltip": tip,
                },
            },
        ],
    }


def against() -> Spec:
    """A metric in two sweeps, of the experiments that both have; on the dashed line they are equal."""
    tip = marks.tip_of(
        ("label", "backbone"), ("dataset", "dataset"), ("x", "$x"), ("y", "$y"), ("difference", "difference")
    )
    line = {"type": "line", "strokeDash": [4, 4], "color": "#8894a0"}
    diagonal = {"x": marks.number("v", "$x"), "y": marks.number("v", "$y")}
    return {
        "width": "$height",
        "height": "$height",
        "layer": [
            {"data": {"values": "$diagonal"}, "mark": line, "encoding": diagonal},
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.85, "cursor": "pointer"},
                "encoding": {
                    "x": marks.number("x", "$x", scale={"zero": False}),
                    "y": marks.number("y", "$y", scale={"zero": False}),
                    "color": marks.series(),
                    "shape": marks.shapes(),
                    "tooltip": tip,
                },
            },
        ],
    }


def words() -> dict[str, Any]:
    """What the page's script needs besides the charts."""
    return {
        "colours": marks.COLOURS,
        "range": marks.RANGE,
        "dashes": marks.DASHES,
        "offset": marks.OFFSET,
        "shapes": marks.SHAPES,
        "legend": [marks.colour_of("nominal"), marks.colour_of("quantitative"), marks.shapes()],
    }
