"""What each config plans, left in the store: which curves, of which blocks, and the labels of their rows.

A fragment does not know what a config calls its backbone and its dataset; the plan does. One fragment may serve several
curves of a plan, and curves of several plans.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.config import Role
from sweep.table.fragments import FRAGMENTS, is_own
from sweep.table.schema import LABELS, SCHEMA

PLANS = "plans/"
_VERSION, DIGEST = 2, "sha256"
_OF_CURVE = ("dataset", "is_id")  # labels in which the curves of a backbone differ


@dataclass(frozen=True)
class PlannedCurve:
    """A curve of a plan.

    Attributes
    ----------
    key : names the fragment.
    run : key of the backbone's training run.
    backbone : the backbone for people.
    labels : columns of the table that the key does not determine, ``dataset`` and ``is_id`` among them; empty in plans
        of version 0.1.0, whose fragments carry their own.
    readings : keys of what is measured of its layers besides, see :mod:`sweep.table.readings`.
    """

    key: str
    run: str
    backbone: str
    dataset: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    readings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledCourse:
    """A course of a plan: its key, for people its backbone, and columns that the key does not determine."""

    key: str
    run: str
    backbone: str
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a config plans: keys of the curves of each block, every curve in plan order, roles of varied variables,
    what the report holds equal for which, and the threads that ``threads: auto`` stands for in all runs.
    """

    name: str
    blocks: Mapping[int, Sequence[str]]
    curves: tuple[PlannedCurve, ...]
    roles: Mapping[str, Role] = field(default_factory=dict)
    adjust: Mapping[str, Sequence[str]] = field(default_factory=dict)
    threads: int | None = None
    courses: tuple[LabelledCourse, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the fragments it asks for, each once, in plan order."""
        return tuple(dict.fromkeys(curve.key for curve in self.curves))


def publish_plan(store: Store, plan: Plan) -> None:
    """Leave a plan in the store; one that stands there already is left alone.

    One of the same name that asked for curves which this one does not is kept in ``plans/replaced/``, and that is said.
    """
    place = f"{PLANS}{plan.name}.json"
    about, before = _about(plan), store.get(place) if store.exists(place) else None
    data = json.dumps(about | {DIGEST: _digest(about)}).encode()
    if before in (data, json.dumps(about).encode()):  # older ones have no digest
        return
    if before is not None and (dropped := _dropped(store, place, plan)):
        kept = f"{PLANS}replaced/{plan.name}-{hashlib.sha256(before).hexdigest()[:8]}.json"
        store.put(kept, before)
        print(
            f"notice: the plan named {plan.name} that stood here asked for {dropped}; it is kept as "
            f"{store.path(kept)}; another name in the config keeps two sweeps of one store apart",
            file=sys.stderr,
        )
    store.put(place, data)


def _dropped(store: Store, place: str, plan: Plan) -> str:
    """What a plan that stands there asks for and another one does not, in words; "" for nothing."""
    try:
        lost = len({*_read_plan(store, place).keys} - {*plan.keys})
    except UserError:
        return "what can no longer be read"
    return f"{lost} curves that this one does not ask for" if lost else ""


def _digest(about: Mapping[str, Any]) -> str:
    """Of a plan but for its digest: one changed digit of a label would otherwise be taken for the label."""
    rest = {name: value for name, value in about.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()


def _about(plan: Plan) -> dict[str, Any]:
    """The plan as JSON has it: a backbone stands once, with the labels that all its curves share."""
    backbones: dict[str, int] = {}
    curves = []
    for curve in plan.curves:
        shared = {name: value for name, value in curve.labels.items() if name not in _OF_CURVE}
        number = backbones.setdefault(json.dumps([curve.backbone, curve.run, shared]), len(backbones))
        curves.append([curve.key, number, curve.dataset, curve.labels.get("is_id")])
    about = {
        "version": _VERSION,
        "roles": plan.roles,
        **({"adjust": {name: list(others) for name, others in plan.adjust.items()}} if plan.adjust else {}),
        **({"threads": plan.threads} if plan.threads else {}),
        "blocks": plan.blocks,
        "backbones": [json.loads(text) for text in backbones],
        "curves": curves,
        **({"readings": asked} if any(asked := [list(curve.readings) for curve in plan.curves]) else {}),
    }
    if plan.courses:
        about["courses"] = [[each.key, each.run, each.backbone, each.labels] for each in plan.courses]
    return about


def planned_threads(store: Store, name: str) -> int | None:
    """Threads that ``threads: auto`` stands for by the plan of that name; None if none says so."""
    place = f"{PLANS}{name}.json"
    try:
        return _read_plan(store, place).threads if store.exists(place) else None
    except UserError:  # damaged: it is written anew
        return None


def read_plans(store: Store, name: str | None = None) -> list[Plan]:
    """Plans in a store, all or that of a name.

    Raises
    ------
    UserError
        If there is none, or it cannot be read.
    """
    found = [place for place in plan_places(store) if name is None or place == f"{PLANS}{name}.json"]
    if not found:
        if name is None and any(map(is_own, store.names(FRAGMENTS))):
            raise UserError(f"{store.uri}: fragments without a plan that says what they are of; run their config again")
        what = f"no sweep named {name} was" if name else "no sweep was ever"
        raise UserError(f"{store.uri}: {what} started there (is --out right?)")
    return [_read_plan(store, place) for place in found]


def readable_plans(store: Store, name: str | None = None) -> tuple[list[Plan], list[str]]:
    """As :func:`read_plans`, but a damaged plan spares the others: the plans, and what is wrong with the damaged ones.

    Raises
    ------
    UserError
        If there is none.
    """
    found: list[Plan] = []
    damaged: list[str] = []
    for place in plan_places(store):
        own = place.removeprefix(PLANS).removesuffix(".json")
        if name is None or own == name:
            try:
                found += read_plans(store, own)
            except UserError as error:
                damaged.append(str(error))
    return (found, damaged) if found or damaged else (read_plans(store, name), [])


def plan_places(store: Store) -> list[str]:
    """Files of plans; what else lies in their folder is none of ours."""
    return [place for place in store.names(PLANS) if place.endswith(".json") and place.count("/") == 1]


def problem_of_plan(data: bytes) -> str | None:
    """Why these bytes are no plan; None if they are, or are of a newer version, which is not for this one to judge."""
    try:
        _parsed("", data)
    except _NewerError:
        return None
    except ValueError as error:
        return str(error)
    return None


class _NewerError(ValueError):
    """A plan of a version that knows more."""


def _read_plan(store: Store, place: str) -> Plan:
    name = place.removeprefix(PLANS).removesuffix(".json")
    try:
        return _parsed(name, store.get(place))
    except _NewerError as error:
        raise UserError(f"{store.path(place)}: {error}: use the version that wrote it, or a newer one") from None
    except ValueError as error:
        raise UserError(
            f"{store.path(place)} is damaged ({error}); a run of the config named {name} writes it again, and --verify "
            "sets it aside"
        ) from None


def _parsed(name: str, data: bytes) -> Plan:
    """A plan from its bytes; ValueError, in words, if they are none."""
    saved = _json(data)
    if DIGEST in saved and saved[DIGEST] != _digest(saved):
        raise ValueError("its bytes are not those that were written")
    try:
        blocks = {int(number): list(keys) for number, keys in saved["blocks"].items()}
        roles = dict(saved.get("roles", {}))
        adjust = {name: list(others) for name, others in saved.get("adjust", {}).items()}
        curves = _curves(saved) if "version" in saved else _curves_without_labels(saved)
        courses = tuple(LabelledCourse(*each) for each in saved.get("courses", ()))
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from None
    except (TypeError, AttributeError, IndexError):
        raise ValueError("its parts are not those of a plan") from None
    known = {curve.key for curve in curves}
    if strangers := [key for keys in blocks.values() for key in keys if key not in known]:
        raise ValueError(f"a block has {strangers[0]}, which is no curve of the plan")
    threads = saved.get("threads")
    return Plan(name, blocks, curves, roles, adjust, threads if isinstance(threads, int) else None, courses)


def _json(data: bytes) -> dict[str, Any]:
    try:
        saved = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, or not all of it") from None
    if not isinstance(saved, dict):
        raise ValueError("its parts are not those of a plan")
    return saved


def _curves(saved: Mapping[str, Any]) -> tuple[PlannedCurve, ...]:
    if isinstance(saved["version"], int) and saved["version"] > _VERSION:
        raise _NewerError(f"a plan of version {saved['version']}, this program reads up to {_VERSION}")
    if saved["version"] != _VERSION:
        raise ValueError(f"its version is {saved['version']!r}")
    backbones = [(str(label), str(run), dict(labels)) for label, run, labels in saved["backbones"]]
    _check_types([labels for _, _, labels in backbones if labels])
    asked = saved.get("readings") or [[]] * len(saved["curves"])
    found = []
    for (key, number, dataset, is_id), readings in zip(saved["curves"], asked, strict=True):
        label, run, shared = backbones[number]
        if not isinstance(dataset, str) or not isinstance(is_id, bool | None):
            raise ValueError(f"a curve of {label} on {dataset!r}")
        labels = shared | {"dataset": dataset, "is_id": is_id} if shared else {}
        found.append(PlannedCurve(str(key), run, label, dataset, labels, tuple(map(str, readings))))
    return tuple(found)


def _check_types(labels: Sequence[Mapping[str, Any]]) -> None:
    """ValueError or TypeError (Arrow's too) where a label is nothing that its column holds."""
    for name in LABELS:
        pa.array([of_backbone.get(name) for of_backbone in labels], SCHEMA.field(name).type)


def _curves_without_labels(saved: Mapping[str, Any]) -> tuple[PlannedCurve, ...]:
    """Of a plan as version 0.1.0 left it."""
    return tuple(PlannedCurve(key, run, label, data) for key, (label, data, run) in saved["curves"].items())
