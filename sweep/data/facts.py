"""What is known of a dataset without its files: classes, images, who reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sweep import plugins


@dataclass(frozen=True)
class DatasetFact:
    """A registered dataset (protocol §7).

    Attributes
    ----------
    reader : "builtin" (generated), "plugin" (registered), or "folder" (give it a path).
    pretraining_images : images that downloaded weights of this dataset saw, where it differs from ``train``.
    """

    name: str
    title: str
    classes: int
    train: int
    test: int
    reader: Literal["builtin", "folder", "plugin"]
    pretraining_images: int | None = None


DATASETS: Mapping[str, DatasetFact] = {
    fact.name: fact
    for fact in (
        DatasetFact("fractals", "iterated-function-system fractals, generated", 100, 20_000, 2_000, "builtin"),
        DatasetFact("glyphs", "rendered letters and digits, generated", 62, 1_240, 620, "builtin"),
        DatasetFact("gratings", "oriented gratings, generated", 24, 720, 480, "builtin"),
        DatasetFact("digits", "scikit-learn's handwritten digits", 10, 200, 600, "builtin"),
        DatasetFact("imagenet100", "ImageNet-100, the synsets of CMC", 100, 126_689, 5_000, "folder"),
        DatasetFact("cifar10", "CIFAR-10", 10, 50_000, 10_000, "folder"),
        DatasetFact("cifar100", "CIFAR-100", 100, 50_000, 10_000, "folder"),
        DatasetFact(
            "imagenet1k", "ImageNet-1K, 50 images per class for probes", 1000, 50_000, 50_000, "folder", 1_281_167
        ),
        DatasetFact("ninco", "NINCO", 64, 4_702, 1_176, "folder"),
        DatasetFact("imagenet_r", "ImageNet-R", 200, 24_000, 6_000, "folder"),
        DatasetFact("cub200", "CUB-200-2011", 200, 5_994, 5_794, "folder"),
        DatasetFact("aircraft", "FGVC-Aircraft", 100, 6_667, 3_333, "folder"),
        DatasetFact("flowers102", "Oxford Flowers-102, train and val", 102, 1_020, 1_020, "folder"),
        DatasetFact("pets", "Oxford-IIIT Pets", 37, 3_680, 3_669, "folder"),
        DatasetFact("stl10", "STL-10", 10, 5_000, 8_000, "folder"),
    )
}


def known_datasets() -> dict[str, DatasetFact]:
    """Datasets that need no entry in a config: the program's and the registered ones."""
    registered = {name: plugins.find_plugin("dataset", name) for name in plugins.plugin_names("dataset")}
    facts = {name: DatasetFact(name, reader="plugin", **plugin.facts) for name, plugin in registered.items() if plugin}
    return {**DATASETS, **facts}
