"""A catalogue of downloaded weights: what they were trained on and how, their licence and where they come from."""

from __future__ import annotations

import csv as csv_module
import fnmatch
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import timm

from sweep.base.errors import UserError
from sweep.models.corpora import TrainedOn, chain, trained_on
from sweep.models.weights_by_name import StudyWeights, study_weights

_HUB = "https://huggingface.co/"


@dataclass(frozen=True)
class Row:
    """One entry; None is what is not known.

    Attributes
    ----------
    name : timm's full name, or architecture.name of a file of the study's.
    images : of the largest corpus, for γ.
    checksum : first digits of the SHA-256, or None.
    """

    name: str
    objective: str | None
    corpus: str | None
    images: int | None
    classes: int | None
    augmentation: str | None
    licence: str | None
    source: str | None
    checksum: str | None = None


def rows(patterns: Sequence[str] = ()) -> list[Row]:
    """The weights that these names or patterns mean; without one the study's.

    Raises
    ------
    UserError
        If a pattern means none.
    """
    if not patterns:
        return [_of_study(known) for known in study_weights()]
    every = timm.list_pretrained()
    found: dict[str, None] = {}
    for pattern in patterns:
        own = fnmatch.filter(every, pattern)
        if not own:
            raise UserError(f"{pattern}: timm has no weights of that name; a pattern may hold *, as vit_*.mae")
        found |= dict.fromkeys(own)
    return [of_timm(name) for name in found]


def of_timm(name: str) -> Row:
    """An entry for timm's weights by their full name."""
    architecture, _, tag = name.partition(".")
    config = timm.get_pretrained_cfg(name)
    known = trained_on(architecture, tag) or TrainedOn()
    source = (f"{_HUB}{config.hf_hub_id}" if config.hf_hub_id else config.url) or None
    return _row(name, known, known.augmentation, config.license, source, None)


def _of_study(known: StudyWeights) -> Row:
    name = known.tag or f"{known.architecture}.{known.name}"
    corpus = trained_on(*known.tag.split(".", 1)) if known.tag else chain([(known.corpus, known.objective)])
    assert corpus is not None, name
    return _row(name, corpus, known.augmentation, known.licence, known.source, known.sha256_starts)


def _row(
    name: str,
    known: TrainedOn,
    augmentation: str | None,
    licence: str | None,
    source: str | None,
    checksum: str | None,
) -> Row:
    return Row(
        name, known.objective, known.corpus, known.images, known.classes, augmentation, licence, source, checksum
    )


def text(found: Sequence[Row], *, csv: bool = False) -> str:
    """Rows as CSV, or as lines in columns for people."""
    heads = [part.name for part in fields(Row)]
    lines = [heads, *([_word(value, csv=csv) for value in astuple(row)] for row in found)]
    if csv:
        out = io.StringIO()
        csv_module.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue().rstrip("\n")
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    padded = ("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _word(value: object, *, csv: bool) -> str:
    if value is None:
        return "" if csv else "not known"
    return f"{value:,}" if isinstance(value, int) and not csv else str(value)
