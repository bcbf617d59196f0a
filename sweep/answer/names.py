"""Which models are meant: names of timm, patterns, a file of them, the suggested ones, and weights of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from sweep import register
from sweep.base.errors import UserError
from sweep.config import WeightsEntry, closest
from sweep.models import default_tag, facts, match_weights, tags
from sweep.study import source_of

SUGGEST = "suggest"
_SUGGESTED = Path(__file__).with_name("suggested.yaml")
_MOST = 200  # models that a pattern may stand for: more is a slip of the pen


@dataclass(frozen=True)
class Model:
    """An architecture with weights: a tag of timm, or an entry of a config's section ``weights``."""

    architecture: str
    pretraining: str

    @property
    def name(self) -> str:
        """As a user writes it."""
        return f"{self.architecture}.{self.pretraining}"


def suggested() -> list[dict[str, str]]:
    """The shipped list: model and licence."""
    return yaml.safe_load(_SUGGESTED.read_text(encoding="utf-8"))


def models_of(asked: Sequence[str], entries: Mapping[str, WeightsEntry], own: Sequence[str]) -> list[Model]:
    """The models that some words stand for, each once, in their order.

    Parameters
    ----------
    asked : ``ARCHITECTURE``, ``ARCHITECTURE.TAG``, patterns of these, files with one a line, ``suggest``.
    entries : of a config's section ``weights``; their names may stand for a tag.
    own : of these the ones that ``--weights`` brought: they go with every named architecture that they fit, beside
        the weights that a name has a tag for, instead of timm's default where it has none.

    Raises
    ------
    UserError
        If a word stands for nothing.
    """
    found: dict[Model, None] = {}
    fits = dict.fromkeys(own, False)
    for word in _words(asked):
        meant = _meant(word, entries)
        _refuse_many(len(meant))
        for architecture, tag in meant:
            fitting = [name for name in own if _fits(architecture, entries[name], name)]
            fits |= dict.fromkeys(fitting, True)
            theirs = tag or (None if fitting else default_tag(architecture))
            if theirs is None and not fitting:
                raise UserError(f"--models {word}: timm has no weights of {architecture}: give some with --weights")
            found |= dict.fromkeys([Model(architecture, name) for name in ([theirs] if theirs else []) + fitting])
    for name, used in fits.items():
        if not used:
            path = entries[name].path
            file = ", ".join(path.values()) if isinstance(path, Mapping) else path
            raise UserError(f"--weights {file}: fits none of the architectures that --models names")
    _refuse_many(len(found))
    return list(found)


def _words(asked: Sequence[str]) -> Iterable[str]:
    """Each word; a file stands for its lines, ``suggest`` for the shipped list."""
    for word in asked:
        if word == SUGGEST:
            yield from (each["model"] for each in suggested())
        elif Path(word).is_file():
            text = Path(word).read_text(encoding="utf-8")
            lines = [line.partition("#")[0].strip() for line in text.splitlines()]
            if not any(lines):
                raise UserError(f"--models {word}: this file names no model")
            yield from filter(None, lines)
        else:
            yield word


def _refuse_many(count: int) -> None:
    if count > _MOST:
        raise UserError(f"--models: {count} models are meant, at most {_MOST} are compared: narrow the pattern")


def _meant(word: str, entries: Mapping[str, WeightsEntry]) -> list[tuple[str, str | None]]:
    """Architectures and tags of a name or a pattern; without a tag the default is meant."""
    if re.search(r"[*?\[]", word):
        return _matching(word, entries)
    architecture, _, tag = word.partition(".")
    if "/" in word or word.endswith(".txt"):
        raise UserError(f"--models {word}: no such file of names")
    if architecture not in facts.names():
        near = ", ".join(closest(architecture, facts.names())[:5])
        raise UserError(f"--models {word}: no such architecture; the closest are {near}")
    if tag and tag not in tags(architecture) and tag not in entries:
        there = ", ".join((*tags(architecture), *entries)) or "none"
        raise UserError(f"--models {word}: {architecture} has no weights named {tag}; there are: {there}")
    return [(architecture, tag or None)]


def _matching(pattern: str, entries: Mapping[str, WeightsEntry]) -> list[tuple[str, str | None]]:
    """A pattern without a dot goes by architectures that have weights, one with a dot by whole names."""
    found: list[tuple[str, str | None]] = []
    for name in facts.names():
        plugin = register.find_plugin("model", name) is not None
        if "." not in pattern:
            if fnmatchcase(name, pattern) and (tags(name) or plugin):
                found.append((name, None))
            continue
        own = [entry for entry, said in entries.items() if plugin or _names(said, name)]
        found += [(name, tag) for tag in (*tags(name), *own) if fnmatchcase(f"{name}.{tag}", pattern)]
    if not found:
        raise UserError(f"--models {pattern}: no architecture with weights matches this pattern")
    return found


def _names(entry: WeightsEntry, architecture: str) -> bool:
    """Whether an entry speaks of an architecture by name."""
    said = entry.path or entry.timm or entry.torchvision
    return isinstance(said, Mapping) and architecture in said


def _fits(architecture: str, entry: WeightsEntry, name: str) -> bool:
    if isinstance(entry.path, Mapping) and architecture not in entry.path:
        return False
    source = source_of(entry, architecture, name=name)
    resolution = source.resolution or facts.architecture(architecture).native_resolution or 224
    return match_weights(architecture, source, resolution=resolution).fits
