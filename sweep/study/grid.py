"""Product blocks become backbone cells and probe curves, in a fixed order."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from sweep.config import (
    AUTO_FOLDS,
    CONVERGED,
    DESIGN_KEYS,
    FEW_HELDOUT,
    PENALTIES,
    RECIPE_KEYS,
    SCRATCH,
    Block,
    Config,
    Probe,
    ProbeSection,
    Recipe,
    Shifted,
)
from sweep.data import STUDY, View, named_view, used_datasets
from sweep.models import WeightsSource, facts
from sweep.study.interventions import Intervention, intervened
from sweep.study.sources import known_corpora, tag_of, weights_source
from sweep.study.tasks import Course, course_of, task_series
from sweep.study.when import matches

WEIGHTS = "weights"  # the view of their own evaluation

NOT_KNOWN = "not known"  # corpus of weights of which nobody says what they were trained on


class Sizes(NamedTuple):
    """Classes and images of a dataset (the whole of each split)."""

    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class Backbone:
    """One pretrained network of the grid: a value, equal wherever it is built.

    ``recipe`` and ``augmentation`` are None for downloaded weights, ``weights`` is None for all others; where a config
    names no ID dataset for them, ``id_dataset`` is the weights' corpus and ``id_classes`` its classes, if known;
    ``images_per_class`` None means all; ``epoch`` None means the kept checkpoint, a number the same training run after
    so many epochs (0: before the first).
    """

    architecture: str
    id_dataset: str
    id_classes: int | None
    images_per_class: int | None
    resolution: int
    augmentation: str | None
    pretraining: str
    seed: int
    width: float
    recipe: Recipe | None
    layers_pattern: str | None = None
    epoch: int | None = None
    pooling: str = "default"
    norm: str = "none"
    weights: WeightsSource | None = None
    evaluation_view: str = STUDY
    intervention: Intervention[Backbone] | None = None

    @property
    def view(self) -> View:
        """How its images are resized and cropped: to train it without augmentation, to evaluate and to probe it."""
        return made_view(self.evaluation_view, self.resolution, self.weights)

    @property
    def head(self) -> int:
        """Classes that its own classifier is built for; one where nobody knows, for it is not probed."""
        return self.id_classes or 1

    @property
    def processes(self) -> int:
        """How many processes train it together; 1 for downloaded weights."""
        return self.recipe.data_parallel if self.recipe else 1

    @property
    def label(self) -> str:
        """Short name for people, not unique over recipes."""
        parts = [self.architecture, self.id_dataset + (f"-{self.id_classes}" if self.id_classes else "")]
        if self.images_per_class is not None:
            parts[-1] += f"x{self.images_per_class}"
        parts.append(f"{self.resolution}px")
        parts.append(self.pretraining if self.recipe is None else f"aug-{self.augmentation}")
        parts.append(f"seed {self.seed}")
        own = WEIGHTS if self.weights is not None and self.weights.kind != "file" else STUDY
        parts += [f"view {self.evaluation_view}"] * (self.evaluation_view != own)
        parts += [f"pooling {self.pooling}"] * (self.pooling != "default") + ["normed"] * (self.norm != "none")
        parts += [] if self.intervention is None else [f"({self.intervention})"]
        return " ".join(parts if self.epoch is None else [*parts, f"epoch {self.epoch}"])

    def after(self, epoch: int | None) -> Backbone:
        """The same training run at another epoch; None is its kept checkpoint."""
        return replace(self, epoch=epoch)

    @property
    def trained(self) -> Backbone:
        """The kept checkpoint of its training run, as it was trained."""
        return replace(self, epoch=None, intervention=None)

    @property
    def unpooled(self) -> Backbone:
        """The same network, whatever is made of its layers' outputs: one training serves every pooling."""
        return replace(self, pooling="default", norm="none")


@dataclass(frozen=True)
class Curve:
    """One backbone probed on one dataset: all its layers, each with every recipe and as many seeds as asked.

    The recipes differ in learning rate and weight decay only. ``shifted``: its probes are fitted on the backbone's ID
    images and tested on the dataset, which has the same classes; None: fitted on the dataset's own training part.
    """

    backbone: Backbone
    dataset: str
    probes: tuple[Probe, ...]
    probe_seeds: int = 1
    shifted: Shifted | None = None

    @property
    def is_id(self) -> bool:
        """Whether the probe dataset is the one the backbone was trained on."""
        return self.shifted is None and self.dataset == self.backbone.id_dataset

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

    The curves of its own come first, then those of the same run after each epoch of ``probe.at_epochs`` and with each
    intervention, with every pooling: one training serves them all. ``courses``: what it learns further.
    """

    backbone: Backbone
    curves: tuple[Curve, ...]
    blocks: tuple[int, ...]
    courses: tuple[Course, ...] = ()

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """The backbone with every pooling that it is probed with."""
        return tuple(dict.fromkeys(curve.backbone.after(None) for curve in self.curves))


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

    Returns
    -------
    every backbone with its curves; without the ID curve where weights come from elsewhere and their ID dataset is not
    here (:func:`sweep.data.used_datasets`).
    """
    found: dict[Backbone, tuple[dict[Curve, None], list[int], dict[Course, None]]] = {}
    merged, used, sizes = 0, frozenset(used_datasets(config)), functools.cache(sizes)
    make = functools.partial(_backbone, config, sizes=sizes, used=used)
    for number, block in enumerate(config.grid):
        for values in block_values(block):
            backbone = make(values)
            curves, blocks, courses = found.setdefault(backbone.unpooled, ({}, [], {}))
            courses |= dict.fromkeys(course_of(config, values, backbone.id_classes, recipe_of))
            merged += any(curve.backbone == backbone for curve in curves)
            blocks.append(number)
            (probes, probe_seeds), folds = probes_of(config, values), probe_section(config, values).folds
            _, epochs = asked_epochs(config, values)
            others = (replace(backbone, intervention=each) for each in intervened(config, values, make))
            for stage in (backbone, *map(backbone.after, sorted(set(epochs))), *others):
                for dataset in dict.fromkeys((backbone.id_dataset, *probe_datasets(config, block))):
                    shifted = config.shifted.get(dataset)
                    fitted = dataset if shifted is None else backbone.id_dataset
                    if fitted not in used:
                        continue  # the ID dataset of weights, which is not here
                    folded = _folded(config, stage, fitted, probes, folds, sizes)
                    curves[Curve(stage, dataset, folded, probe_seeds, shifted)] = None
    cells = (Cell(b, tuple(c), tuple(dict.fromkeys(blocks)), tuple(more)) for b, (c, blocks, more) in found.items())
    return Grid(tuple(cells), merged)


def probe_datasets(config: Config, block: Block) -> tuple[str, ...]:
    """OOD datasets of a block."""
    return config.probe_datasets if block.probe_datasets is None else block.probe_datasets


def block_values(block: Block) -> Iterable[dict[str, Any]]:
    """Every combination of a block's lists; an alias of weights is the tag it stands for, recipe keys the block does
    not vary are None.
    """
    scratch_only = {"augmentation": ("off",)}
    axes: dict[str, tuple[Any, ...]] = {}
    for key in DESIGN_KEYS + RECIPE_KEYS:
        values = getattr(block, key)
        axes[key] = values if values is not None else scratch_only.get(key, (None,))
    for combination in itertools.product(*axes.values(), task_series(block)):
        values = dict(zip((*axes, "tasks"), combination, strict=True))
        yield values | {"pretraining": tag_of(values["architecture"], values["pretraining"])}


def resolution_of(config: Config, values: Mapping[str, Any]) -> int | None:
    """Resolution of one backbone, px; ``native`` is that of its weights, None where nobody knows it."""
    if values["resolution"] != "native":
        return values["resolution"]
    source = weights_source(config, values["architecture"], values["pretraining"])
    own = source.resolution if source is not None else None
    return own or facts.architecture(values["architecture"]).native_resolution


def view_of(config: Config, values: Mapping[str, Any]) -> str:
    """How the images of one backbone are seen: as its block says, or the config; else as downloaded weights' own
    evaluation sees them. A local file says nothing of that, and who trained it here had the study's view.
    """
    said = values["evaluation_view"] or config.evaluation_view
    if said not in (None, WEIGHTS):
        return str(said)
    source = weights_source(config, values["architecture"], values["pretraining"])
    known = source is not None and source.view(32) is not None and (said == WEIGHTS or source.kind != "file")
    return WEIGHTS if known else STUDY


def made_view(name: str, resolution: int, weights: WeightsSource | None) -> View:
    """A view by its name, as it is of a backbone."""
    own = weights.view(resolution) if name == WEIGHTS and weights is not None else None
    return own or named_view(STUDY if name == WEIGHTS else name, resolution)


def id_dataset_of(config: Config, values: Mapping[str, Any]) -> str | None:
    """ID dataset of one backbone; where its block names none, the last of what its weights were trained on."""
    if values["id_dataset"] is not None:
        return values["id_dataset"]
    source = weights_source(config, values["architecture"], values["pretraining"])
    corpus = source.trained_on.corpus if source is not None and source.trained_on is not None else None
    return corpus.split(" + ")[-1] if corpus else None


def _unseen_classes(name: str, source: WeightsSource | None) -> int | None:
    """Classes of the ID dataset of weights that is not here: what is known of it, or of the weights."""
    known = known_corpora().get(name)
    trained_on = source.trained_on if source is not None else None
    return (known and known.classes) or (trained_on and trained_on.classes) or None


def _backbone(
    config: Config, said: Mapping[str, Any], sizes: Callable[[str], Sizes], used: Collection[str]
) -> Backbone:
    seen, own = view_of(config, said), id_dataset_of(config, said)
    values = {**said, "resolution": resolution_of(config, said), "evaluation_view": seen, "id_dataset": own}
    scratch = values["pretraining"] == SCRATCH
    weights = weights_source(config, values["architecture"], values["pretraining"])
    name = values["id_dataset"] or NOT_KNOWN
    total = sizes(name).classes if name in used else _unseen_classes(name, weights)
    classes = total if values["id_classes"] == "all" else values["id_classes"]
    return Backbone(
        architecture=values["architecture"],
        id_dataset=name,
        id_classes=classes // values["tasks"] if classes and isinstance(values.get("tasks"), int) else classes,
        images_per_class=None if values["images_per_class"] == "all" else values["images_per_class"],
        resolution=values["resolution"],
        augmentation=values["augmentation"] if scratch else None,
        pretraining=values["pretraining"],
        seed=values["seed"],
        width=float(values["width"]),
        recipe=recipe_of(config, values) if scratch else None,
        layers_pattern=layers_said(config, values["architecture"]),
        pooling=values["pooling"],
        norm=values["norm"],
        weights=weights,
        evaluation_view=values["evaluation_view"],
    )


def layers_said(config: Config, architecture: str) -> str | None:
    """What a config says of an architecture's layers; None for what is its default anyway."""
    of_all = config.layers if isinstance(config.layers, str) else None
    by_name = {} if isinstance(config.layers, str) else config.layers
    said = by_name.get(architecture, of_all or facts.layers_pattern(architecture))
    return None if said is not None and said == facts.architecture(architecture).points else said


def recipe_of(config: Config, values: Mapping[str, Any]) -> Recipe:
    """ID-training recipe of one backbone: defaults, then matching recipes, then rules, then the grid's own values."""
    settings: dict[str, Any] = config.recipe.model_dump()
    for rule in (*config.recipes, *config.rules):
        if matches(rule.when, values):
            settings.update(rule.recipe)
    settings.update({key: values[key] for key in RECIPE_KEYS if values[key] is not None})
    return Recipe.model_validate(settings)


def probe_section(config: Config, values: Mapping[str, Any]) -> ProbeSection:
    """The probe section that holds for one backbone: the config's own, then matching rules."""
    settings: dict[str, Any] = config.probe.model_dump()
    for rule in config.rules:
        if matches(rule.when, values):
            settings.update(rule.probe)
    return ProbeSection.model_validate(settings)


def _folded(
    config: Config,
    backbone: Backbone,
    dataset: str,
    probes: tuple[Probe, ...],
    folds: int | Literal["auto"],
    sizes: Callable[[str], Sizes],
) -> tuple[Probe, ...]:
    """Probes with as many folds as are asked for; by default where too few held-out images would choose."""
    if probes[0].solver != CONVERGED:
        return probes
    if folds == "auto":
        train = selected(backbone, dataset, sizes(dataset)).train
        folds = AUTO_FOLDS if config.holdout * train < FEW_HELDOUT else 1
    return probes if folds == 1 else _with_folds(probes, folds)


@functools.cache
def _with_folds(probes: tuple[Probe, ...], folds: int) -> tuple[Probe, ...]:
    """The same for thousands of curves, and made once."""
    return tuple(probe.model_copy(update={"folds": folds}) for probe in probes)


def selected(backbone: Backbone, dataset: str, whole: Sizes) -> Sizes:
    """Classes, training and test images of a dataset that a backbone is probed on, as if classes were balanced."""
    if dataset != backbone.id_dataset:
        return whole
    classes = backbone.head
    train = classes * whole.train // whole.classes
    if backbone.images_per_class is not None:
        train = min(train, classes * backbone.images_per_class)
    return Sizes(classes, train, classes * whole.test // whole.classes)


def probes_of(config: Config, values: Mapping[str, Any]) -> tuple[tuple[Probe, ...], int]:
    """Probe recipes of one backbone, every learning rate with every weight decay, and how many seeds of each."""
    section = probe_section(config, values)
    shared = section.model_dump(exclude={"lr", "weight_decay", "seeds", "folds", "at_epochs"}, exclude_none=True)
    penalties = section.weight_decay if section.weight_decay is not None else PENALTIES.get(section.solver, (0.0,))
    if section.solver == CONVERGED:  # one probe, which chooses among them
        fixed = {"label_smoothing": 0.0, "standardize": "feature"} | shared
        return (Probe(**fixed, lr=section.lr[0], penalties=tuple(sorted(set(penalties)))),), section.seeds
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
        if "at_epochs" in rule.probe and matches(rule.when, values):
            path = ("rules", number, "probe", "at_epochs")
            section = ProbeSection(at_epochs=rule.probe["at_epochs"])
    return path, section.at_epochs
