"""What a plan says of the weights of a grid, in words."""

from __future__ import annotations

import textwrap

from sweep.study.grid import Grid


def trained_on_all_lines(grid: Grid) -> list[str]:
    """Where ID training takes every image, what is held out for the ID curve's probes is none that was not seen."""
    on_all = sum(cell.backbone.recipe is not None and cell.backbone.recipe.train_on == "all" for cell in grid.cells)
    if not on_all:
        return []
    said = (
        f"{on_all} backbones are trained on all ID images: on the ID dataset the held-out part, which chooses epoch, "
        "penalty and peak layer of their probes, was seen in training (recipe.train_on: fit keeps it apart)"
    )
    return textwrap.wrap(f"notice: {said}", width=118)


def weights_lines(grid: Grid) -> list[str]:
    """Aliases that were resolved are not repeated here: a tag says them. What is not known of weights is said."""
    unknown = {
        f"{cell.backbone.pretraining} of {cell.backbone.architecture}": None
        for cell in grid.cells
        if cell.backbone.weights is not None and cell.backbone.weights.images is None
    }
    if not unknown:
        return []
    said = f"how many images these weights were trained on is not known: {', '.join(unknown)}; γ and id_images are null"
    return textwrap.wrap(f"notice: {said} (weights: {{NAME: {{trained_on: …}}}} says it)", width=118)


def seen_lines(grid: Grid) -> list[str]:
    """What weights expect of pixels, how they are shown images, and who says so; a line for each kind."""
    kinds: dict[str, list[str]] = {}
    for backbone in (cell.backbone for cell in grid.cells if cell.backbone.weights is not None):
        assert backbone.weights is not None
        both = (backbone.weights.mean, backbone.weights.std)
        mean, std = (", ".join(f"{value:.4g}" for value in each) for each in both)
        said = f"mean [{mean}], std [{std}] ({backbone.weights.pixels_from})"
        kinds.setdefault(f"{said}; {backbone.evaluation_view} view: {backbone.view}", []).append(
            f"{backbone.pretraining} of {backbone.architecture}"
        )
    return [f"pixels of {', '.join(dict.fromkeys(names))}: {said}" for said, names in kinds.items()]


def left_out_lines(grid: Grid) -> list[str]:
    """ID curves that weights would have, were their ID dataset here."""
    without: dict[str, int] = {}
    for cell in grid.cells:
        if not any(curve.is_id for curve in cell.curves):
            without[cell.backbone.id_dataset] = without.get(cell.backbone.id_dataset, 0) + 1
    return [
        f"notice: no ID curve of {backbones} backbones with weights: the config has no dataset {name} (under datasets: "
        f"{name}: {{path: …}} it would be probed too); without it correlation and alignment with the ID curve are null"
        for name, backbones in without.items()
    ]
