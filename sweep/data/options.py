"""How a dataset is asked for: plain values, importable without numpy or torch."""

from dataclasses import dataclass
from typing import Literal

Background = Literal["white", "grey", "black"]
DatasetKind = Literal["builtin", "folder", "plugin", "torchvision", "hfds", "wds"]
Part = Literal["train", "test"]  # of a dataset
CORRUPTED = 1  # version of the pixels of :mod:`sweep.data.corrupt`; raise by hand when they change
TORCHVISION: tuple[str, ...] = ("cifar10", "cifar100", "stl10", "flowers102", "pets", "aircraft")


@dataclass(frozen=True)
class DatasetOptions:
    """What a configuration says about one dataset.

    Attributes
    ----------
    kind
        ``"builtin"`` (generated), ``"plugin"`` (registered), ``"folder"`` (ImageFolder tree or tar archive of one),
        ``"torchvision"`` (one of TORCHVISION), ``"hfds"`` (Hugging Face datasets) or ``"wds"`` (webdataset shards).
    generator
        Name of the built-in generator, of the registered dataset, or of torchvision's or Hugging Face's; else None.
    path
        Absolute path of the folder or archive, or where torchvision's or the hub's files lie; None for built-ins; a
        registered dataset may have one.
    classes
        Built-in: number of classes to generate. Folder: declared count, checked against the files.
    only
        Folder: names of the classes that count, or first..last of their sorted names; empty: all.
    train_per_class, test_per_class
        Built-in: images generated per class. Folder: caps per class (stratified, seeded, nested).
    size
        Side of a generated image in pixels.
    seed
        Seed of the generator, of the caps and of the split of a folder that has none.
    test_fraction
        Share of each class that becomes the test part of a folder without split directories.
    download
        Torchvision, Hugging Face: fetch what is not there; else it is an error.
    train_split, test_split
        Hugging Face, webdataset: names of the splits.
    image_key, label_key
        Hugging Face, webdataset: columns, or endings, of image and label; None for timm's defaults.
    groups
        Folder: regular expression on an image's name below the root; what its parentheses catch names the group.
    groups_list, groups_column, groups_image
        Folder: absolute path of a CSV file with a head, its columns of groups and of images (None: the first).
    background
        What the transparent parts of an image lie on.
    """

    kind: DatasetKind
    generator: str | None = None
    path: str | None = None
    classes: int | None = None
    only: tuple[str, ...] = ()
    train_per_class: int | None = None
    test_per_class: int | None = None
    size: int | None = None
    seed: int = 0
    test_fraction: float = 0.2
    download: bool = False
    train_split: str = "train"
    test_split: str = "test"
    image_key: str | None = None
    label_key: str | None = None
    background: Background = "white"
    groups: str | None = None
    groups_list: str | None = None
    groups_column: str | None = None
    groups_image: str | None = None
