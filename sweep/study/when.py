"""Which backbones a rule speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweep.study.sources import tag_of


def matches(when: Mapping[str, tuple[Any, ...]], values: Mapping[str, Any]) -> bool:
    """Whether a rule's ``when`` holds for the values of one backbone."""
    return all(values.get(key) in _meant(key, allowed, values) for key, allowed in when.items())


def _meant(key: str, allowed: tuple[Any, ...], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a rule allows for a backbone; of weights an alias stands for the tag of its architecture."""
    return tuple(tag_of(values["architecture"], name) for name in allowed) if key == "pretraining" else allowed
