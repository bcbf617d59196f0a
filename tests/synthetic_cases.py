"""Tables of experiments with a known truth, each of one kind of fault that a report must not make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis.tables.experiments import Experiments
from analysis.tables.mapped import read_mapped

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A table and what its mapping says beside the columns."""

    frame: pd.DataFrame
    variables: Mapping[str, str | Mapping[str, Any]]
    more: Mapping[str, Any] = field(default_factory=dict)

    def read(self, folder: Path) -> Experiments:
        """Write table and mapping, and read them as a user's."""
        folder.mkdir(parents=True, exist_ok=True)
        self.frame.to_csv(folder / "table.csv", index=False)
        entries = {
            name: {"column": name, **({"kind": entry} if isinstance(entry, str) else entry)}
            for name, entry in self.variables.items()
        }
        spec = {
            "targets": {"retained": {"column": "retained"}}, "variables": entries, "group": "backbone",
            "dataset": "dataset", **self.more,
        }  # fmt: skip
        (folder / "mapping.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
        return read_mapped(str(folder / "table.csv"), str(folder / "mapping.yaml"))


def table(
    rng: Rng, columns: Mapping[str, Sequence[Any] | np.ndarray], datasets: int, mean_B: np.ndarray, *,
    noise: float = 4.0, slope: float = -2.0,
) -> pd.DataFrame:  # fmt: skip
    """Each backbone on every dataset: its mean, what the dataset adds, noise."""
    n = len(mean_B)
    b, d = np.repeat(np.arange(n), datasets), np.tile(np.arange(datasets), n)
    outcome = mean_B[b] + slope * (d - (datasets - 1) / 2) + rng.normal(0, noise, len(b))
    named = {name: np.asarray(values)[b] for name, values in columns.items()}
    return pd.DataFrame({"backbone": b, "dataset": d, **named, "retained": outcome})


def architectures(
    rng: Rng, *, spread: float = 8.0, augmentation: float = 14.0, depth: float = 0.0, backbone: float = 3.0
) -> Case:
    """Eight architectures with effects of their own; depth is a property of them; augmentation is crossed with it."""
    own = rng.permutation(np.repeat([0, 1], 4))
    effect = rng.normal(0, spread, 8) + depth * own
    arch, aug = np.repeat(np.arange(8), 8), np.tile([0, 1], 32)
    mean = 60 + effect[arch] + augmentation * aug + rng.normal(0, backbone, 64)
    columns = {
        "architecture": [f"net{a}" for a in arch], "depth": np.where(own == 1, 30, 10)[arch],
        "augmentation": aug, "resolution": np.tile([32, 32, 64, 64, 128, 128, 224, 224], 8),
    }  # fmt: skip
    kinds = dict.fromkeys(("depth", "augmentation", "resolution"), "ordinal")
    return Case(table(rng, columns, 8, mean), kinds, {"cluster": "architecture"})


def answering(rng: Rng, *, augmentation: float = 0.0) -> Case:
    """As above, but each architecture answers to augmentation in its own way; one depth is of one architecture only."""
    depth = rng.permutation([10, 20, 20, 20, 20, 30, 30, 30])
    own, answer = rng.normal(0, 8, 8), augmentation + rng.normal(0, 4, 8)
    arch, aug = np.repeat(np.arange(8), 8), np.tile([0, 1], 32)
    columns = {
        "architecture": [f"net{a}" for a in arch], "depth": depth[arch], "augmentation": aug,
        "resolution": np.tile([32, 32, 64, 64, 128, 128, 224, 224], 8),
    }  # fmt: skip
    mean = 60 + own[arch] + answer[arch] * aug + rng.normal(0, 3, 64)
    kinds = dict.fromkeys(("depth", "augmentation", "resolution"), "ordinal")
    return Case(table(rng, columns, 8, mean), kinds, {"cluster": "architecture"})


NETS = {  # depth, φ, stem, family, parameters [H24] (protocol §2, §3)
    "VGGm-11": (11, 0.5, 3, "CNN", 9_462_180), "VGGm-17": (17, 0.5, 3, "CNN", 20_086_692),
    "VGGm†-11": (11, 1.0, 3, "CNN", 9_462_180), "VGGm†-17": (17, 1.0, 3, "CNN", 20_086_692),
    "ResNet-18": (18, 0.25, 7, "CNN", 11_227_812), "ResNet-34": (34, 0.25, 7, "CNN", 21_335_972),
    "ViT-T": (12, 1.0, 8, "ViT", 5_395_108), "ViT-T+": (18, 1.0, 8, "ViT", 8_064_292),
}  # fmt: skip
GRID = (  # ID dataset, its classes and images, architectures, resolutions of the published grid
    ("ImageNet-100", 100, 126_689, ("ViT-T+", "ResNet-18", "VGGm-17"), (32, 64, 128, 224)),
    ("ImageNet-100", 100, 126_689, ("ViT-T", "ResNet-34", "VGGm-11"), (32, 224)),
    ("ImageNet-100", 100, 126_689, ("VGGm†-11", "VGGm†-17"), (32,)),
    ("CIFAR-100", 100, 50_000, ("VGGm-11", "VGGm-17", "VGGm†-11", "VGGm†-17"), (32,)),
    ("CIFAR-10", 10, 50_000, ("VGGm-11", "VGGm-17"), (32,)),
    *(
        ("ImageNet-100", classes, classes * images, ("VGGm-11",), (32,))
        for classes, images in ((10, 1000), (50, 200), (100, 100), (100, 200), (100, 500), (100, 700))
    ),
)


def published(rng: Rng, *, augmentation: float = 0.0) -> Case:
    """The 64 backbones of [H24]; architectures have effects of their own and answer to augmentation each its way."""
    own = dict(zip(NETS, rng.normal(0, 8, 8), strict=True))
    answer = dict(zip(NETS, augmentation + rng.normal(0, 3, 8), strict=True))
    rows = []
    for data, classes, images, nets, resolutions in GRID:
        for net, resolution, aug in product(nets, resolutions, (0, 1)):
            depth, phi, stem, family, parameters = NETS[net]
            rows.append((data, net, classes, resolution, aug, depth, phi, stem, family, parameters / images))
    names = ("depth", "spatial_reduction", "stem", "family", "overparametrization")
    frame = pd.DataFrame(rows, columns=["id_dataset", "net", "id_classes", "resolution", "augmentation", *names])
    mean = frame["net"].map(own) + frame["net"].map(answer) * frame["augmentation"] + 65 + rng.normal(0, 5, len(frame))
    kinds = dict.fromkeys(("resolution", "augmentation", "id_classes", *names), "ordinal") | {"family": "categorical"}
    columns = {name: frame[name].to_numpy() for name in frame}
    return Case(
        table(rng, columns, 8, mean.to_numpy()), kinds, {"cluster": {"architecture": "net"}, "pairing": ["id_dataset"]}
    )


def independent(rng: Rng, *, effect: float = 0.0, backbone: float = 8.0) -> Case:
    """64 backbones at random points of six variables; the first has an effect from its lowest to its highest value."""
    kinds = {"a": "ordinal", "b": "ordinal", "c": "ordinal", "d": "ordinal", "e": "categorical", "f": "ordinal"}
    columns: dict[str, Any] = {name: rng.integers(0, k, 64) for name, k in zip("abcd", (2, 3, 4, 2), strict=True)}
    columns |= {"e": rng.choice(["x", "y", "z"], 64), "f": rng.integers(0, 3, 64)}
    return Case(table(rng, columns, 8, 70 + effect * columns["a"] + rng.normal(0, backbone, 64)), kinds)


def repeated(rng: Rng, *, effect: float = 0.0) -> Case:
    """32 configurations with effects of their own, each trained twice."""
    own = rng.permutation(np.repeat([0, 1], 16))
    mean = (70 + effect * own + rng.normal(0, 5, 32)).repeat(2) + rng.normal(0, 3, 64)
    columns = {"a": own.repeat(2), "b": np.arange(32).repeat(2), "seed": np.tile([0, 1], 32)}
    kinds: dict[str, Any] = {"a": "ordinal", "b": "ordinal", "seed": {"kind": "ordinal", "role": "replicate"}}
    return Case(table(rng, columns, 8, mean), kinds)


def observed(rng: Rng, *, effect: float = 0.0) -> Case:
    """200 pretrained models of 30 families × 9 datasets: nothing crossed; ``effect`` is of ssl against the others."""
    family = rng.integers(0, 30, 200)
    year = 2016 + rng.integers(0, 8, 200)
    objective = rng.choice(["supervised", "ssl", "clip"], 200, p=[0.6, 0.25, 0.15])
    params = np.round(np.exp(rng.normal(3.2, 1, 200) + 0.1 * (year - 2019)), 2)
    mean = 75 + rng.normal(0, 3, 30)[family] + effect * (objective == "ssl")
    columns = {"family": [f"fam{f:02d}" for f in family], "year": year, "objective": objective, "params": params}
    kinds: dict[str, Any] = {
        "objective": {"kind": "categorical", "reference": "supervised"}, "year": "numeric",
        "params": {"kind": "numeric", "scale": "log"},
    }  # fmt: skip
    return Case(table(rng, columns, 9, mean + rng.normal(0, 4, 200)), kinds, {"cluster": "family"})


def unequal_datasets(rng: Rng) -> Case:
    """Nothing has an effect; those with aug = 1 were probed on the four easy datasets only."""
    columns = {"aug": np.tile([0, 1], 24), "depth": rng.integers(0, 3, 48)}
    frame = table(rng, columns, 8, 75 + rng.normal(0, 3, 48), slope=-5.0)
    return Case(frame[(frame.aug == 0) | (frame.dataset < 4)], {"aug": "ordinal", "depth": "ordinal"})


def unordered(rng: Rng) -> Case:
    """Against supervised ssl loses 25 and clip gains 10; layers do nothing."""
    objective = rng.permutation(np.repeat(["supervised", "ssl", "clip"], 20))
    effect = pd.Series(objective).map({"supervised": 0.0, "ssl": -25.0, "clip": 10.0}).to_numpy()
    columns = {"objective": objective, "layers": rng.integers(0, 4, 60)}
    kinds = {"objective": {"kind": "categorical", "reference": "supervised"}, "layers": "ordinal"}
    return Case(table(rng, columns, 6, 75 + effect + rng.normal(0, 3, 60)), kinds)


def two_levels(rng: Rng) -> Case:
    """Twelve points between two values, 15 independent backbones of each."""
    x = rng.permutation(np.repeat([0, 1], 15))
    return Case(table(rng, {"x": x}, 3, 70 + 12 * x + rng.normal(0, 3, 30)), {"x": "ordinal"})


def seeds_of_their_own(rng: Rng) -> Case:
    """Eleven points between 12 and 12 backbones; no two of them share a seed."""
    x = np.repeat([0, 1], 12)
    frame = table(rng, {"x": x, "seed": np.arange(24)}, 4, 70 + 11 * x + rng.normal(0, 3, 24))
    return Case(frame, {"x": "ordinal", "seed": {"kind": "ordinal", "role": "replicate"}})


def families_and_sizes(rng: Rng) -> Case:
    """40 families of two models; a family's size is nearly its own, whatever the families are called."""
    family = np.repeat(np.arange(40), 2)
    names = np.array([f"f{i:02d}" for i in rng.permutation(40)])
    columns = {"arch_family": names[family], "params": family + rng.uniform(-0.4, 0.4, 80)}
    mean = 70 + rng.normal(0, 6, 40)[family]
    return Case(table(rng, columns, 4, mean), {"arch_family": "categorical", "params": "numeric"})


def nearly_unique(rng: Rng) -> Case:
    """200 models of nearly as many sizes; only the resolution acts, by ten points."""
    columns = {
        "params": np.round(np.exp(rng.normal(3.5, 1, 200)), 1), "depth": rng.integers(10, 24, 200),
        "arch_family": rng.choice([f"fam{i}" for i in range(12)], 200), "resolution": rng.choice([224, 256, 384], 200),
    }  # fmt: skip
    mean = 80 + 10 * (columns["resolution"] == 384) + rng.normal(0, 4, 200)
    kinds = {"params": "numeric", "arch_family": "categorical", "depth": "ordinal", "resolution": "ordinal"}
    return Case(table(rng, columns, 3, mean), kinds)


def bent(rng: Rng) -> Case:
    """50 classes keep 35 points more than 10 and than 100."""
    classes = rng.permutation(np.repeat([10, 50, 100], 20))
    columns = {"id_classes": classes, "augmentation": rng.choice(["off", "on"], 60)}
    kinds = {"id_classes": "ordinal", "augmentation": {"kind": "ordinal", "levels": ["off", "on"]}}
    return Case(table(rng, columns, 6, 45 + 35 * (classes == 50) + rng.normal(0, 3, 60)), kinds)


def inapplicable(rng: Rng) -> Case:
    """Only ViTs have a patch size, and it does nothing; ViTs keep 20 points more."""
    family = rng.permutation(np.repeat(["cnn", "vit"], 30))
    patch = np.where(family == "vit", rng.choice([8, 16, 32], 60), np.nan)
    frame = table(rng, {"family": family, "patch": patch}, 4, 60 + 20 * (family == "vit") + rng.normal(0, 3, 60))
    return Case(frame, {"family": "categorical", "patch": "ordinal"})


def groups(rng: Rng) -> Case:
    """Ten against ten backbones, eight points; each has a learning rate of its own."""
    x = np.repeat([0, 1], 10)
    columns = {"x": x, "lr": np.linspace(1e-3, 1e-2, 20)}
    return Case(table(rng, columns, 4, 70 - 8 * x + rng.normal(0, 3, 20)), {"x": "ordinal", "lr": "numeric"})


def nothing(rng: Rng) -> Case:
    """No variable has any effect, on backbones that differ much."""
    columns = {
        "objective": rng.choice(["supervised", "ssl"], 64), "data": rng.choice(["a", "b", "c"], 64),
        "v": rng.integers(0, 4, 64), "w": rng.integers(0, 3, 64),
    }  # fmt: skip
    kinds = {"objective": "categorical", "data": "categorical", "v": "ordinal", "w": "ordinal"}
    return Case(table(rng, columns, 8, 75 + rng.normal(0, 8, 64)), kinds)


def skewed(rng: Rng) -> Case:
    """Sizes from 1 to 2000, four points less with each factor of ten."""
    params = rng.choice([1.28, 14.0, 142.0, 2000.0], 60)
    frame = table(rng, {"params": params}, 5, 80 - 4 * np.log10(params) + rng.normal(0, 3, 60))
    return Case(frame, {"params": {"kind": "numeric", "scale": "log"}})


Draw = Callable[[Rng], Case]
