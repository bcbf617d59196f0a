"""Layers of a trained backbone that are set to other weights, as a config's ``intervene`` asks for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sweep.config import EPOCH, EVERY, Config, Intervene
from sweep.study.when import matches

Whole = TypeVar("Whole")  # a backbone
_RANGE = re.compile(r"(\d*)\.\.(\d*)|(\d+)")


@dataclass(frozen=True)
class Intervention(Generic[Whole]):
    """Which layers are set to what.

    Attributes
    ----------
    first, last : layers, both included, 1 is the first; ``last`` None: to the last.
    head : whether the classifier is set too.
    source : what to; "donor": to the weights of another backbone, or of the same at another epoch.
    said : the source in words.
    """

    first: int
    last: int | None
    head: bool
    source: Literal["initial", "random", "donor"]
    said: str
    donor: Whole | None = None

    def __str__(self) -> str:
        layers = f"{self.first}..{self.last or ''}" if self.last != self.first else str(self.first)
        return f"{'all' if self.head else f'layers {layers}'} to {self.said}"


def span_of(layers: int | str) -> tuple[int, int | None, bool] | None:
    """First and last layer that a word means, and whether the classifier is among them; None: it means none."""
    if layers == EVERY:
        return 1, None, True
    found = _RANGE.fullmatch(str(layers).replace(" ", ""))
    if found is None:
        return None
    low, high, alone = found.groups()
    first = int(alone or low or 1)
    last = int(alone or high) if alone or high else None
    return (first, last, False) if first >= 1 and (last is None or first <= last) else None


def intervened(
    config: Config, values: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Whole]
) -> Iterable[Intervention[Whole]]:
    """What is set in one backbone.

    Parameters
    ----------
    values : of the backbone.
    make : the backbone of other values.
    """
    for each in config.intervene:
        if matches(each.when, values):
            yield _resolved(each, values, make)


def _resolved(
    each: Intervene, values: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Whole]
) -> Intervention[Whole]:
    meant = span_of(each.layers)
    assert meant is not None  # checked with the config
    if isinstance(each.to, str):
        return Intervention(*meant, each.to, each.to)
    donor: Any = make({**values, **{key: value for key, value in each.to.items() if key != EPOCH}})
    said = ", ".join(f"{key}={value}" for key, value in each.to.items())
    return Intervention(*meant, "donor", said, donor.after(each.to.get(EPOCH)))
