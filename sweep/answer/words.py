"""An answer in words and numbers: the table, what it rests on, how sure the order is; and the same for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.answer.cost import Price
from sweep.answer.names import Model, suggested
from sweep.answer.ranking import Answer, leads, sentence

_NAMED = 3  # images that cannot be read
_HEAD = ("model", "best layer", "accuracy, %", "last layer loses", "width", "GFLOPs", "ms/image")


def text(found: Sequence[Answer], paid: Mapping[Model, Price], row: Mapping[str, Any], *, narrowed: bool) -> str:
    """For people.

    Parameters
    ----------
    row : any of the table, for what all have in common.
    narrowed : whether a budget left out models or layers.
    """
    chose = found[0].n_choosing
    how = f"of which {chose:,} chose the layer" if chose < row["n_train"] else "which all chose the layer, cross-fitted"
    device = next(iter(paid.values())).device
    basis = [
        f"{row['dataset']}: {row['classes']} classes, {row['n_train']:,} training images, {how}; "
        f"accuracies of {row['n_test']:,} test images, 95 % intervals.",
        f"GFLOPs and ms are those of the network up to the layer ({device}).",
    ]
    if narrowed:
        basis.append("--budget: models and layers that few images ruled out are not here.")
        basis.append("Layers are numbered as in the whole network; the table numbers those that are left.")
    if skipped := row["skipped_images"]:
        more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        basis.append(f"Left out, {len(skipped)} that cannot be read: {'; '.join(skipped[:_NAMED])}{more}.")
    licences = {each["model"]: each["licence"] for each in suggested()}
    shown = [f"{each.model.name} {licences[each.model.name]}" for each in found if each.model.name in licences]
    if shown:
        basis.append(f"Licences of the weights as timm states them; their cards count: {', '.join(shown)}.")
    return "\n".join([*_drawn(found, paid), "", *basis, sentence(found)])


def _drawn(found: Sequence[Answer], paid: Mapping[Model, Price]) -> list[str]:
    lines = [_HEAD, *(_cells(each, paid[each.model]) for each in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = (str.ljust, str.ljust, *(str.rjust for _ in widths[2:]))
    drawn = [[side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)] for line in lines]
    return ["  ".join(cells).rstrip() for cells in drawn]


def _cells(each: Answer, price: Price) -> tuple[str, ...]:
    return (
        each.model.name,
        f"{each.layer_name} ({each.layer} of {each.layers})",
        _points(each.accuracy, each.low, each.high),
        "it is the last" if each.layer == each.layers else _points(each.lost, each.lost_low, each.lost_high),
        f"{each.width:,}",
        f"{price.flops / 1e9:.3g}",
        f"{price.milliseconds:.3g}",
    )


def _points(share: float, low: float, high: float) -> str:
    return f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def as_json(found: Sequence[Answer], paid: Mapping[Model, Price]) -> dict[str, Any]:
    """The same for machines."""
    models = [
        {
            "model": each.model.name,
            "layer": each.layer,
            "layers": each.layers,
            "layer_name": each.layer_name,
            "width": each.width,
            "resolution": each.resolution,
            "images_that_chose": each.n_choosing,
            "accuracy": each.accuracy,
            "interval": [each.low, each.high],
            "last_layer_loses": each.lost,
            "last_layer_loses_interval": [each.lost_low, each.lost_high],
            "flops": paid[each.model].flops,
            "milliseconds": paid[each.model].milliseconds,
            "curve_key": each.curve_key,
        }
        for each in found
    ]
    against = [
        {"other": lead.other.name, "difference": lead.difference, "interval": [lead.low, lead.high], "tied": lead.tied}
        for lead in leads(found)
    ]
    return {"models": models, "first_against": against, "sentence": sentence(found)}
