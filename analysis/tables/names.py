"""Names that the pages use: targets and the variables known by name. Any other column works too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One outcome of an experiment.

    Attributes
    ----------
    phrase : the label as the subject of a sentence.
    scale : the model is fitted to value / scale ([H24] A.9 divides % retained by 100).
    unit, decimals : how the page prints a value or an effect.
    more, less : what a higher, a lower value means, in plain words.
    """

    name: str
    label: str
    phrase: str
    scale: float
    unit: str
    decimals: int
    more: str
    less: str
    meaning: str


TARGETS: Mapping[str, Target] = {
    "retained": Target(
        "retained",
        "% of OOD accuracy retained",
        "the share of OOD accuracy retained",
        100.0,
        "points",
        1,
        "weaker tunnel",
        "stronger tunnel",
        "Accuracy of a linear probe on the last layer, as a percentage of the best layer's, on a dataset the "
        "backbone was not trained on. 100 means no tunnel; more, that the last layer does better on the test images "
        "than the layer which held-out images chose.",
    ),
    "pearson": Target(
        "pearson",
        "ID–OOD Pearson correlation",
        "the ID–OOD correlation",
        1.0,
        "",
        3,
        "the curves agree more",
        "the curves agree less",
        "Correlation over layers between probe accuracy on the training (ID) dataset and on the new (OOD) one. "
        "1 means that layers good for one are good for the other.",
    ),
    "alignment": Target(
        "alignment",
        "ID/OOD alignment",
        "the ID/OOD alignment",
        1.0,
        "",
        3,
        "better on both together",
        "worse on both together",
        "Product of the last layer's accuracy above chance on the ID and on the OOD dataset.",
    ),
}


def _place(name: str, label: str, more: str, less: str, meaning: str) -> Target:
    return Target(name, label, f"the {label}", 1.0, "layers", 1, more, less, meaning)


# Outcomes that a report has only where it is asked for them (--target): places of the tunnel ([M23]), in layers
FURTHER: Mapping[str, Target] = {
    target.name: target
    for target in (
        _place(
            "tunnel_length",
            "length of the tunnel",
            "longer tunnel",
            "shorter tunnel",
            "Layers after the one where OOD accuracy peaks; 0 where the last layer is not worse than the peak.",
        ),
        _place(
            "tunnel_start",
            "start of the tunnel",
            "longer extractor",
            "shorter extractor",
            "The layer where OOD accuracy peaks, 1 is the first. Experiments without a tunnel have none, so that what "
            "makes tunnels rare also chooses which experiments count: read the length beside it.",
        ),
        *(
            _place(
                f"id_{what}_{percent}",
                f"{word} of the tunnel by the {percent} % ID rule",
                *ends,
                f"{said} that reaches {percent} % of the last layer's ID accuracy. It is the backbone's own: equal for "
                "all its OOD datasets.",
            )
            for percent in (95, 98)
            for what, word, ends, said in (
                ("start", "start", ("longer extractor", "shorter extractor"), "The first layer"),
                ("length", "length", ("longer tunnel", "shorter tunnel"), "Layers after the first one"),
            )
        ),
    )
}


@dataclass(frozen=True)
class Known:
    """What is known of a variable by its name.

    Attributes
    ----------
    part : ``architecture``, ``data`` or ``training``: the group of a sweep's own column. Other tables declare theirs.
    order : levels from low to high, where the values are words.
    """

    label: str
    part: str
    order: tuple[str, ...] = ()


KNOWN: Mapping[str, Known] = {
    "resolution": Known("input resolution (px)", "data"),
    "augmentation": Known("augmentation", "data", ("off", "on", "strong")),
    "id_classes": Known("ID classes", "data"),
    "images_per_class": Known("images per class", "data"),
    "id_dataset": Known("ID dataset", "data"),
    "id_images": Known("ID training images", "data"),
    "spatial_reduction": Known("spatial reduction φ", "architecture"),
    "stem": Known("stem size", "architecture"),
    "family": Known("family", "architecture", ("CNN", "ViT")),
    "overparametrization": Known("over-parametrization γ", "architecture"),
    "depth": Known("depth", "architecture"),
    "architecture": Known("architecture", "architecture"),
    "width": Known("width", "architecture"),
    "pretraining": Known("pretraining", "training"),
    "epochs": Known("epochs", "training"),
    "lr": Known("learning rate", "training"),
    "weight_decay": Known("weight decay", "training"),
    "batch_size": Known("batch size", "training"),
    "label_smoothing": Known("label smoothing", "training"),
    "warmup_epochs": Known("warm-up epochs", "training"),
    "objective": Known("objective", "training"),
    "weights_augmentation": Known("augmentation of the weights", "training"),
    "temperature": Known("softmax temperature", "training"),
    "mixup": Known("mixup α", "training"),
    "cutmix": Known("cutmix α", "training"),
    "label_noise": Known("label noise", "data"),
    "id_complexity": Known("complexity of ID images (bits per pixel)", "data"),
    "mixup_share": Known("share of mixup", "training"),
    "intervention": Known("layers set to", "training"),
}

OF_WEIGHTS = ("objective", "weights_augmentation")  # variables of downloaded weights; constant of those trained here
DERIVED = ("spatial_reduction", "stem", "family", "overparametrization", "depth")
PARTS = ("data", "architecture", "training")


def plural(word: str, n: float = 2) -> str:
    """Several of something that a table names: architectures, families."""
    if n == 1:
        return word
    return word[:-1] + "ies" if word.endswith("y") and word[-2:-1] not in tuple("aeiou") else word + "s"


def label(name: str) -> str:
    """Plain name of a variable; an unknown column is its own label."""
    return KNOWN[name].label if name in KNOWN else name.replace("_", " ")
