"""Weights that a config names, resolved: an alias becomes what it stands for, a file its content.

``pretraining`` may be an entry of the section ``weights``, a tag of timm, or ``timm``, which is timm's default tag.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from sweep.base.errors import UserError
from sweep.config import SCRATCH, Config, WeightsEntry
from sweep.data import known_datasets
from sweep.models import (
    CORPORA,
    IMAGENET_MEAN,
    IMAGENET_STD,
    StudyWeights,
    TrainedOn,
    WeightsSource,
    chain,
    default_tag,
    expected_pixels,
    shards,
    study_file,
    torchvision_trained_on,
    trained_on,
)

TIMM = "timm"  # `pretraining: timm` takes a model's default weights
# the old order of looking into a file knew nothing of them: where they are taken, the key has to say so
_AVERAGED = (b"state_dict_ema", b"model_ema")


def tag_of(architecture: str, pretraining: str) -> str:
    """The tag that a word of ``pretraining`` stands for; every other word stands for itself."""
    return default_tag(architecture) or pretraining if pretraining == TIMM else pretraining


def weights_source(config: Config, architecture: str, pretraining: str) -> WeightsSource | None:
    """The weights of one backbone; None for those that are still to be trained.

    Raises
    ------
    UserError
        If an entry says nothing of this architecture, or torchvision has no such weights.
    """
    if pretraining == SCRATCH:
        return None
    entry, known = config.weights.get(pretraining), study_file(pretraining, architecture)
    if known is not None and (entry is None or entry.path is not None):
        return _file(_completed(entry, known), architecture, _place(entry, known, config.data_root), known.title)
    entry = entry or WeightsEntry(timm=pretraining)
    return source_of(entry, architecture, root=config.data_root, name=pretraining)


def _place(entry: WeightsEntry | None, known: StudyWeights, root: str | None) -> Path:
    """Where a file of the study's lies: where the config says, or in weights/ below the root of the data."""
    said = f"weights/{known.file}" if entry is None else _own(entry.path, known.architecture, known.name)
    return Path(root or ".") / Path(said).expanduser()


def _completed(entry: WeightsEntry | None, known: StudyWeights) -> WeightsEntry:
    """What is known of a file of the study's, but where the config says it itself."""
    said = {} if entry is None else {key: getattr(entry, key) for key in entry.model_fields_set}
    facts = {"key_map": known.key_map, "mean": known.mean, "std": known.std, "title": known.title}
    trained = {"corpus": known.corpus, "objective": known.objective}
    return WeightsEntry.model_validate({**facts, "trained_on": trained, **said})


def source_of(
    entry: WeightsEntry, architecture: str, *, root: str | None = None, name: str = "these weights"
) -> WeightsSource:
    """An entry of the section ``weights`` for one architecture.

    Parameters
    ----------
    root : directory that the path is relative to.
    name : of the entry, for messages.
    """
    if entry.timm is not None:
        return _timm(entry, architecture, tag_of(architecture, _own(entry.timm, architecture, name)))
    if entry.torchvision is not None:
        return _torchvision(entry, _own(entry.torchvision, architecture, name))
    return _file(entry, architecture, Path(root or ".") / Path(_own(entry.path, architecture, name)).expanduser())


def _own(said: str | Mapping[str, str] | None, architecture: str, name: str) -> str:
    """What an entry says for one architecture."""
    found = said.get(architecture) if isinstance(said, Mapping) else said
    if found is None:
        there = ", ".join(said) if isinstance(said, Mapping) else "nothing"
        raise UserError(f"weights.{name} says nothing of {architecture}; it names {there}")
    return found


def _timm(entry: WeightsEntry, architecture: str, tag: str) -> WeightsSource:
    own = expected_pixels(architecture, tag)
    mean, std = entry.mean or (own and own.mean), entry.std or (own and own.std)
    return WeightsSource(
        kind="timm",
        name=tag,
        identity=_identity(tag, entry, entry.mean, entry.std),
        mean=mean or IMAGENET_MEAN,
        std=std or IMAGENET_STD,
        pixels_from="the config" if entry.mean else f"timm's config of {architecture}.{tag}",
        resolution=entry.resolution or (own.resolution if own else None),
        crop=own.crop if own else None,
        interpolation=own.interpolation if own else None,
        mode=own.mode if own else "center",
        trained_on=_trained_on(entry, trained_on(architecture, tag)),
        key_map=tuple(entry.key_map.items()),
    )


def _torchvision(entry: WeightsEntry, name: str) -> WeightsSource:
    from sweep.models import torchvision_facts  # torchvision: only when a config asks for it

    facts = torchvision_facts(name)
    return WeightsSource(
        kind="torchvision",
        name=facts.name,
        identity=_identity(f"torchvision:{facts.name}", entry, entry.mean, entry.std),
        mean=entry.mean or facts.mean,
        std=entry.std or facts.std,
        pixels_from="the config" if entry.mean else f"torchvision's transforms of {facts.name}",
        resolution=entry.resolution or facts.resolution,
        crop=facts.crop,
        interpolation=facts.interpolation,
        trained_on=_trained_on(entry, torchvision_trained_on(facts.name)),
        key_map=tuple(entry.key_map.items()),
    )


def _file(entry: WeightsEntry, architecture: str, path: Path, whose: str = "the config") -> WeightsSource:
    """A file says nothing of its pixels: without a word of the user's, those of the architecture's timm config.

    ``whose``: who says what the entry says.
    """
    own = expected_pixels(architecture)
    mean, std = (own.mean, own.std) if own else (IMAGENET_MEAN, IMAGENET_STD)
    usual = (mean, std) == (IMAGENET_MEAN, IMAGENET_STD)  # what was always assumed, and no part of older keys
    default = f"timm's config of {architecture}" if own else "ImageNet's, because nothing says otherwise"
    content = _content(path)
    return WeightsSource(
        kind="file",
        name=str(path),
        identity=content
        and _identity(content, entry, entry.mean or (None if usual else mean), entry.std or (None if usual else std)),
        mean=entry.mean or mean,
        std=entry.std or std,
        pixels_from=whose if entry.mean else default,
        resolution=entry.resolution or (own.resolution if own else None),
        crop=own.crop if own else None,
        interpolation=own.interpolation if own else None,
        mode=own.mode if own else "center",
        trained_on=_trained_on(entry, None),
        key_map=tuple(entry.key_map.items()),
        key=entry.key,
    )


def _identity(content: str, entry: WeightsEntry, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> str:
    """What a key says of weights: their content, and how it is read."""
    reading = {"key_map": list(entry.key_map.items()), "mean": mean, "std": std, "key": entry.key}
    said = {key: value for key, value in reading.items() if value}
    return f"{content} {json.dumps(said)}" if said else content


def _trained_on(entry: WeightsEntry, known: TrainedOn | None) -> TrainedOn | None:
    """What the user says, over what is known; a corpus that the user names replaces all of it."""
    said = entry.trained_on
    if said is None:
        return known
    base = known or TrainedOn()
    if said.corpus is not None:
        base = known_corpora().get(said.corpus, TrainedOn(corpus=said.corpus))
    return TrainedOn(
        corpus=base.corpus,
        images=said.images or base.images,
        classes=said.classes or base.classes,
        objective=said.objective or base.objective,
        augmentation=base.augmentation,
    )


def known_corpora() -> dict[str, TrainedOn]:
    """What a word alone says under ``trained_on``: a corpus of the table, or a dataset of the program or a plug-in."""
    datasets = {
        name: TrainedOn(name, fact.train, fact.classes, "supervised") for name, fact in known_datasets().items()
    }
    return datasets | {name: chain([(name, None)]) for name in CORPORA}


def _content(path: Path) -> str | None:
    """Identity of a checkpoint's content, of all its parts where an index names them; None if it is not there."""
    try:
        parts = [path, *shards(path)]
        return _digest(tuple((str(part), part.stat().st_mtime_ns, part.stat().st_size) for part in parts))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


@functools.lru_cache(maxsize=256)
def _digest(parts: tuple[tuple[str, int, int], ...]) -> str:
    """SHA-256 of the files' bytes; whether averaged weights stand beside the raw ones is read along."""
    digest, averaged = hashlib.sha256(), False
    for part, _, _ in parts:
        with open(part, "rb") as file:
            before = b""
            while piece := file.read(1 << 22):
                digest.update(piece)
                averaged = averaged or any(word in before + piece for word in _AVERAGED)
                before = piece[-32:]
    return digest.hexdigest()[:20] + (" averaged" if averaged else "")
