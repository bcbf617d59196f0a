"""Content keys: a hash of everything that changes a stage's result, and of nothing that does not.

Keys are chained, weights → embedding → curve. Paths, worker counts, the table's schema and the git commit are no part
of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweep.base.errors import UserError
from sweep.config import Autocast, Recipe
from sweep.study.grid import Backbone, Curve

# Bump a stage's version by hand when its code changes what it computes; a new column never needs it.
STAGE_VERSIONS: Mapping[str, int] = {"weights": 1, "embedding": 1, "curve": 1}


def content_key(stage: str, **parts: Any) -> str:
    """Hash of a stage's inputs: 20 hexadecimal digits of SHA-256 over sorted JSON."""
    payload = {"stage": stage, "version": STAGE_VERSIONS[stage], **parts}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Keyring:
    """Gives every stage its key, from the grid's values and what the data contains.

    Attributes
    ----------
    data : dataset name → identity of its content (fingerprint, caps), never its path.
    code : "kind name" of each plug-in in use → its code, see :class:`sweep.plugins.Plugin`.
    statistics : registered statistics that every curve gets.
    autocast : type that extraction computes in, where it is not float32.
    """

    data: Mapping[str, str]
    split_seed: int
    holdout: float
    rank_threshold: float
    code: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[str, ...] = ()
    autocast: Autocast | None = None

    def _code(self, *labels: str) -> dict[str, Any]:
        """What plug-ins among these add to a key; nothing if there are none, so that other keys stay as they are."""
        found = {label: self.code[label] for label in labels if label in self.code}
        return {"code": found} if found else {}

    def selection(self, backbone: Backbone) -> dict[str, Any]:
        """What identifies a backbone's ID images."""
        return {
            "data": self.data[backbone.id_dataset],
            "classes": backbone.id_classes,
            "images_per_class": backbone.images_per_class,
            "split_seed": self.split_seed,
        }

    def weights(self, backbone: Backbone) -> str:
        """Key of a backbone's weights; after an epoch of a training run it derives from the run's own key."""
        if backbone.epoch is not None:
            return content_key("weights", run=self.run(backbone), epoch=backbone.epoch)
        if backbone.weights is not None:
            identity = backbone.weights.identity
            if identity is None:
                raise UserError(f"weights {backbone.pretraining}: no such checkpoint file: {backbone.weights.name}")
            code = self._code(f"model {backbone.architecture}")
            return content_key("weights", architecture=backbone.architecture, pretraining=identity, **code)
        assert backbone.recipe is not None
        return content_key(
            "weights",
            architecture=backbone.architecture,
            width=backbone.width,
            resolution=backbone.resolution,
            augmentation=backbone.augmentation,
            images=self.selection(backbone),
            holdout=self.holdout if uses_holdout(backbone.recipe) else None,
            recipe=_recipe_parts(backbone.recipe),
            seed=backbone.seed,
            **self._code(f"model {backbone.architecture}", f"augmentation {backbone.augmentation}"),
        )

    def run(self, backbone: Backbone) -> str:
        """Key of the training run that a backbone comes from: that of its kept weights."""
        return self.weights(backbone.after(None))

    def embedding(self, curve: Curve) -> str:
        """Key of the embeddings of one dataset by one backbone."""
        images = self.selection(curve.backbone) if curve.is_id else {"data": self.data[curve.dataset]}
        return content_key(
            "embedding",
            weights=self.weights(curve.backbone),
            images=images,
            resolution=curve.backbone.resolution,
            layers=curve.backbone.layers_pattern,
            **({"autocast": self.autocast} if self.autocast else {}),
        )

    def curve(self, curve: Curve) -> str:
        """Key of a curve: the name of its fragment in the table."""
        return content_key(
            "curve",
            embedding=self.embedding(curve),
            probe=_probe_identity(curve),
            seed=curve.backbone.seed,
            split_seed=self.split_seed,
            holdout=self.holdout,
            rank_threshold=self.rank_threshold,
            **self._code(f"probe {curve.probe.solver}", *(f"statistic {name}" for name in self.statistics)),
        )


def _probe_identity(curve: Curve) -> Any:
    """What a curve's probes add to its key: one recipe as it is, several as a list with the number of seeds."""
    if curve.probes_per_layer == 1:
        return curve.probe.model_dump()
    return {"recipes": [probe.model_dump() for probe in curve.probes], "seeds": curve.probe_seeds}


def _recipe_parts(recipe: Recipe) -> dict[str, Any]:
    """A recipe as its key has it; one process is no part of it, so that keys older than the choice stay."""
    return recipe.model_dump(exclude={"data_parallel"} if recipe.data_parallel == 1 else set())


def uses_holdout(recipe: Recipe) -> bool:
    """Whether ID training depends on the held-out part at all."""
    return recipe.train_on == "fit" or recipe.checkpoint_on == "heldout"
