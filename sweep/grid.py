"""Product blocks become backbone cells and probe curves, with content keys.

A key is a hash of everything that changes a stage's result and of nothing that does not: weights → embedding
→ curve. Paths, worker counts, the table's schema and the git commit are not part of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sweep.config import (
    DESIGN_KEYS,
    EPOCH,
    PENALTIES,
    RECIPE_KEYS,
    SCRATCH,
    Autocast,
    Block,
    Config,
    Probe,
    ProbeSection,
    Recipe,
)
from sweep.models import facts

# Bump a stage's version by hand when its code changes what it computes; a new column never needs it.
STAGE_VERSIONS: Mapping[str, int] = {"weights": 1, "embedding": 1, "curve": 1}


class Sizes(NamedTuple):
    """Classes and images of a dataset (the whole of each split)."""

    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class Backbone:
    """One pretrained network of the grid: a value, equal wherever it is built.

    ``recipe`` and ``augmentation`` are None for downloaded weights; ``images_per_class`` None means all; ``epoch``
    None means the kept checkpoint, a number the same training run after so many epochs (0: before the first).
    """

    architecture: str
    id_dataset: str
    id_classes: int
    images_per_class: int | None
    resolution: int
    augmentation: str | None
    pretraining: str
    seed: int
    width: float
    recipe: Recipe | None
    layers_pattern: str | None = None
    epoch: int | None = None

    @property
    def processes(self) -> int:
        """How many processes train it together; 1 for downloaded weights."""
        return self.recipe.data_parallel if self.recipe else 1

    @property
    def label(self) -> str:
        """Short name for people, not unique over recipes."""
        parts = [self.architecture, f"{self.id_dataset}-{self.id_classes}"]
        if self.images_per_class is not None:
            parts[-1] += f"x{self.images_per_class}"
        parts.append(f"{self.resolution}px")
        parts.append(self.pretraining if self.recipe is None else f"aug-{self.augmentation}")
        parts.append(f"seed {self.seed}")
        return " ".join(parts if self.epoch is None else [*parts, f"epoch {self.epoch}"])

    def after(self, epoch: int | None) -> Backbone:
        """The same training run at another epoch; None is its kept checkpoint."""
        return replace(self, epoch=epoch)


@dataclass(frozen=True)
class Curve:
    """One backbone probed on one dataset: all its layers, each with every recipe and as many seeds as asked.

    The recipes differ in learning rate and weight decay only.
    """

    backbone: Backbone
    dataset: str
    probes: tuple[Probe, ...]
    probe_seeds: int = 1

    @property
    def is_id(self) -> bool:
        """Whether the probe dataset is the one the backbone was trained on."""
        return self.dataset == self.backbone.id_dataset

    @property
    def probe(self) -> Probe:
        """The first recipe, for what all share."""
        return self.probes[0]

    @property
    def probes_per_layer(self) -> int:
        """Rows of the table for each layer."""
        return len(self.probes) * self.probe_seeds


@dataclass(frozen=True)
class Cell:
    """A backbone with its curves, and the blocks of the config that asked for it.

    The curves of its own come first, then those of the same run after each epoch of ``probe.at_epochs``: one
    training serves them all.
    """

    backbone: Backbone
    curves: tuple[Curve, ...]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """All cells of a config, in a fixed order; ``merged`` counts backbones that several blocks asked for."""

    cells: tuple[Cell, ...]
    merged: int

    @property
    def curves(self) -> tuple[Curve, ...]:
        """Every curve of every cell."""
        return tuple(curve for cell in self.cells for curve in cell.curves)


def expand(config: Config, sizes: Callable[[str], Sizes]) -> Grid:
    """Cross each block's lists and take the union of the blocks.

    Parameters
    ----------
    config : a checked config.
    sizes : classes and images of a dataset by name.
    """
    found: dict[Backbone, tuple[dict[Curve, None], list[int]]] = {}
    merged = 0
    for number, block in enumerate(config.grid):
        for values in block_values(block):
            values["resolution"] = resolution_of(config, values)
            backbone = _backbone(config, values, sizes)
            curves, blocks = found.setdefault(backbone, ({}, []))
            merged += bool(blocks)
            blocks.append(number)
            probes, probe_seeds = probes_of(config, values)
            _, epochs = asked_epochs(config, values)
            for stage in (backbone, *map(backbone.after, sorted(set(epochs)))):
                for dataset in dict.fromkeys((backbone.id_dataset, *probe_datasets(config, block))):
                    curves[Curve(stage, dataset, probes, probe_seeds)] = None
    cells = (Cell(b, tuple(curves), tuple(dict.fromkeys(blocks))) for b, (curves, blocks) in found.items())
    return Grid(tuple(cells), merged)


def probe_datasets(config: Config, block: Block) -> tuple[str, ...]:
    """OOD datasets of a block."""
    return config.probe_datasets if block.probe_datasets is None else block.probe_datasets


def block_values(block: Block) -> Iterable[dict[str, Any]]:
    """Every combination of a block's lists; recipe keys the block does not vary are None."""
    scratch_only = {"augmentation": ("off",)}
    axes: dict[str, tuple[Any, ...]] = {}
    for key in DESIGN_KEYS + RECIPE_KEYS:
        values = getattr(block, key)
        axes[key] = values if values is not None else scratch_only.get(key, (None,))
    for combination in itertools.product(*axes.values()):
        yield dict(zip(axes, combination, strict=True))


def resolution_of(config: Config, values: Mapping[str, Any]) -> int | None:
    """Resolution of one backbone, px; ``native`` is that of its weights, None where nobody knows it."""
    if values["resolution"] != "native":
        return values["resolution"]
    entry = config.weights.get(values["pretraining"])
    own = entry.resolution if entry is not None else None
    return own or facts.architecture(values["architecture"]).native_resolution


def _matches(when: Mapping[str, tuple[Any, ...]], values: Mapping[str, Any]) -> bool:
    return all(values.get(key) in allowed for key, allowed in when.items())


def _backbone(config: Config, values: Mapping[str, Any], sizes: Callable[[str], Sizes]) -> Backbone:
    scratch = values["pretraining"] == SCRATCH
    total = sizes(values["id_dataset"]).classes
    return Backbone(
        architecture=values["architecture"],
        id_dataset=values["id_dataset"],
        id_classes=total if values["id_classes"] == "all" else values["id_classes"],
        images_per_class=None if values["images_per_class"] == "all" else values["images_per_class"],
        resolution=values["resolution"],
        augmentation=values["augmentation"] if scratch else None,
        pretraining=values["pretraining"],
        seed=values["seed"],
        width=float(values["width"]),
        recipe=recipe_of(config, values) if scratch else None,
        layers_pattern=config.layers.get(values["architecture"], facts.layers_pattern(values["architecture"])),
    )


def recipe_of(config: Config, values: Mapping[str, Any]) -> Recipe:
    """ID-training recipe of one backbone: defaults, then matching recipes, then rules, then the grid's own values."""
    settings: dict[str, Any] = config.recipe.model_dump()
    for rule in (*config.recipes, *config.rules):
        if _matches(rule.when, values):
            settings.update(rule.recipe)
    settings.update({key: values[key] for key in RECIPE_KEYS if values[key] is not None})
    return Recipe.model_validate(settings)


def probes_of(config: Config, values: Mapping[str, Any]) -> tuple[tuple[Probe, ...], int]:
    """Probe recipes of one backbone, every learning rate with every weight decay, and how many seeds of each."""
    settings: dict[str, Any] = config.probe.model_dump()
    for rule in config.rules:
        if _matches(rule.when, values):
            settings.update(rule.probe)
    section = ProbeSection.model_validate(settings)
    shared = section.model_dump(exclude={"lr", "weight_decay", "seeds", "at_epochs"})
    penalties = section.weight_decay if section.weight_decay is not None else PENALTIES.get(section.solver, (0.0,))
    probes = (
        Probe(**shared, lr=lr, weight_decay=weight_decay)
        for lr, weight_decay in itertools.product(section.lr, penalties)
    )
    return tuple(dict.fromkeys(probes)), section.seeds


def asked_epochs(config: Config, values: Mapping[str, Any]) -> tuple[tuple[str | int, ...], tuple[int, ...]]:
    """Key path of the ``at_epochs`` that holds for one backbone (later rules win), and its epochs."""
    path: tuple[str | int, ...] = ("probe", "at_epochs")
    section = config.probe
    for number, rule in enumerate(config.rules):
        if "at_epochs" in rule.probe and _matches(rule.when, values):
            path = ("rules", number, "probe", "at_epochs")
            section = ProbeSection(at_epochs=rule.probe["at_epochs"])
    return path, section.at_epochs


# ---------------------------------------------------------------------------------------------- keys


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
    weights_files : name of a local checkpoint → hash of the file.
    code : "kind name" of each plug-in in use → its code, see :class:`sweep.plugins.Plugin`.
    statistics : registered statistics that every curve gets.
    autocast : type that extraction computes in, where it is not float32.
    """

    data: Mapping[str, str]
    split_seed: int
    holdout: float
    rank_threshold: float
    weights_files: Mapping[str, str]
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
        if backbone.recipe is None:
            tag = self.weights_files.get(backbone.pretraining, backbone.pretraining)
            code = self._code(f"model {backbone.architecture}")
            return content_key("weights", architecture=backbone.architecture, pretraining=tag, **code)
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


# ---------------------------------------------------------------------------------------------- derived columns


def variables(backbone: Backbone) -> dict[str, Any]:
    """Grid variables of a backbone as table columns; what does not apply is None."""
    row = {key: getattr(backbone, key) for key in DESIGN_KEYS}
    recipe = backbone.recipe.model_dump() if backbone.recipe else dict.fromkeys(RECIPE_KEYS)
    return row | recipe | {EPOCH: backbone.epoch}


def derived(backbone: Backbone, id_images: int | None) -> dict[str, Any]:
    """Variables that follow from a backbone (protocol §3): family, stem, depth, φ, γ, parameters.

    Parameters
    ----------
    id_images : images the weights were trained on, None if unknown (then γ is None too).
    """
    about = facts.architecture(backbone.architecture)
    parameters = facts.parameters(
        backbone.architecture, classes=backbone.id_classes, width=backbone.width, resolution=backbone.resolution
    )
    return {
        "family": about.family,
        "stem": about.stem,
        "depth": about.depth,
        "spatial_reduction": about.spatial_reduction,
        "parameters": parameters,
        "id_images": id_images,
        "overparametrization": parameters / id_images if id_images else None,
    }
