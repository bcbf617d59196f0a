"""What a config says of its datasets, before any image is touched: where they are, and how large."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import register
from sweep.base.errors import UserError
from sweep.config import Config, DatasetEntry
from sweep.data import (
    DatasetOptions,
    cache_dir,
    dataset_options,
    is_made,
    known_datasets,
    source_of,
    used_datasets,
)
from sweep.study.grid import Sizes
from sweep.study.keys import Keyring

if TYPE_CHECKING:
    from sweep.data import Summary


_OF_FILES = ("folder", "wds")  # that a path alone brings


def dataset_names(config: Config) -> tuple[str, ...]:
    """Names that a grid may use: the config's own datasets and the registered ones."""
    return tuple(dict.fromkeys((*config.datasets, *known_datasets())))


def probed_names(config: Config) -> tuple[str, ...]:
    """Names that may be probed: these, and what is made from an ID dataset's images."""
    return (*dataset_names(config), *(name for name in config.shifted if is_made(config, name)))


def without_downloads(config: Config) -> Config:
    """The config for whoever only asks: what is not there stays away."""
    entries = {
        name: entry.model_copy(update={"download": False, "source": "/".join(filter(None, source_of(config, name)))})
        if entry.download
        else entry
        for name, entry in config.datasets.items()
    }
    return config.model_copy(update={"datasets": entries})


def declared_sizes(config: Config, name: str) -> Sizes | None:
    """Classes and images as the config and the catalogue state them; None if neither does.

    A cap per class is applied as if the classes were balanced, so the count may be a little high.
    """
    entry = config.datasets.get(name, DatasetEntry())
    kind, there = source_of(config, name)
    fact = known_datasets().get(there if kind == "torchvision" else entry.generator or name)
    classes = entry.classes or (fact.classes if fact else None)
    if classes is None:
        return None
    builtin = fact is not None and fact.reader == "builtin" and not entry.path
    registered = fact is not None and fact.reader == "plugin"
    counts = []
    for declared, per_class, known in (
        (entry.train, entry.train_per_class, fact and fact.train),
        (entry.test, entry.test_per_class, fact and fact.test),
    ):
        if fact is not None and (builtin or (registered and (entry.classes or per_class))):
            counts.append(classes * (per_class or (known or 0) // fact.classes))
        elif declared or known:
            total = int(declared or known or 0)
            counts.append(min(total, per_class * classes) if per_class else total)
        else:
            return None
    return Sizes(classes, *counts)


def sizes(config: Config, name: str) -> Sizes:
    """Those of the files where they are here, else the declared ones.

    Raises
    ------
    UserError
        If nothing is declared and the files are not there.
    """
    declared = declared_sizes(config, name)
    if declared is not None and not _is_here(dataset_options(config, name)):
        return declared
    try:
        found = _summary(config, name)
    except UserError:
        if declared is None:
            raise
        return declared  # a plan counts on; whoever needs the files meets the error
    return Sizes(found.classes, found.train, found.test)


def said_of_sizes(config: Config) -> list[str]:
    """A sentence for each dataset whose files hold something else than is declared, or known of it."""
    lines = []
    for name in used_datasets(config):
        declared = declared_sizes(config, name)
        if declared is None or not _is_here(dataset_options(config, name)):
            continue
        if (found := sizes(config, name)) != declared:
            lines.append(
                f"{name}: its files hold {found.train:,} + {found.test:,} images of {found.classes:,} classes; "
                f"declared or known are {declared.train:,} + {declared.test:,} of {declared.classes:,}; the files count"
            )
    return lines


def counted(config: Config) -> list[str]:
    """Classes and images of each dataset whose files could be opened, in words; nothing is fetched for it."""
    lines = []
    for name in used_datasets(config):
        options = dataset_options(config, name)
        if not _is_here(options) and options.kind != "plugin":
            continue
        try:
            found = _summary(config, name)
        except UserError as error:
            if options.kind in _OF_FILES:  # a run would say it too; of the others it may fetch what is not there
                lines.append(f"dataset {name}: {str(error).splitlines()[0]}")
            continue
        lines.append(f"dataset {name}: {found.classes:,} classes, {found.train:,} + {found.test:,} images")
        lines += [f"dataset {name}: {note}" for note in found.notes]
        refused = [*found.lacking, *_too_many(config, name, found)]
        lines += [f"warning: dataset {name}: {said}; a run refuses curves with it" for said in refused]
    return lines


def _too_many(config: Config, name: str, found: Summary) -> list[str]:
    """Where the grid asks an ID dataset for more classes or images than its files have."""
    blocks = [block for block in config.grid if name in (block.id_dataset or ())]
    classes = max((asked for block in blocks for asked in block.id_classes if asked != "all"), default=0)
    images = max((asked for block in blocks for asked in block.images_per_class if asked != "all"), default=0)
    return [
        *[f"id_classes: {classes} are asked for"] * (classes > found.classes),
        *[f"images_per_class: {images} are asked for, class {found.smallest!r} has {found.fewest}"]
        * (images > found.fewest),
    ]


def _is_here(options: DatasetOptions) -> bool:
    """Whether there are files to count, so that what is declared need not be believed."""
    there = options.path is not None and Path(options.path).exists()
    return there and options.kind in (*_OF_FILES, "torchvision", "hfds")


def data_identities(config: Config, names: Iterable[str]) -> dict[str, str]:
    """Content identity of each dataset: its fingerprint, what is said of its pixels, the caps that choose from it."""
    return {name: _identity(config, name) for name in names}


def _identity(config: Config, name: str) -> str:
    options, found = dataset_options(config, name), _summary(config, name)
    cut = found.split != "official" or options.train_per_class or options.test_per_class
    chance = (options.test_fraction, options.seed) if cut else (DatasetOptions.test_fraction, DatasetOptions.seed)
    caps = (options.train_per_class, options.test_per_class, *chance)
    return ":".join([found.identity, *map(str, caps)])


def _summary(config: Config, name: str) -> Summary:
    from sweep.data import summary  # numpy and PIL: only when files are needed

    options = dataset_options(config, name)
    if options.kind == "folder" and options.path is None:
        raise UserError(f"dataset {name} has no path: set datasets.{name}.path to an ImageFolder tree or tar")
    return summary(name, options, cache_dir(config))


def keyring(config: Config) -> Keyring:
    """Everything that keys need; reads fingerprints, so the data must be there."""
    return Keyring(
        data=data_identities(config, used_datasets(config)),
        split_seed=config.split_seed,
        holdout=config.holdout,
        rank_threshold=config.rank_threshold,
        code=plugin_code(config),
        statistics=config.statistics,
        extraction=config.extraction_precision,
        instruments=tuple(dict.fromkeys((*config.instruments, *config.readings))),
    )


def plugin_code(config: Config) -> dict[str, str]:
    """Code of the plug-ins that a config uses, by "kind name"; of its datasets, the fingerprint tells."""
    asked: dict[register.Kind, Iterable[str]] = {
        "model": [name for block in config.grid for name in block.architecture],
        "dataset": [config.datasets.get(name, DatasetEntry()).generator or name for name in used_datasets(config)],
        "augmentation": [name for block in config.grid for name in block.augmentation or ()],
        "statistic": config.statistics,
        "probe": [config.probe.solver, *(rule.probe.get("solver", "") for rule in config.rules)],
    }
    found = [register.find_plugin(kind, name) for kind, names in asked.items() for name in names]
    return {plugin.label: plugin.code for plugin in found if plugin is not None}
