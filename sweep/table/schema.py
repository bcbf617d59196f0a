"""The columns of the probe table: one row per linear probe, every field typed and described.

The schema is written, never inferred: every fragment carries every column, so a grid that grows by a variable
still reads as one table in pandas and DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from sweep.base.errors import UserError
from sweep.config import DEFAULT_ROLES, EPOCH, GRID_VARIABLES, INTERVENTION, Recipe, declared

SCHEMA_VERSION = 2  # 2: labels are joined at export

_text, _int, _long, _real, _flag = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()


def _recipe_columns() -> list[tuple[str, pa.DataType, str]]:
    """Columns of the recipe keys, as :class:`sweep.config.Recipe` declares them."""
    types = {int: _int, float: _real, str: _text}
    return [(key, types[type(default)], declared(key).description) for key, default in Recipe().model_dump().items()]


# name, type, unit and meaning; grouped as the data dictionary of the README prints them
GROUPS: dict[str, list[tuple[str, pa.DataType, str]]] = {
    "Keys": [
        (
            "curve_key",
            _text,
            "content key of the curve (backbone × probe dataset × probe recipe); names its fragment",
        ),
        ("embedding_key", _text, "content key of the embeddings the probe was fitted on"),
        ("weights_key", _text, "content key of the backbone's weights"),
        ("backbone_key", _text, "tells the plan's backbones apart: hash of weights_key and the grid variables"),
    ],
    "Grid variables": [
        ("architecture", _text, "backbone architecture, built-in or timm name"),
        ("id_dataset", _text, "in-distribution (ID) dataset of the backbone; the weights' corpus where none is named"),
        ("id_classes", _int, "number of ID classes; null if unknown"),
        ("images_per_class", _int, "ID training images per class asked for; null: all there are"),
        ("resolution", _int, "side of the backbone's input, px"),
        ("augmentation", _text, "augmentation policy of ID training; null for downloaded weights"),
        ("pretraining", _text, "'scratch', or the name of the downloaded / local weights"),
        ("seed", _int, "replicate: initial weights, batch order, augmentation and probe initialisation"),
        ("width", _real, "multiplier of the architecture's channels"),
        ("pooling", _text, "pooling asked for; default: 2x2 of maps, mean of the patches of tokens"),
        ("norm", _text, "'none', or 'model': the network's own last norm stands before the pooling"),
        ("evaluation_view", _text, "'study' ([H24]), 'exact' (no zoom), 'weights' (their own) or its numbers"),
        *_recipe_columns(),
        (EPOCH, _int, "ID training epochs before this probe (probe.at_epochs), 0: initial weights; null: kept epoch"),
        (INTERVENTION, _text, "which layers were set to what after training (intervene); null: none"),
    ],
    "Derived from the backbone": [
        ("family", _text, "CNN, ViT (most blocks attend) or MLP; a plug-in may have another"),
        ("stem", _int, "kernel side of the first convolution, or ViT patch side, px"),
        ("depth", _int, "layers in the architecture's name ([H24] Table 1): 11, 17, 18, 34, 12, 18"),
        (
            "spatial_reduction",
            _real,
            "φ: output side / input side of the first stage; 1.0 by convention where patches are tokens",
        ),
        ("view", _text, "how images were resized and cropped by that, px"),
        ("parameters", _long, "trainable parameters with the ID head"),
        ("id_images", _long, "images the weights were trained on; null if unknown"),
        ("overparametrization", _real, "γ = parameters / id_images"),
        ("corpus", _text, "what the weights were trained on, in order; trained here: the ID dataset; null if unknown"),
        ("corpus_classes", _int, "classes of the last labels they were trained with; null if none or unknown"),
        ("objective", _text, "how: supervised, language-image, self-supervised, …, in order; null if unknown"),
        (
            "weights_augmentation",
            _text,
            "of downloaded weights: crop, crop+flip, auto, mixed, views; null if unknown or trained here",
        ),
    ],
    "Probe dataset": [
        ("dataset", _text, "dataset the probe was fitted and tested on"),
        ("is_id", _flag, "whether that is the backbone's ID dataset"),
        (
            "fit_on",
            _text,
            "'id': fitted on the ID dataset's images and tested here; 'own' (null in older tables): here",
        ),
        ("dataset_fingerprint", _text, "hash of the dataset's content"),
        ("classes", _int, "classes of the probe"),
        ("chance", _real, "1 / classes"),
        ("n_train", _int, "training images of the full fit"),
        (
            "n_heldout",
            _int,
            "of these, images held out of the selection fit; under train_on 'all' the ID ones were trained on",
        ),
        ("n_test", _int, "test images"),
        ("skipped_images", pa.list_(_text), "images that could not be read, with the reason"),
    ],
    "Layer": [
        ("layer", _int, "index of the layer, 1 is the first"),
        ("layer_name", _text, "module path in the network"),
        ("layer_point", _text, "what it is: conv, block, stage, a part of a block (norm 1, attention, …) or pattern"),
        ("layer_pooling", _text, "how its output was pooled: 2x2, mean, class, class+mean, max, gem; none: a vector"),
        ("layer_width", _int, "numbers in its embedding, D"),
        (
            "extraction_precision",
            _text,
            "arithmetic of the forward pass: float32, tf32, bfloat16, float16; null: older",
        ),
        (
            "float16_loss",
            _real,
            "share of a feature's deviation that rounding to float16 takes, median of the layer's features over the "
            "first training images; above 0.02 the layer is kept in float32; null: older, or all images alike",
        ),
        ("float16_loss_worst", _real, "the same share of the feature that loses most, at most 1"),
        (
            "layer_parameters",
            _long,
            "parameters up to and with it, in the order in which the network lists its modules",
        ),
        ("position", _real, "(layer − 1) / (layers − 1), in [0, 1]"),
        ("is_penultimate", _flag, "whether it is the last probed layer"),
        ("rank", _int, "numerical rank of the training embeddings' covariance ([M23])"),
        ("cka_first", _real, "linear CKA of the training embeddings with those of the first layer, in [0, 1]"),
        ("cka_last", _real, "linear CKA with the last layer, in [0, 1]"),
        ("cka_first_debiased", _real, "cka_first from unbiased HSIC: comparable between datasets of different size"),
        ("cka_last_debiased", _real, "cka_last from unbiased HSIC"),
        ("within_variance", _real, "trace of the training embeddings' covariance within classes, Σ_W"),
        ("between_variance", _real, "trace of the covariance of the class means, Σ_B; the two add up to the total"),
        ("nc1", _real, "neural collapse: tr(Σ_W Σ_B⁺) / classes; 0 is collapsed, null if the class means are equal"),
    ],
    "Accuracies, in [0, 1]": [
        ("top1", _real, "test top-1 of the full fit at the epoch the held-out part chose (the default)"),
        ("top1_last", _real, "test top-1 of the full fit after the last epoch"),
        ("top1_best", _real, "highest test top-1 over epochs: the paper's protocol, optimistic"),
        ("top5", _real, "test top-5 of the full fit at the chosen epoch"),
        ("heldout_top1", _real, "held-out top-1 of the selection fit at the chosen epoch"),
        ("train_top1", _real, "training top-1 of the full fit after the last epoch"),
        (
            "test_loss",
            _real,
            "test cross-entropy of the full fit at the chosen epoch, nats, without smoothing",
        ),
        ("heldout_loss", _real, "held-out cross-entropy of the selection fit at the chosen epoch, nats"),
        ("train_loss", _real, "training cross-entropy of the full fit after the last epoch, nats"),
        (
            "epoch_chosen",
            _int,
            "epoch with the highest held-out top-1, then the lowest held-out loss; 1 is the first",
        ),
        ("epoch_best", _int, "epoch of top1_best"),
        ("top1_epochs", pa.list_(pa.float32()), "test top-1 of the full fit after every epoch"),
        (
            "heldout_top1_epochs",
            pa.list_(pa.float32()),
            "held-out top-1 of the selection fit after every epoch",
        ),
        (
            "correct",
            pa.binary(),
            "numpy.packbits over test images in order: right at the chosen epoch or not",
        ),
        (
            "heldout_correct",
            pa.binary(),
            "numpy.packbits over held-out images in order: right by the selection fit at the chosen epoch or not",
        ),
        (
            "crossfit_top1",
            _real,
            "top-1 on all training images, each by a fit without its fold (probe.folds); null: not cross-fitted",
        ),
        ("crossfit_loss", _real, "cross-entropy of the same, nats"),
        ("crossfit_correct", pa.binary(), "numpy.packbits over training images in order: right by that fit or not"),
        ("problem", _text, "why this probe has no accuracies; null when it has"),
        (
            "backbone_heldout_top1",
            _real,
            "held-out top-1 of the backbone's own classifier; null for downloaded weights",
        ),
        (
            "backbone_test_top1",
            _real,
            "ID test top-1 of the backbone's own classifier; null for downloaded weights",
        ),
        (
            "head_refit_top1",
            _real,
            "ID test top-1 with the classifier alone trained anew, to convergence; null but under an intervention",
        ),
        ("backbone_epoch", _int, "epoch whose weights were probed; null for downloaded weights"),
    ],
    "Probe recipe": [
        ("probe_solver", _text, "how the probe was fitted: converged, adamw ([H24]), lbfgs, ridge, or registered"),
        (
            "probe_epochs",
            _int,
            "epochs over the training embeddings; null where each ends by itself, and but for adamw and registered",
        ),
        ("probe_lr", _real, "learning rate, constant; null but for adamw and registered"),
        (
            "probe_weight_decay",
            _real,
            "weight decay (decoupled); else the L2 penalty λ of ½ λ ‖W‖², which converged chose",
        ),
        ("probe_batch_size", _int, "batch size, embeddings; null but for adamw and registered"),
        ("probe_label_smoothing", _real, "label smoothing"),
        ("probe_standardize", _text, "'none' ([H24]) or 'feature': training mean 0 and variance 1"),
        ("probe_folds", _int, "folds of the cross-fit, whose images choose the peak layer; 1: held-out images do"),
        (
            "probe_seed",
            _long,
            "seed of batch order and weights, from dataset, seed and replicate; null: nothing is drawn",
        ),
        ("probe_seed_index", _int, "replicate of the probe (probe.seeds), 0 is the first"),
        (
            "chosen",
            _flag,
            "whether held-out top-1 chose this learning rate and weight decay for the layer; of replicates the first",
        ),
    ],
    "Probe fit": [
        (
            "converged",
            _flag,
            "whether the gradient of both fits, and of folds, got as small as the solver asks for; null: not looked at",
        ),
        (
            "gradient_norm",
            _real,
            "norm of the full fit's gradient at the end, over that at weights of zero: 1 is untrained, 0 the minimum",
        ),
        ("epochs_run", _int, "passes of the full fit over the training embeddings"),
        (
            "check_top1",
            _real,
            "test top-1 of this layer fitted once more, to convergence (probe.check); null: not among the layers drawn",
        ),
        ("check_gain", _real, "check_top1 − top1: what fitting to convergence would have changed"),
        (
            "penalty_at_end",
            _flag,
            "whether the chosen penalty is the weakest or strongest tried, although the path was extended",
        ),
        ("penalties", pa.list_(_real), "L2 penalties that the selection fit was made with, the strongest first"),
        ("penalty_losses", pa.list_(_real), "held-out cross-entropy at each of them, nats; the lowest chooses"),
    ],
    "Cost": [
        ("pretrain_seconds", _real, "ID training of the backbone up to its epoch, s; null for downloaded weights"),
        ("embed_seconds", _real, "forward passes over train and test of this curve, all layers, s"),
        ("probe_seconds", _real, "fitting all probes of this curve, s"),
        ("pretrain_peak_bytes", _long, "peak memory of ID training, bytes (device, or the process on CPU)"),
        ("embed_peak_bytes", _long, "peak memory up to the end of extraction, bytes"),
        ("probe_peak_bytes", _long, "peak memory up to the end of fitting, bytes"),
    ],
    "Provenance": [
        ("git_commit", _text, "commit of the code, '+dirty' if changed, 'unknown' outside a checkout"),
        ("versions", _text, "library versions, JSON"),
        ("device", _text, "processor that did the work"),
        ("host", _text, "machine"),
        ("finished_at", pa.timestamp("us", tz="UTC"), "when the curve was finished"),
    ],
}

# Columns that differ between two undisturbed runs of the same sweep; everything else must not.
RUN_COLUMNS: tuple[str, ...] = tuple(name for group in ("Cost", "Provenance") for name, _, _ in GROUPS[group])


# Labels: what a fragment's key does not determine. They are joined at export, from the plan of the exporting config.
LABELS: tuple[str, ...] = (
    "backbone_key",
    *(name for group in ("Grid variables", "Derived from the backbone") for name, _, _ in GROUPS[group]),
    "dataset",
    "is_id",
)


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    metadata = {"description": description}
    if name in (*GRID_VARIABLES, EPOCH, INTERVENTION):
        metadata["role"] = DEFAULT_ROLES.get(name, "treatment")
    return pa.field(name, kind, metadata=metadata)


SCHEMA: pa.Schema = pa.schema(
    [_field(*column) for columns in GROUPS.values() for column in columns],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)


FRAGMENT_SCHEMA: pa.Schema = pa.schema(
    [
        *(field for field in SCHEMA if field.name not in LABELS),
        _field(
            "trained_images", _long, "images of the backbone's ID training in this sweep; null for downloaded weights"
        ),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)


def statistic_field(name: str, description: str) -> pa.Field:
    """Column of a registered statistic; it stands after those of :data:`SCHEMA`, and says what it is."""
    return pa.field(name, _real, metadata={"description": description, "registered": "statistic"})


def refuse_taken(statistics: Iterable[str]) -> None:
    """UserError if a registered statistic has the name of a column that the table has anyway."""
    for name in statistics:
        if name in SCHEMA.names:
            raise UserError(f"statistics: {name!r} is a column of the table already: choose another name")


def is_statistic(field: pa.Field) -> bool:
    """Whether a column of a file is that of a registered statistic."""
    return (field.metadata or {}).get(b"registered") == b"statistic"


FAILURE_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("curve_key", _text, metadata={"description": "content key of the curve that is missing"}),
        pa.field("attempt", _text, metadata={"description": "identifier of this attempt"}),
        pa.field("backbone", _text, metadata={"description": "label of the backbone"}),
        pa.field("dataset", _text, metadata={"description": "probe dataset"}),
        pa.field(
            "stage",
            _text,
            metadata={
                "description": "import, pretrain, data, embed, probe, write, keep, measure, worker; tasks, fine-tune"
            },
        ),
        pa.field("exception", _text, metadata={"description": "type of the exception"}),
        pa.field("message", _text, metadata={"description": "its message"}),
        pa.field("transient", pa.bool_(), metadata={"description": "whether another attempt may succeed"}),
        pa.field("traceback", _text, metadata={"description": "the last lines of the traceback"}),
        pa.field("seconds", _real, metadata={"description": "time spent before it failed, s"}),
        pa.field("host", _text, metadata={"description": "machine"}),
        pa.field("failed_at", pa.timestamp("us", tz="UTC"), metadata={"description": "when"}),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)


def data_dictionary() -> str:
    """The schema as Markdown, for the README."""
    return dictionary_of(GROUPS)


def dictionary_of(groups: Mapping[str, Sequence[tuple[str, pa.DataType, str]]]) -> str:
    """Columns as Markdown: one table per group."""
    lines: list[str] = []
    for group, columns in groups.items():
        lines += [f"**{group}**", "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {kind} | {description} |" for name, kind, description in columns]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
