"""Read a config: YAML in, a :class:`~sweep.config.Config` of the right shape out, every mistake named with its place.

YAML is read as version 1.2 does: ``off``, ``on``, ``yes`` and ``no`` are words, and ``1e-3`` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sweep.config.problem import ConfigError, ConfigFile, KeyPath, Problem, render_problems
from sweep.config.schema import Config

_LONGEST, _MOST_VALUES = 200_000, 200_000  # of a file: characters (two seconds); values, where aliases are written out
_UNION_TAGS = ("constrained-int", "range", "choices", "str")  # parts of pydantic's places that are no keys


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 booleans and floats, and no silent duplicate keys."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|nan))$"),
    list("-+0123456789."),
)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            message = (
                "merge keys (<<) are none of YAML 1.2, which configs are in: repeat what is shared, or give a list"
            )
            raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


@dataclass(frozen=True)
class Reading:
    """A config as it was read: its values, and the files and overrides in which its mistakes have their place.

    Attributes
    ----------
    sources : the config's own file under the empty key, and the files that stand for one of its keys under that key.
    """

    config: Config
    sources: Mapping[str, ConfigFile]
    overrides: tuple[str, ...]

    def error(self, problems: Sequence[Problem]) -> ConfigError:
        """The error to raise for these mistakes: each with its file, line, key and value."""
        return ConfigError(render_problems(self.sources, problems, self.overrides), problems)


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> Reading:
    """Read and override a config file; shapes and types are checked, names and files are not.

    Parameters
    ----------
    path : path of a YAML file.
    overrides : ``key.path=value`` strings; the value is read as YAML, list items are addressed by number.

    Raises
    ------
    ConfigError
        With file, key path, value and the valid choices of every mistake found.
    """
    file = Path(path)
    raw, root = _parse(file)
    sources = {"": ConfigFile(file, root)}
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: a config is a mapping of keys such as name, grid, probe_datasets")
    for override in overrides:
        _apply(raw, override)
    if isinstance(raw.get("recipes"), str):
        raw["recipes"], sources["recipes"] = _recipes(file.parent / Path(raw["recipes"]).expanduser())
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems = list(_from_pydantic(error))
        raise ConfigError(render_problems(sources, problems, overrides), problems) from None
    paths = {"data_root": _beside(file, config.data_root), "import_path": _beside(file, config.import_path)}
    return Reading(config.model_copy(update=paths), sources, tuple(overrides))


def _recipes(file: Path) -> tuple[list[Any], ConfigFile]:
    """The list that a file of recipes holds; it becomes part of the config."""
    raw, root = _parse(file, what="recipes")
    if not isinstance(raw, list):
        raise ConfigError(f"{file}: a recipes file is a list of {{when: {{...}}, recipe: {{...}}}}")
    return raw, ConfigFile(file, root)


def _beside(file: Path, directory: str | None) -> str:
    """A directory that a config names relative to its own; None is its own."""
    return str((file.parent / Path(directory or ".").expanduser()).resolve())


def _parse(file: Path, what: str = "config") -> tuple[Any, yaml.Node]:
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(_LONGEST + 1)
    except FileNotFoundError:
        near = sorted(str(p) for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        hint = f"; there are {', '.join(near)}" if near else ""
        raise ConfigError(f"{file}: no such {what} file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text: {error}") from None
    if len(text) > _LONGEST:
        raise ConfigError(f"{file}: a {what} of more than {_LONGEST:,} characters, which are the most that is read")
    value, root = _loaded(text, str(file), "not valid YAML")
    if root is None:
        raise ConfigError(f"{file}: this {what} file is empty")
    return value, root


def _loaded(text: str, where: str, wrong: str) -> tuple[Any, yaml.Node | None]:
    """What a YAML text stands for, and its nodes; None for an empty one."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, None
        if _values(root, {}) > _MOST_VALUES:
            raise ConfigError(
                f"{where}: its aliases (*) stand for more than {_MOST_VALUES:,} values: write what is meant"
            )
        return loader.construct_document(root), root
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: {wrong}: {error}") from None


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values that a node stands for, with every alias written out; each node is counted once."""
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1  # while it is counted: a node that holds itself has no end
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        else:
            node.value.encode()  # a lone half of a pair, which no column of text holds, is an error here
        known[id(node)] = 1 + sum(_values(part, known) for part in inner)
    return known[id(node)]


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one ``key.path=value`` in place."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {override}: expected key.path=value")
    value, _ = _loaded(text, f"--set {override[:200]}", "the value is not valid YAML")
    keys = name.split(".")
    target: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            if not key.isdigit() or int(key) >= len(target):
                where = ".".join(keys[:depth])
                raise ConfigError(f"--set {override}: {where} is a list of {len(target)} items, not {key!r}")
            index: Any = int(key)
        elif isinstance(target, dict):
            index = key
        else:
            raise ConfigError(f"--set {override}: {'.'.join(keys[:depth])} is a single value, it has no {key!r}")
        if last:
            target[index] = value
        elif isinstance(target, dict):
            target = target.setdefault(index, {})
            if target is None:
                raise ConfigError(f"--set {override}: {'.'.join(keys[: depth + 1])} is empty")
        else:
            target = target[index]


def _from_pydantic(error: ValidationError) -> Iterable[Problem]:
    """Turn pydantic's errors into problems: union members merged, consequences of other errors dropped."""
    merged: dict[KeyPath, Problem] = {}
    details = error.errors()
    for detail in details:
        kind, value, location = detail["type"], detail["input"], detail["loc"]
        path = tuple(key for key in location[:-1] if _is_key(key))
        if location and (kind == "extra_forbidden" or _is_key(location[-1])):  # an unknown key may look like anything
            path += (location[-1],)
        if kind == "too_short" and any(_is_below(d["loc"], location) for d in details):
            continue
        if kind == "extra_forbidden":
            problem = Problem(path, value, "unknown key", tuple(_model_at(path[:-1]).model_fields))
        elif kind == "missing":
            problem = Problem(path, None, "this key is required")
        else:
            problem = Problem(path, value, detail["msg"][0].lower() + detail["msg"][1:])
        if path in merged:
            problem = Problem(path, value, f"{merged[path].message}, or {problem.message}")
        merged[path] = problem
    return merged.values()


def _is_below(location: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    return len(location) > len(other) and location[: len(other)] == other


def _is_key(part: int | str) -> bool:
    """Whether a part of pydantic's location stands in the file; others name members of unions."""
    return isinstance(part, int) or (re.fullmatch(r"[\w.-]+", part) is not None and part not in _UNION_TAGS)


def _model_at(path: KeyPath) -> type[BaseModel]:
    """The model whose keys stand at this path of a config."""
    model: type[BaseModel] = Config
    for key in path:
        if isinstance(key, str) and key in model.model_fields:
            found = list(_models_in(model.model_fields[key].annotation))
            model = found[0] if found else model
    return model


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
