"""The YAML that says which column of a table made elsewhere is what; its keys are described in :mod:`.mapped`.

YAML is read as version 1.2 does: ``no``, ``off`` and ``2024-01-01`` are words. A number that names a column is
its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from analysis.tables import storage
from analysis.tables.errors import UserError
from analysis.tables.names import TARGETS

KEYS = (
    "title", "targets", "variables", "group", "dataset", "cluster", "adjust", "pairing", "label", "fill", "accuracy",
    "notes", "rows",
)  # fmt: skip
OF_PUBLISHED = ("source", "table", "page", "file", "cells", "count", "where", "misprints", "missing")  # .published
KINDS = ("numeric", "ordinal", "categorical")
ROLES = ("treatment", "nuisance", "replicate")
SCALES = ("linear", "log")
ENTRY_KEYS = {
    "targets": ("column", "times", "decimals"),
    "variables": ("column", "kind", "names", "levels", "role", "part", "scale", "reference"),
}
Spec = Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """SafeLoader for which only true and false are truth values, and dates are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def text(value: object) -> str:
    """A value as it names something: 17 for 17.0."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def read_spec(path: str) -> dict[str, Any]:
    """A mapping as YAML; UserError if it is none, or has a key that nobody knows."""
    try:
        spec = yaml.load(storage.read(path), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(spec, dict):
        raise UserError(f"{path}: must be a mapping with the keys {', '.join(KEYS)}")
    for key in spec:
        if key not in (*KEYS, *OF_PUBLISHED):
            raise UserError(f"{path}: unknown key {key}; valid keys are {', '.join((*KEYS, *OF_PUBLISHED))}")
    return spec


def read_mapping(path: str) -> dict[str, Any]:
    """Read and check a mapping.

    Raises
    ------
    UserError
        Naming the key.
    """
    spec = read_spec(path)
    for key in ("targets", "variables", "group"):
        if not spec.get(key):
            raise UserError(f"{path}: key {key} is missing")
    for name in spec["targets"]:
        if name not in TARGETS:
            raise UserError(f"{path}: targets.{name}: unknown; valid targets are {', '.join(TARGETS)}")
    for part in ENTRY_KEYS:
        if not isinstance(spec[part], dict):
            raise UserError(f"{path}: {part}: must be a mapping, as {{NAME: {{column: NAME}}}}")
    for key in ("group", "dataset", "pairing", "label"):
        said = spec.get(key)
        if any(isinstance(name, list | dict) for name in (said if isinstance(said, list) else [said])):
            raise UserError(f"{path}: {key}: must name columns, as {key}: NAME")
    spec = _worded(spec)
    for part, keys in ENTRY_KEYS.items():
        for name, entry in spec[part].items():
            _check_entry(entry, keys, f"{path}: {part}.{name}")
    _check_adjust(spec, path)
    return spec


def _check_adjust(spec: Spec, path: str) -> None:
    declared = spec.get("adjust") or {}
    if not isinstance(declared, dict):
        raise UserError(f"{path}: adjust: must be a mapping, as {{depth: [params, year]}}")
    for name, others in declared.items():
        if name not in spec["variables"]:
            raise UserError(f"{path}: adjust.{name}: no such variable; there are {', '.join(spec['variables'])}")
        if not isinstance(others, list):
            raise UserError(f"{path}: adjust.{name}: must be a list of variables; [] holds nothing equal")
        for other in others:
            if other not in spec["variables"] or other == name:
                raise UserError(
                    f"{path}: adjust.{name}: {other} is no other variable; there are {', '.join(spec['variables'])}"
                )


def _check_entry(entry: Any, keys: Sequence[str], where: str) -> None:
    if not isinstance(entry, dict) or "column" not in entry:
        raise UserError(f"{where}: must say which column, as {{column: NAME}}")
    for key in entry:
        if key not in keys:
            raise UserError(f"{where}.{key}: unknown; valid keys are {', '.join(keys)}")
    for key, valid in (("kind", KINDS), ("role", ROLES), ("scale", SCALES)):
        if entry.get(key, valid[0]) not in valid:
            raise UserError(f"{where}.{key}: {entry[key]!r} is none of {', '.join(valid)}")
    if not isinstance(entry.get("times", 1), int | float) or not entry.get("times", 1):
        raise UserError(f"{where}.times: {entry['times']!r} is not a number other than 0")


def _worded(spec: Spec) -> dict[str, Any]:
    """The mapping with every name of a column or variable as a word; a single one stands for a list of one."""
    found = dict(spec)
    for key in ("group", "dataset"):
        if spec.get(key) is not None:
            found[key] = text(spec[key])
    for key in ("pairing", "label"):
        if spec.get(key):
            found[key] = _list(spec[key])
    for key in ENTRY_KEYS:
        found[key] = {text(name): _with_column(entry) for name, entry in spec[key].items()}
    if isinstance(spec.get("adjust"), dict):
        found["adjust"] = {
            text(name): _list(others) if isinstance(others, list) else others for name, others in spec["adjust"].items()
        }
    cluster = spec.get("cluster")
    if isinstance(cluster, dict):
        found["cluster"] = {text(name): text(column) for name, column in cluster.items()}
    elif cluster:
        found["cluster"] = _list(cluster)
    return found


def _list(said: Any) -> list[str]:
    return [text(name) for name in (said if isinstance(said, list) else [said])]


def _with_column(entry: Any) -> Any:
    return entry | {"column": text(entry["column"])} if isinstance(entry, dict) and "column" in entry else entry
