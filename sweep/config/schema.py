"""The configuration as frozen, documented models.

Only shapes and types are checked here; what needs knowledge of the catalogue (does this architecture exist,
has that dataset so many classes) is in :mod:`sweep.study.check`, and reading YAML in :mod:`sweep.config.read`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BeforeValidator, Discriminator, Field, Tag, create_model, model_validator

from sweep.config.continual import Continual, Intervene, Tasks, with_first_task
from sweep.config.instruments import Instrument, Reading
from sweep.config.recipe import CONVERGED, Probe, Range, Recipe, Standardize, declared
from sweep.config.shifted import Shifted, shifted_apart
from sweep.config.values import (
    All,
    Fraction,
    ManyImages,
    Model,
    Native,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Share,
    Smoothing,
    Some,
    Width,
    as_tuple,
)

Role = Literal["treatment", "nuisance", "replicate"]
SCRATCH = "scratch"
Autocast = Literal["float16", "bfloat16"]
ExtractionPrecision = Literal["float32", "tf32", "bfloat16", "float16"]
SIZES: tuple[str, ...] = ("10", "100", "all")  # of a study by name: about so many backbones, each part of the next
LAYERS: tuple[str, ...] = ("conv", "blocks", "stages", "modules")  # kinds of layers that have a name
Pooling = Literal["default", "2x2", "mean", "class", "class+mean", "max", "gem"]
Norm = Literal["none", "model"]
ViewName = Literal["study", "exact", "weights"]  # how images are resized and cropped for evaluation


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
    at_epochs: Annotated[tuple[NonNegativeInt, ...], BeforeValidator(as_tuple)] = ()  # 0: initial weights


class RecipeRule(Model):
    """An ID-training recipe for the backbones that ``when`` describes; later ones win over earlier ones."""

    when: Mapping[str, Some[Any]]
    recipe: Mapping[str, Any] = Field(default_factory=dict)


class Rule(RecipeRule):
    """Settings for the backbones that ``when`` describes; later rules win over earlier ones."""

    probe: Mapping[str, Any] = Field(default_factory=dict)


class Design(Model):
    """The keys of a block that are no recipe keys; :data:`Block` has those too."""

    block: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None  # a name, for --only
    size: Literal[10, 100, "all"] = "all"  # the smallest study that it belongs to, for --size
    architecture: Some[str]
    id_dataset: Some[str] | None = None  # default for weights: the last of what they were trained on
    id_classes: Some[PositiveInt | All] = ("all",)
    images_per_class: Some[PositiveInt | All] = ("all",)
    resolution: Some[PositiveInt | Native] = (32,)  # native: that of the weights
    augmentation: Some[str] | None = None  # default "off"; must be absent with downloaded weights
    pretraining: Some[str] = (SCRATCH,)
    seed: Some[NonNegativeInt] = (0,)
    width: Some[Width] = (1.0,)
    pooling: Some[Pooling] = ("default",)  # of a layer's output; default: 2x2 of maps, mean of the patches of tokens
    norm: Some[Norm] = ("none",)  # before the pooling; model: the network's own last norm
    evaluation_view: Some[Seen] | None = None  # instead of the top-level one
    probe_datasets: tuple[str, ...] | None = None  # OOD sets of this block instead of the top-level ones
    tasks: Tasks | None = None  # learned one after the other: in how many parts the ID classes come, or which datasets

    _first_task = model_validator(mode="before")(with_first_task)


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
    only: tuple[str, ...] = ()  # of a path: the classes that count, by name or from..to in order (synsets: a branch)
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
    loader_workers: NonNegativeInt | Literal["auto"] = "auto"  # processes for plug-ins' transforms; auto: cpus − 1
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


class Extraction(Model):
    """How embeddings are computed."""

    precision: ExtractionPrecision = "float32"  # bfloat16, float16: where torch deems it safe; tf32: of GPUs


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
    # OOD; the ID dataset is always probed as well. {name: …, labels_of: id, fit: id} is one with the ID classes, on
    # which probes of the ID dataset are tested, see Shifted
    probe_datasets: tuple[str, ...] = ()
    shifted: Mapping[str, Shifted] = Field(default_factory=dict)  # what entries of probe_datasets say besides the name
    imports: tuple[str, ...] = ()  # modules that register plug-ins, see sweep.plugins
    import_path: str | None = None  # where these are, relative to the config file; default: its directory
    statistics: tuple[str, ...] = ()  # registered statistics that become columns of the table
    # measured of every layer besides, as rows of readings.parquet (docs/instruments.md); no probe is fitted again
    instruments: Annotated[tuple[Instrument, ...], BeforeValidator(as_tuple)] = ()
    readings: Annotated[tuple[Reading, ...], BeforeValidator(as_tuple)] = ()
    recipe: Recipe = Recipe()
    probe: ProbeSection = ProbeSection()
    recipes: tuple[RecipeRule, ...] = ()  # in a file: its path, relative to the config; the config's own rules win
    rules: tuple[Rule, ...] = ()
    search: Search | None = None
    continual: Continual = Continual()  # of blocks with tasks
    intervene: tuple[Intervene, ...] = ()
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
    share_decoded: bool = Field(default=False, strict=True)  # through the store: each set is decoded on one node only
    # study: to 256/224 of the resolution, then the centre ([H24]); exact: to the resolution; weights: as timm or
    # torchvision evaluate them; or {resize: 256/224, crop: center}. Default: weights for downloaded ones where these
    # say it, else study
    evaluation_view: Seen | None = None
    holdout: Fraction = 0.1  # of each training set; chooses checkpoint and probe epoch
    split_seed: NonNegativeInt = 0  # which classes and images a subset takes
    rank_threshold: Fraction = 1e-3  # [M23]: singular values above this share of the largest count
    extraction: Extraction = Extraction()
    autocast: Autocast | None = None  # an older word for extraction.precision
    deterministic: bool = Field(default=False, strict=True)  # the same bits every time, where torch can; slower on GPUs
    keep_embeddings: bool = False  # keep float16 embeddings in the cache directory for other probe recipes
    keep_probes: Literal["best", "all"] | None = None  # weights of each curve's best layer's probe, or of all
    resources: Resources = Resources()

    @property
    def extraction_precision(self) -> ExtractionPrecision:
        """Arithmetic of the embeddings, by whichever word."""
        return self.autocast or self.extraction.precision

    _apart = model_validator(mode="before")(shifted_apart)


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
INTERVENTION = "intervention"  # likewise, that intervene varies
DEFAULT_ROLES: Mapping[str, Role] = {"seed": "replicate"}
