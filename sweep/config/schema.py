"""The configuration as frozen, documented models.

Only shapes and types are checked here; what needs knowledge of the catalogue (does this architecture exist,
has that dataset so many classes) is in :mod:`sweep.study.check`, and reading YAML in :mod:`sweep.config.read`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, create_model

_LARGEST = 2**31 - 1  # what an integer column of the table holds
PositiveInt = Annotated[int, Field(strict=True, gt=0, le=_LARGEST)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
ManyImages = Annotated[int, Field(strict=True, gt=0, lt=2**63)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Smoothing = Annotated[float, Field(strict=True, ge=0, lt=1)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
All = Literal["all"]
Native = Literal["native"]
# Solvers that draw nothing at random and know no learning rate, with the L2 penalties they try where none is given
CONVERGED = "converged"  # the solver that chooses one of its penalties itself; for the others each is a probe
PENALTIES: Mapping[str, tuple[float, ...]] = {
    CONVERGED: (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    "lbfgs": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "ridge": (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3),
}
NO_PENALTY_KEYS: tuple[str, ...] = ("lr", "epochs", "batch_size")  # of a probe recipe, that these solvers do not read
AUTO_FOLDS, FEW_HELDOUT = 5, 500
AUTO = "auto"  # of AdamW's epochs: until held-out loss has not improved for PATIENCE of them, at most MOST_EPOCHS
PATIENCE, MOST_EPOCHS = 10, 300
Role = Literal["treatment", "nuisance", "replicate"]
SCRATCH = "scratch"
Autocast = Literal["float16", "bfloat16"]
LAYERS: tuple[str, ...] = ("conv", "blocks", "stages", "modules")  # kinds of layers that have a name
Pooling = Literal["default", "2x2", "mean", "class", "class+mean", "max", "gem"]
Norm = Literal["none", "model"]
Standardize = Literal["none", "feature"]
ViewName = Literal["study", "exact", "weights"]  # how images are resized and cropped for evaluation


def _as_tuple(value: Any) -> Any:
    """Let a single value stand for a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


T = TypeVar("T")
Some = Annotated[tuple[T, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class Model(BaseModel):
    """Base of every part of a config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_ratio(value: Any) -> Any:
    """Let 256/224 stand for its value."""
    found = re.fullmatch(r"\s*([1-9]\d{0,4})\s*/\s*([1-9]\d{0,4})\s*", value) if isinstance(value, str) else None
    return int(found[1]) / int(found[2]) if found else value


class Zoom(Model):
    """An evaluation view by its numbers; as text it is what the table says of it."""

    resize: Annotated[Positive, BeforeValidator(_as_ratio)]  # of the resolution, 256/224 say
    crop: Literal["center", "squash", "border"] = "center"  # which side is resized to it: shorter, both, longer

    def __str__(self) -> str:
        return f"resize {self.resize:.9g} {self.crop}"


Seen = Annotated[
    Annotated[ViewName, Tag("view name")] | Annotated[Zoom, Tag("view numbers")],
    Discriminator(lambda value: "view numbers" if isinstance(value, Mapping | Zoom) else "view name"),
]


class Range(Model):
    """Bounds, both included, between which a recipe search draws; whole numbers for a recipe key that takes them."""

    low: NonNegative
    high: Positive
    log: bool = Field(default=False, strict=True)  # evenly on a logarithmic scale


@dataclass(frozen=True)
class Column:
    """What a recipe key means, beside its type and default.

    Attributes
    ----------
    description : of the table's column.
    search : what a recipe search draws from where the config only names the key; None: it cannot be searched.
    new : came after keys of weights were first made: it is part of a key only where it is not at its default, so that
        keys older than the choice stay as they are.
    """

    description: str
    search: Range | tuple[Any, ...] | None = None
    new: bool = False


class Recipe(Model):
    """How a backbone is trained on its ID dataset ([H24] A.3, protocol §4).

    This is the one place that declares a recipe key: type, default, meaning and range of search. Blocks, rules and
    searches take it from here, and so do the table's columns.
    """

    epochs: Annotated[
        PositiveInt,
        Column("ID training epochs; like all recipe columns null for downloaded weights", (50, 100)),
    ] = 100
    lr: Annotated[Positive, Column("ID training peak learning rate (AdamW)", Range(low=1e-4, high=3e-2, log=True))] = (
        1e-2
    )
    weight_decay: Annotated[
        NonNegative, Column("ID training weight decay (AdamW, decoupled)", Range(low=1e-3, high=1e-1, log=True))
    ] = 5e-2
    batch_size: Annotated[PositiveInt, Column("ID training batch size, images", (128, 256, 512))] = 512
    label_smoothing: Annotated[Smoothing, Column("ID training label smoothing", (0.0, 0.1))] = 0.1
    warmup_epochs: Annotated[NonNegativeInt, Column("epochs of linear warm-up before the cosine decay", (0, 5))] = 5
    train_on: Annotated[
        Literal["fit", "all"],
        Column("'fit': ID training without the held-out part; 'all': on every training image"),
    ] = "fit"
    checkpoint_on: Annotated[
        Literal["heldout", "test", "last"],
        Column("what chose the kept epoch: 'heldout' part, 'test' set ([H24]) or the 'last' epoch"),
    ] = "heldout"
    data_parallel: Annotated[PositiveInt, Column("processes that shared every batch of ID training", new=True)] = 1


def declared(key: str) -> Column:
    """What a recipe key means, as :class:`Recipe` declares it."""
    return next(part for part in Recipe.model_fields[key].metadata if isinstance(part, Column))


class Probe(Model):
    """How one linear probe is fitted ([H24] A.4, protocol §6)."""

    solver: str = "adamw"  # a probe of the register: ours, or a plug-in's
    epochs: PositiveInt | Literal["auto"] = 30
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    batch_size: PositiveInt = 128
    label_smoothing: Smoothing = 0.1
    standardize: Standardize = "none"  # "none" is [H24]; "feature": train mean 0, variance 1
    penalties: tuple[NonNegative, ...] = ()  # of converged: the path on which its L2 penalty is chosen
    folds: PositiveInt = 1  # of converged: how many times the training images are cross-fitted; 1: they are not
    check: Share = 0.0  # of the layers, that are fitted once more, to convergence

    @property
    def identity(self) -> dict[str, Any]:
        """What keys contain: all that decides the probe's numbers."""
        unread = {*NO_PENALTY_KEYS} if self.solver in PENALTIES else set()
        unread |= {"folds"} if self.folds == 1 else set()  # keys older than the choice stay as they are
        unread |= set() if self.check else {"check"}
        parts = self.model_dump(exclude=unread | {"weight_decay" if self.solver == CONVERGED else "penalties"})
        if parts.get("epochs") == AUTO:
            parts |= {"epochs": [AUTO, PATIENCE, MOST_EPOCHS]}
        return parts

    @property
    def most_epochs(self) -> int:
        """Passes over the training images after which a solver that takes steps ends."""
        return self.epochs if isinstance(self.epochs, int) else MOST_EPOCHS


class ProbeSection(Model):
    """The ``probe`` part of a config: how the probes of a curve are fitted, and at which epochs of ID training."""

    solver: str = CONVERGED
    epochs: PositiveInt | Literal["auto"] = 30  # of adamw; auto: each layer until its held-out loss stays
    lr: Some[Positive] = (1e-3,)  # several: a probe for each, chosen on held-out data
    weight_decay: Some[NonNegative] | None = None  # likewise; the penalties of other solvers. Default 0, or PENALTIES
    batch_size: PositiveInt = 128
    label_smoothing: Smoothing | None = None  # default 0 for converged, else 0.1
    standardize: Standardize | None = None  # default feature for converged, else none
    seeds: PositiveInt = 1  # replicates of each probe: initial weights and batch order
    # of converged: training images are scored by fits without their fold, and choose the peak layer; 1: held-out ones
    # alone do; auto: AUTO_FOLDS where these are fewer than FEW_HELDOUT
    folds: PositiveInt | Literal["auto"] = "auto"
    check: Share = 0.0  # of the layers, chosen by the curve's key, that are fitted once more, to convergence
    at_epochs: Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_as_tuple)] = ()  # 0: initial weights


class RecipeRule(Model):
    """An ID-training recipe for the backbones that ``when`` describes; later ones win over earlier ones."""

    when: Mapping[str, Some[Any]]
    recipe: Mapping[str, Any] = Field(default_factory=dict)


class Rule(RecipeRule):
    """Settings for the backbones that ``when`` describes; later rules win over earlier ones."""

    probe: Mapping[str, Any] = Field(default_factory=dict)


class Design(Model):
    """The keys of a block that are no recipe keys; :data:`Block` has those too."""

    architecture: Some[str]
    id_dataset: Some[str] | None = None  # default for weights: the last of what they were trained on
    id_classes: Some[PositiveInt | All] = ("all",)
    images_per_class: Some[PositiveInt | All] = ("all",)
    resolution: Some[PositiveInt | Native] = (32,)  # native: that of the weights
    augmentation: Some[str] | None = None  # default "off"; must be absent with downloaded weights
    pretraining: Some[str] = (SCRATCH,)
    seed: Some[NonNegativeInt] = (0,)
    width: Some[Positive] = (1.0,)
    pooling: Some[Pooling] = ("default",)  # of a layer's output; default: 2x2 of maps, mean of the patches of tokens
    norm: Some[Norm] = ("none",)  # before the pooling; model: the network's own last norm
    evaluation_view: Some[Seen] | None = None  # instead of the top-level one
    probe_datasets: tuple[str, ...] | None = None  # OOD sets of this block instead of the top-level ones


def _varied() -> dict[str, Any]:
    """Every recipe key as a block has it: a value or a list of values; None: the block does not vary it."""
    hints = get_type_hints(Recipe, include_extras=True)
    return {key: (Some[hints[key]] | None, None) for key in Recipe.model_fields}  # type: ignore[valid-type]


class Block(create_model("_Block", __base__=Design, **_varied())):  # type: ignore[misc]
    """One product block of the grid: every list is crossed with every other. Any recipe key may be varied too."""


class GroupList(Model):
    """A list of which images belong together: a CSV file with a head."""

    list: str  # its path, relative to data_root
    column: str  # the one that names an image's group
    image: str | None = None  # the one that names the image, by its path or an end of it; default: the first


class DatasetEntry(Model):
    """A dataset of this config: a built-in or registered generator, an ImageFolder tree / tar, or another source."""

    path: str | None = None  # tree or .tar/.tar.gz, or directory of the source's files; relative to data_root
    generator: str | None = None  # a built-in or registered dataset under another name or with other parameters
    source: str | None = None  # torchvision/NAME, hfds/NAME (Hugging Face), hfds or wds (webdataset) with a path
    download: bool = Field(default=False, strict=True)  # torchvision, Hugging Face: fetch what is not there
    train_split: str | None = None  # hfds, wds; default "train" and "test"
    test_split: str | None = None
    image_key: str | None = None  # hfds: columns; wds: endings of the image, field of the json; default: timm's
    label_key: str | None = None
    classes: PositiveInt | None = None
    train: PositiveInt | None = None  # declared sizes let --plan count without the files
    test: PositiveInt | None = None
    train_per_class: PositiveInt | None = None  # built-in: how many to make; others: at most so many
    test_per_class: PositiveInt | None = None
    size: PositiveInt | None = None  # px, built-ins only
    seed: NonNegativeInt = 0
    test_fraction: Fraction = 0.2  # for a tree without train/ and test/
    groups: str | GroupList | None = None  # what splits never part: a regular expression on file names, or a list
    background: Literal["white", "grey", "black"] = "white"  # what transparent images lie on


Channels = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


class TrainingImages(Model):
    """What weights were trained on, where a user knows it, or knows it better; no part of any key."""

    corpus: str | None = None  # one that the program knows brings the rest
    images: ManyImages | None = None  # for γ
    classes: PositiveInt | None = None
    objective: str | None = None


def _as_training_images(value: Any) -> Any:
    """A number alone is of images, a word alone is a corpus."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"images": value}
    return {"corpus": value} if isinstance(value, str) else value


ByArchitecture = str | Mapping[str, str]  # one for all, or architecture → its own


class WeightsEntry(Model):
    """A local checkpoint, or weights of timm or torchvision, which ``pretraining`` may name; one of the first three."""

    path: ByArchitecture | None = None  # a checkpoint, or the index of one in parts; relative to data_root
    timm: ByArchitecture | None = None  # a tag of timm, e.g. lvd142m
    torchvision: ByArchitecture | None = None  # e.g. ResNet50_Weights.IMAGENET1K_V2
    key: str | None = None  # place of the weights in the file, e.g. model_ema, where it holds several; parts by dots
    key_map: Mapping[str, str] = Field(default_factory=dict)  # regular expression → replacement, in this order
    mean: Channels | None = None  # of the pixels in [0, 1] that the weights expect; default: that of timm, torchvision
    std: Channels | None = None
    resolution: PositiveInt | None = None  # input side that `resolution: native` stands for
    title: str | None = None
    trained_on: Annotated[TrainingImages, BeforeValidator(_as_training_images)] | None = None


class Resources(Model):
    """What one backbone's task takes. ``auto`` is resolved against the cluster before submitting."""

    cpus: PositiveInt | Literal["auto"] = "auto"  # auto: beside a GPU its share of the node's, else 1, a task per core
    gpus: NonNegative | Literal["auto"] = "auto"
    threads: PositiveInt | Literal["auto"] = 1  # they order sums: auto is settled by a sweep's first run, in its plan
    max_in_flight: PositiveInt | Literal["auto"] = "auto"
    wait_for_nodes: bool = Field(default=False, strict=True)  # the nodes come later: a cluster that scales from zero
    retries: NonNegativeInt = 3  # dead workers, I/O errors
    loader_workers: NonNegativeInt | Literal["auto"] = "auto"  # processes that augment training images; auto: cpus − 1
    memory: Fraction = 0.7  # of what is free: what embeddings on the host and probes on the device may take


Space = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Some[Any], Tag("choices")],
    Discriminator(lambda value: "range" if isinstance(value, Mapping | Range) else "choices"),
]


def _declared_ranges(value: Any) -> Any:
    """A list of recipe keys stands for the ranges that :class:`Recipe` declares; the checks name the unknown ones."""
    if not isinstance(value, list | tuple):
        return value
    ranges = {key: declared(key).search for key in Recipe.model_fields}
    return {str(key): ranges.get(str(key)) or (None,) for key in value}


class Search(Model):
    """A search for ID-training recipes with ``sweep/tune.py``; the sweep itself does not read it."""

    recipe: Annotated[Mapping[str, Space], BeforeValidator(_declared_ranges), Field(min_length=1)]
    per: Annotated[tuple[str, ...], Field(min_length=1)] = ("architecture", "id_dataset", "resolution")
    trials: Annotated[int, Field(strict=True, ge=2)] = 16  # for each of these, with the recipe of the config as one
    grace_epochs: PositiveInt = 1  # no trial is stopped before
    reduction_factor: Annotated[int, Field(strict=True, ge=2)] = 3  # ASHA: one trial in so many goes on
    trials_per_gpu: PositiveInt = 1
    seed: NonNegativeInt = 0


class Config(Model):
    """A sweep: what is trained, on what, how, and on which datasets every layer is probed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    grid: Annotated[tuple[Block, ...], Field(min_length=1)]
    probe_datasets: tuple[str, ...] = ()  # OOD; the ID dataset is always probed as well
    imports: tuple[str, ...] = ()  # modules that register plug-ins, see sweep.plugins
    import_path: str | None = None  # where these are, relative to the config file; default: its directory
    statistics: tuple[str, ...] = ()  # registered statistics that become columns of the table
    recipe: Recipe = Recipe()
    probe: ProbeSection = ProbeSection()
    recipes: tuple[RecipeRule, ...] = ()  # in a file: its path, relative to the config; the config's own rules win
    rules: tuple[Rule, ...] = ()
    search: Search | None = None
    roles: Mapping[str, Role] = Field(default_factory=dict)
    adjust: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)  # report: variable → confounders held equal
    datasets: Mapping[str, DatasetEntry] = Field(default_factory=dict)
    weights: Mapping[str, WeightsEntry] = Field(default_factory=dict)
    # which layers are probed, of all architectures or by architecture: one of LAYERS, or a regular expression on module
    # paths; default: blocks of transformers, convolutions of others ([H24])
    layers: str | Mapping[str, str] = Field(default_factory=dict)
    data_root: str | None = None  # default: the directory of the config file
    cache_dir: str | None = None  # node-local scratch; default $TUNNEL_SWEEP_CACHE or ~/.cache/tunnel-sweep
    cache_limit: Positive | None = None  # GB of decoded images in it; what was used longest ago makes room for more
    # study: to 256/224 of the resolution, then the centre ([H24]); exact: to the resolution; weights: as timm or
    # torchvision evaluate them; or {resize: 256/224, crop: center}. Default: weights for downloaded ones where these
    # say it, else study
    evaluation_view: Seen | None = None
    holdout: Fraction = 0.1  # of each training set; chooses checkpoint and probe epoch
    split_seed: NonNegativeInt = 0  # which classes and images a subset takes
    rank_threshold: Fraction = 1e-3  # [M23]: singular values above this share of the largest count
    autocast: Autocast | None = None  # extraction in this type where torch deems it safe: faster, less exact
    keep_embeddings: bool = False  # keep float16 embeddings in the cache directory for other probe recipes
    keep_probes: Literal["best", "all"] | None = None  # weights of each curve's best layer's probe, or of all
    resources: Resources = Resources()


RECIPE_KEYS: tuple[str, ...] = tuple(Recipe.model_fields)
PROBE_KEYS: tuple[str, ...] = tuple(Probe.model_fields)
DESIGN_KEYS: tuple[str, ...] = (
    "architecture",
    "id_dataset",
    "id_classes",
    "images_per_class",
    "resolution",
    "augmentation",
    "pretraining",
    "seed",
    "width",
    "pooling",
    "norm",
    "evaluation_view",
)
GRID_VARIABLES: tuple[str, ...] = DESIGN_KEYS + RECIPE_KEYS
# what follows from an architecture and its training images; variables of the report too
DERIVED: tuple[str, ...] = ("family", "stem", "depth", "spatial_reduction", "overparametrization")
EPOCH = "epoch"  # a variable of the table that probe.at_epochs varies, not the blocks
DEFAULT_ROLES: Mapping[str, Role] = {"seed": "replicate"}
