"""How a dataset is asked for: plain values, importable without numpy or torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DatasetOptions:
    """What a configuration says about one dataset.

    Attributes
    ----------
    kind
        ``"builtin"`` (generated), ``"plugin"`` (registered) or ``"folder"`` (ImageFolder tree or tar archive of one).
    generator
        Name of the built-in generator or of the registered dataset; None for folders.
    path
        Absolute path of the folder or archive; None for built-ins; a registered dataset may have one.
    classes
        Built-in: number of classes to generate. Folder: declared count, checked against the files.
    train_per_class, test_per_class
        Built-in: images generated per class. Folder: caps per class (stratified, seeded, nested).
    size
        Side of a generated image in pixels.
    seed
        Seed of the generator, of the caps and of the split of a folder that has none.
    test_fraction
        Share of each class that becomes the test part of a folder without split directories.
    """

    kind: Literal["builtin", "folder", "plugin"]
    generator: str | None = None
    path: str | None = None
    classes: int | None = None
    train_per_class: int | None = None
    test_per_class: int | None = None
    size: int | None = None
    seed: int = 0
    test_fraction: float = 0.2
