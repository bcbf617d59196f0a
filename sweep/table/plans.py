"""What each config plans, left in the store: which curves, of which blocks, and what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sweep.base.errors import UserError
from sweep.base.store import Store

PLANS = "plans/"


class PlannedCurve(NamedTuple):
    """A planned curve: labels of its backbone and dataset, and the key of the backbone's run."""

    backbone: str
    dataset: str
    run: str


@dataclass(frozen=True)
class Plan:
    """What a config plans: keys of the curves of each block, and what each key is."""

    name: str
    blocks: Mapping[int, Sequence[str]]
    curves: Mapping[str, PlannedCurve]


def publish_plan(
    store: Store, name: str, blocks: Mapping[int, Sequence[str]], curves: Mapping[str, PlannedCurve]
) -> None:
    """Leave the plan of a config in the store; one that stands there already is left alone."""
    place = f"{PLANS}{name}.json"
    data = json.dumps({"blocks": blocks, "curves": curves}).encode()
    if not store.exists(place) or store.get(place) != data:
        store.put(place, data)


def read_plans(store: Store, name: str | None = None) -> list[Plan]:
    """Plans in a store, all or that of a name.

    Raises
    ------
    UserError
        If there is none, or it cannot be read.
    """
    found = [place for place in store.names(PLANS) if name is None or place == f"{PLANS}{name}.json"]
    if not found:
        what = f"no sweep named {name} was" if name else "no sweep was ever"
        raise UserError(f"{store.uri}: {what} started there (is --out right?)")
    return [_read_plan(store, place) for place in found]


def _read_plan(store: Store, place: str) -> Plan:
    try:
        saved = json.loads(store.get(place))
        blocks = {int(number): list(keys) for number, keys in saved["blocks"].items()}
        curves = {key: PlannedCurve(*values) for key, values in saved["curves"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{store.path(place)} is damaged ({error!r}); run the sweep again to have it written") from None
    return Plan(place.removeprefix(PLANS).removesuffix(".json"), blocks, curves)
