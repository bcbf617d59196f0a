"""Content keys: a hash of everything that changes a stage's result, and of nothing that does not.

Keys are chained, weights → embedding → curve. Paths, worker counts, the table's schema and the git commit are no part
of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sweep import register
from sweep.base.errors import UserError
from sweep.config import LAYERS, PENALTIES, RECIPE_KEYS, ExtractionPrecision, Recipe, declared
from sweep.data import CORRUPTED, training_pixels
from sweep.models import facts
from sweep.study.grid import Backbone, Curve, Grid
from sweep.study.tasks import Course, PlannedCourse

# Bump a stage's version by hand when its code changes what it computes; a new column never needs it.
STAGE_VERSIONS: Mapping[str, int] = {"weights": 1, "embedding": 1, "curve": 1, "reading": 1, "continual": 1}
# The same for what is measured of layers beside the probes, each by itself; 1 where nothing is said
INSTRUMENT_VERSIONS: Mapping[str, int] = {"knn": 2, "few_shot": 2, "weight_distance": 2}  # all others are at 1
_CROPS = 2  # of our own augmentations: crops and operations drawn by counting, in batches
_TRANSFORMED = 2  # of plug-ins' augmentations of evaluation images, which version 1 did not carry out


def content_key(stage: str, **parts: Any) -> str:
    """Hash of a stage's inputs: 20 hexadecimal digits of SHA-256 over sorted JSON."""
    payload = {"stage": stage, "version": STAGE_VERSIONS[stage], **parts}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Planned:
    """A curve with its keys: computed once from the grid, and carried from there on.

    Attributes
    ----------
    key : of the curve; names its fragment.
    embedding, weights : of the stages below it.
    run : of the training run that the weights come from, which is the key of its kept weights.
    readings : instrument that the config asks for → key of what it measures of this curve's layers, see
        :mod:`sweep.table.readings`; those that make no sense of the curve are not among them.
    donor : the backbone that an intervention takes layers from, with its keys; None: no other.
    fit : of its probes alone, whatever else describes its layers.
    """

    curve: Curve
    key: str
    embedding: str
    weights: str
    run: str
    readings: tuple[tuple[str, str], ...] = ()
    donor: Donor | None = None
    fit: str = ""


@dataclass(frozen=True)
class Donor:
    """A backbone that others take layers from: keys of its weights and of its training run, and its ID images."""

    backbone: Backbone
    weights: str
    run: str
    images: Mapping[str, Any]


@dataclass(frozen=True)
class PlannedCell:
    """A backbone with its planned curves, see :class:`~sweep.study.grid.Cell`.

    Attributes
    ----------
    run : key of the backbone's kept weights.
    images : what identifies its ID images, for people who find its weights.
    """

    backbone: Backbone
    run: str
    images: Mapping[str, Any]
    curves: tuple[Planned, ...] = ()
    blocks: tuple[int, ...] = ()
    courses: tuple[PlannedCourse, ...] = ()

    @property
    def stages(self) -> dict[int, str]:
        """Keys of the weights after each epoch of ID training that a curve asks for."""
        return {
            planned.curve.backbone.epoch: planned.weights
            for planned in self.curves
            if planned.curve.backbone.epoch is not None
        }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all curves of a sweep are measured with, and their keys contain.

    Attributes
    ----------
    code : "kind name" of each plug-in in use → its code, see :class:`sweep.register.Plugin`.
    statistics : registered statistics that every curve gets.
    extraction : arithmetic that embeddings are computed in.
    """

    split_seed: int
    holdout: float
    rank_threshold: float
    code: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[str, ...] = ()
    extraction: ExtractionPrecision = "float32"


@dataclass(frozen=True, kw_only=True)
class Keyring(Settings):
    """Gives every stage its key, from the grid's values and what the data contains.

    Attributes
    ----------
    data : dataset name → identity of its content (fingerprint, caps), never its path.
    instruments : what is measured of every curve's layers beside its probes.
    """

    data: Mapping[str, str]
    instruments: tuple[str, ...] = ()

    @property
    def settings(self) -> Settings:
        """What a worker needs to know besides its planned curves."""
        return Settings(**{part.name: getattr(self, part.name) for part in fields(Settings)})

    def cells(self, grid: Grid) -> tuple[PlannedCell, ...]:
        """All cells of a grid, with the keys of their curves."""
        return tuple(self.cell(cell.backbone, cell.curves, cell.blocks, cell.courses) for cell in grid.cells)

    def cell(
        self,
        backbone: Backbone,
        curves: Iterable[Curve] = (),
        blocks: tuple[int, ...] = (),
        courses: Iterable[Course] = (),
    ) -> PlannedCell:
        """A backbone, its curves and its courses with their keys."""
        run, stages, planned = self.run(backbone), dict[tuple[Any, ...], str](), []
        for curve in curves:
            stage = (curve.backbone.epoch, curve.backbone.intervention)
            if stage not in stages:
                stages[stage] = run if stage == (None, None) else self._from(run, curve.backbone)
            planned.append(self._planned(curve, stages[stage], run))
        images = self.selection(backbone) if backbone.id_dataset in self.data else {}  # weights need none
        learned = tuple(self._course(backbone, course, planned) for course in courses)
        return PlannedCell(backbone, run, images, tuple(planned), blocks, learned)

    def _course(self, backbone: Backbone, course: Course, planned: Sequence[Planned]) -> PlannedCourse:
        """A course with the keys of the weights after each task, each made from those before it."""
        runs = [self.weights(backbone)]
        for task in course.tasks[1:]:
            own = self.weights(replace(backbone, id_dataset=task.dataset, id_classes=task.classes))
            runs.append(content_key("weights", after=runs[-1], task=own, skip=task.skip))
        tuned = course.tuning and self.weights(replace(backbone, recipe=course.tuning))
        kept = [each for each in planned if each.curve.backbone == planned[0].curve.backbone]
        id_curve = next(each.key for each in kept if each.curve.is_id)
        ood = tuple(each.key for each in kept if not each.curve.is_id and each.curve.shifted is None)
        told: dict[str, Any] = {"split": course.splits, "layers": backbone.layers_pattern}
        told |= {"id": id_curve} if {"id95", "id98"} & {*course.splits} else {}  # what decides, and nothing else
        told |= {"ood": ood} if "ood" in course.splits else {}
        key = content_key("continual", runs=runs, tuned=tuned, holdout=self.holdout, **told)
        return PlannedCourse(course, key, tuple(runs), content_key("weights", runs=runs, tuned=tuned), id_curve, ood)

    def planned(self, curve: Curve) -> Planned:
        """A curve with its keys."""
        return self._planned(curve, self.weights(curve.backbone), self.run(curve.backbone))

    def _planned(self, curve: Curve, weights: str, run: str) -> Planned:
        """A curve of these weights; each key is made once, from the one below it."""
        embedding, changed = self._embedding(curve, weights), curve.backbone.intervention
        donor = self._donor(changed.donor) if changed is not None and changed.donor is not None else None
        key = self._curve(curve, embedding)
        bare = Planned(curve, key, embedding, weights, run, donor=donor, fit=self._fit(curve, key, embedding))
        return replace(bare, readings=self._readings(bare)) if self.instruments else bare

    def _donor(self, backbone: Backbone) -> Donor:
        images = self.selection(backbone) if backbone.id_dataset in self.data else {}
        return Donor(backbone, self.weights(backbone), self.run(backbone), images)

    def _readings(self, planned: Planned) -> tuple[tuple[str, str], ...]:
        found = []
        for name in self.instruments:
            basis = self._basis(name, planned)
            if basis is not None:
                version = INSTRUMENT_VERSIONS.get(name, 1)
                found.append((name, content_key("reading", instrument=name, of=version, **basis)))
        return tuple(found)

    def _basis(self, instrument: str, planned: Planned) -> dict[str, Any] | None:
        """What decides the numbers of an instrument; None where it has nothing to measure.

        Distances from initial weights need a training run of ours, detection an ID dataset and images from elsewhere.
        """
        curve, backbone = planned.curve, planned.curve.backbone
        if instrument == "weight_distance":
            return None if backbone.recipe is None else {"weights": planned.weights, **_points(backbone)}
        if instrument == "image_complexity":
            return {"images": self._images(curve), "resolution": backbone.resolution, **_view(backbone)}
        if instrument in ("collapse", "per_class", "concatenation"):
            return {"curve": planned.key}
        if instrument == "ood_detection":
            if curve.is_id or curve.shifted is not None or backbone.id_dataset not in self.data:
                return None
            own = id_curve(curve)
            return {
                "embedding": planned.embedding,
                "id": self._curve(own, self._embedding(own, planned.weights)),
            }
        split = {} if instrument in ("spectrum", "cka") else {"split_seed": self.split_seed, "holdout": self.holdout}
        return {"embedding": planned.embedding, **split}

    def _code(self, *labels: str) -> dict[str, Any]:
        """What plug-ins among these add to a key; nothing if there are none, so that other keys stay as they are."""
        found = {label: self.code[label] for label in labels if label in self.code}
        return {"code": found} if found else {}

    def selection(self, backbone: Backbone) -> dict[str, Any]:
        """What identifies a backbone's ID images."""
        return {
            "data": self.data.get(backbone.id_dataset),  # none where only the weights' corpus is named
            "classes": backbone.id_classes,
            "images_per_class": backbone.images_per_class,
            "split_seed": self.split_seed,
        }

    def weights(self, backbone: Backbone) -> str:
        """Key of a backbone's weights; after an epoch of a training run it derives from the run's own key."""
        if backbone.epoch is not None or backbone.intervention is not None:
            return self._from(self.run(backbone), backbone)
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
            **_pixels(backbone),
            **_view(backbone),
            **self._code(f"model {backbone.architecture}", f"augmentation {backbone.augmentation}"),
        )

    def _from(self, run: str, backbone: Backbone) -> str:
        """Key of the weights of a training run after an epoch, or with layers that are not its own."""
        changed = backbone.intervention
        if changed is None:
            return content_key("weights", run=run, epoch=backbone.epoch)
        other = changed.source if changed.donor is None else self.weights(changed.donor)
        layers = [changed.first, changed.last, changed.head]
        return content_key("weights", run=run, layers=layers, points=backbone.layers_pattern, to=other)

    def run(self, backbone: Backbone) -> str:
        """Key of the training run that a backbone comes from: that of its kept weights."""
        return self.weights(backbone.trained)

    def embedding(self, curve: Curve) -> str:
        """Key of the embeddings of one dataset by one backbone."""
        return self._embedding(curve, self.weights(curve.backbone))

    def _embedding(self, curve: Curve, weights: str) -> str:
        images = self._images(curve)
        return content_key(
            "embedding",
            weights=weights,
            images=images,
            resolution=curve.backbone.resolution,
            **_view(curve.backbone),
            **_points(curve.backbone),
            **({"stored": 2} if curve.backbone.epoch == 0 else {}),  # float32 where float16 would lose initial weights
            **_arithmetic(self.extraction),
        )

    def _images(self, curve: Curve) -> dict[str, Any]:
        """What identifies the images that a curve embeds."""
        if curve.is_id:
            return self.selection(curve.backbone)
        if curve.shifted is None:
            return {"data": self.data[curve.dataset]}
        made = curve.shifted.corruption
        tested = [made, curve.shifted.severity, CORRUPTED] if made else self.data[curve.dataset]
        return {"fit": self.selection(curve.backbone), "test": tested}

    def _is_exact(self, curve: Curve) -> bool:
        """Whether nothing of a curve is drawn at random once it has its embeddings."""
        return curve.probe.solver in PENALTIES and not self.statistics

    def curve(self, curve: Curve) -> str:
        """Key of a curve: the name of its fragment in the table."""
        return self._curve(curve, self.embedding(curve))

    def _curve(self, curve: Curve, embedding: str) -> str:
        return content_key(
            "curve",
            embedding=embedding,
            probe=_probe_identity(curve),
            **({} if self._is_exact(curve) else {"seed": curve.backbone.seed}),
            split_seed=self.split_seed,
            holdout=self.holdout,
            rank_threshold=self.rank_threshold,
            **self._code(f"probe {curve.probe.solver}", *(f"statistic {name}" for name in self.statistics)),
        )

    def _fit(self, curve: Curve, key: str, embedding: str) -> str:
        """Key of a curve's probes without what describes its layers: a mended statistic finds them."""
        told = {"seed": curve.backbone.seed, "split_seed": self.split_seed, "holdout": self.holdout}
        return content_key(
            "curve",
            of="probes",
            embedding=embedding,
            probe=_probe_identity(curve),
            **told,
            **({"check": key} if curve.probe.check else {}),  # the curve's key draws the layers that are checked
            **self._code(f"probe {curve.probe.solver}"),
        )


def id_curve(curve: Curve) -> Curve:
    """The curve of the same backbone, with the same probes, on its ID dataset."""
    return replace(curve, dataset=curve.backbone.id_dataset, shifted=None)


def _arithmetic(precision: ExtractionPrecision) -> dict[str, str]:
    """What a precision adds to the key of embeddings: for float32 nothing, halves under the older word."""
    return {} if precision == "float32" else {"precision" if precision == "tf32" else "autocast": precision}


def _points(backbone: Backbone) -> dict[str, Any]:
    """Which layers are embedded and how; where that is as version 0.1 did it, as its keys had it."""
    said = backbone.layers_pattern
    parts: dict[str, Any] = {"layers": None, "points": said} if said in LAYERS else {"layers": said}
    if backbone.pooling != "default":
        parts["pooling"] = backbone.pooling
    if backbone.norm != "none":
        parts["norm"] = backbone.norm
    if set(parts) == {"layers"} and not facts.first_rule(
        backbone.architecture, layers=said, width=backbone.width, resolution=backbone.resolution
    ):
        parts["rule"] = 2
    return parts


def _probe_identity(curve: Curve) -> Any:
    """What a curve's probes add to its key: one recipe as it is, several as a list with the number of seeds."""
    recipes = [probe.identity for probe in curve.probes]
    return recipes[0] if curve.probes_per_layer == 1 else {"recipes": recipes, "seeds": curve.probe_seeds}


def _pixels(backbone: Backbone) -> dict[str, int]:
    """What augmented training sees, where that is not what the first version saw."""
    name = backbone.augmentation
    if name in (None, "off"):
        return {}
    version = training_pixels(backbone.resolution)
    parts = {"pixels": version} if version > 1 else {}
    plugin = register.find_plugin("augmentation", name)
    if plugin is None:
        parts["crops"] = _CROPS
    elif plugin.facts["source"] == "evaluation":
        parts["transformed"] = _TRANSFORMED
    return parts


def _view(backbone: Backbone) -> dict[str, str]:
    """How images are resized and cropped, where that is not as the study has it."""
    return {"view": backbone.view.identity} if backbone.view.identity else {}


def _recipe_parts(recipe: Recipe) -> dict[str, Any]:
    """A recipe as its key has it: without the newer choices that are at their defaults."""
    default = Recipe()
    return {
        key: value
        for key, value in recipe.model_dump().items()
        if key not in RECIPE_KEYS or not (declared(key).new and value == getattr(default, key))
    }


def uses_holdout(recipe: Recipe) -> bool:
    """Whether ID training depends on the held-out part at all."""
    return recipe.train_on == "fit" or recipe.checkpoint_on == "heldout"
