"""The study's downloaded weights by name: facts of ``study_weights.yaml``, and how a file among them is read."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).with_name("study_weights.yaml")


@dataclass(frozen=True)
class StudyWeights:
    """Weights that the study downloaded ([H24] A.2).

    Attributes
    ----------
    name : what ``pretraining`` says.
    tag : timm's full name; None for a file of the publisher's own.
    architecture : timm's network.
    file : the publisher's name of it.
    sha256_starts : first digits of its SHA-256; None where nobody states them.
    augmentation : a level of :mod:`sweep.models.augmentations`.
    key_map, mean, std : how the file is read and what pixels it expects, where that does not follow from the file or
        from the architecture.
    """

    name: str
    title: str
    source: str
    licence: str
    corpus: str
    objective: str
    augmentation: str
    tag: str | None = None
    architecture: str = ""
    file: str | None = None
    sha256_starts: str | None = None
    key_map: Mapping[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@functools.cache
def study_weights() -> tuple[StudyWeights, ...]:
    """All eight, in the study's order."""
    return tuple(_entry(facts) for facts in yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def _entry(facts: Mapping[str, Any]) -> StudyWeights:
    pixels = {key: tuple(facts[key]) for key in ("mean", "std") if key in facts}
    named = {"architecture": facts["tag"].partition(".")[0]} if "tag" in facts else {}
    starts = facts["sha256_starts"]
    return StudyWeights(**{**facts, **pixels, **named, "sha256_starts": None if starts is None else str(starts)})


def study_file(name: str, architecture: str) -> StudyWeights | None:
    """The study's file of weights of that name for an architecture; None where timm carries it, or nobody knows it."""
    known = (entry for entry in study_weights() if entry.file and entry.name == name)
    return next((entry for entry in known if entry.architecture == architecture), None)
