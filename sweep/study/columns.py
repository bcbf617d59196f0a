"""A backbone as columns of the table: what the grid varies, and what follows from it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sweep.config import DESIGN_KEYS, EPOCH, INTERVENTION, RECIPE_KEYS
from sweep.models import TrainedOn, facts
from sweep.study.grid import Backbone
from sweep.study.keys import Planned, PlannedCell
from sweep.study.tasks import PlannedCourse

# keys after `backbone_key`, that leave it alone at these values
_YOUNGER = {
    "precision": ("float32", None),
    "label_noise": (0.0, None),
    "mixup_share": (0.5, None),
    INTERVENTION: (None,),
}


def variables(backbone: Backbone) -> dict[str, Any]:
    """Grid variables of a backbone as table columns; what does not apply is None."""
    row = {key: getattr(backbone, key) for key in DESIGN_KEYS}
    recipe = backbone.recipe.model_dump() if backbone.recipe else dict.fromkeys(RECIPE_KEYS)
    changed = None if backbone.intervention is None else str(backbone.intervention)
    return row | recipe | {EPOCH: backbone.epoch, INTERVENTION: changed}


def derived(backbone: Backbone, id_images: int | None) -> dict[str, Any]:
    """Variables that follow from a backbone (protocol §3): family, stem, depth, φ, γ, parameters.

    Parameters
    ----------
    id_images : images the weights were trained on, None if unknown (then γ is None too).
    """
    about = facts.architecture(backbone.architecture)
    parameters = facts.parameters(
        backbone.architecture, classes=backbone.head, width=backbone.width, resolution=backbone.resolution
    )
    return {
        "family": about.family,
        "stem": about.stem,
        "depth": about.depth,
        "spatial_reduction": about.spatial_reduction,
        "view": str(backbone.view),
        "parameters": parameters,
        "id_images": id_images,
        "overparametrization": parameters / id_images if id_images else None,
        **trained_on(backbone),
    }


def trained_on(backbone: Backbone) -> dict[str, Any]:
    """What a backbone's weights were trained on, as far as it is known; of weights trained here the ID dataset."""
    if backbone.weights is not None:
        known = backbone.weights.trained_on or TrainedOn()
    elif backbone.epoch == 0:
        known = TrainedOn()
    else:
        known = TrainedOn(backbone.id_dataset, None, backbone.id_classes, "supervised")
    return {
        "corpus": known.corpus,
        "corpus_classes": known.classes,
        "objective": known.objective,
        "weights_augmentation": known.augmentation,
    }


def labels(planned: Planned) -> dict[str, Any]:
    """Columns of a curve's rows that its key does not determine; they are joined when the table is written.

    The images of a backbone that is trained here are counted then; those of other weights are what is known of them.
    """
    backbone = planned.curve.backbone
    id_images = backbone.weights.images if backbone.weights is not None else None
    told = variables(backbone)
    tells_apart = {name: value for name, value in told.items() if value not in _YOUNGER.get(name, ())}
    identity = hashlib.sha256(json.dumps([planned.weights, tells_apart], sort_keys=True).encode()).hexdigest()
    return {
        "backbone_key": identity[:20],
        **told,
        **derived(backbone, id_images),
        "dataset": planned.curve.dataset,
        "is_id": planned.curve.is_id,
    }


def course_labels(cell: PlannedCell, planned: PlannedCourse) -> dict[str, Any]:
    """Columns of a course's rows that its key does not determine: those of the backbone, and what it learns."""
    kept = next(each for each in cell.curves if each.curve.is_id)
    return {**labels(kept), "tasks": planned.course.label, "n_tasks": len(planned.course.tasks)}
