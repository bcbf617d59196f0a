"""Read a config: YAML in, a checked :class:`~sweep.config.Config` out, every mistake named with its place.

YAML is read as version 1.2 does: ``off``, ``on``, ``yes`` and ``no`` are words, and ``1e-3`` is a number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sweep.base.errors import UserError
from sweep.config import Config
from sweep.plugins import PluginImportError, load

KeyPath = tuple[str | int, ...]
MAX_SHOWN = 12
_UNION_TAGS = ("constrained-int", "range", "choices")  # parts of pydantic's places that are no keys


@dataclass(frozen=True)
class Source:
    """A file that a config was read from, and its nodes, which know their lines."""

    file: Path
    root: yaml.Node


@dataclass(frozen=True)
class Problem:
    """One mistake in a config: where, what stands there, what is wrong, and what would be valid."""

    path: KeyPath
    value: Any
    message: str
    valid: tuple[str, ...] = ()


class ConfigError(UserError):
    """A config that cannot be run; carries every problem found."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


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
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def read_config(path: str | Path, overrides: Sequence[str] = (), *, need_data: bool = False) -> Config:
    """Read, override and validate a config file.

    Parameters
    ----------
    path : path of a YAML file.
    overrides : ``key.path=value`` strings; the value is read as YAML, list items are addressed by number.

    need_data : also require the files of every dataset in use to be there.

    Raises
    ------
    ConfigError
        With file, key path, value and the valid choices of every mistake found.
    """
    from sweep.config_check import check

    file = Path(path)
    raw, root = _parse(file)
    sources = {"": Source(file, root)}
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
        raise ConfigError(_render(sources, problems, overrides), problems) from None
    paths = {"data_root": _beside(file, config.data_root), "import_path": _beside(file, config.import_path)}
    config = config.model_copy(update=paths)
    try:
        load(config.imports, config.import_path)
    except PluginImportError as error:
        problems = [Problem(("imports", error.position), config.imports[error.position], str(error))]
        raise ConfigError(_render(sources, problems, overrides), problems) from error
    if problems := check(config, need_data=need_data):
        raise ConfigError(_render(sources, problems, overrides), problems)
    return config


def _recipes(file: Path) -> tuple[list[Any], Source]:
    """The list that a file of recipes holds; it becomes part of the config."""
    raw, root = _parse(file, what="recipes")
    if not isinstance(raw, list):
        raise ConfigError(f"{file}: a recipes file is a list of {{when: {{...}}, recipe: {{...}}}}")
    return raw, Source(file, root)


def _beside(file: Path, directory: str | None) -> str:
    """A directory that a config names relative to its own; None is its own."""
    return str((file.parent / Path(directory or ".").expanduser()).resolve())


def _parse(file: Path, what: str = "config") -> tuple[Any, yaml.Node]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(p) for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        hint = f"; there are {', '.join(near)}" if near else ""
        raise ConfigError(f"{file}: no such {what} file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text: {error}") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
        raw = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    if root is None:
        raise ConfigError(f"{file}: this {what} file is empty")
    return raw, root


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one ``key.path=value`` in place."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {override}: expected key.path=value")
    try:
        value = yaml.load(text, Loader=_Loader) if text else None
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from None
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


def closest(value: Any, valid: Iterable[str]) -> list[str]:
    """The valid choices, those most like ``value`` first."""
    word = str(value).lower()
    return sorted(valid, key=lambda v: (-difflib.SequenceMatcher(None, word, v.lower()).ratio(), v))


def _render(sources: Mapping[str, Source], problems: Sequence[Problem], overrides: Sequence[str]) -> str:
    """Problems as lines of text.

    Parameters
    ----------
    sources : the config's own file under the empty key, and the files that stand for one of its keys under that key.
    """
    lines = []
    for problem in problems[:MAX_SHOWN]:
        path = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in problem.path).lstrip(".")
        where = _place(sources, problem.path, overrides)
        value = "" if problem.value is None else f" = {_short(problem.value)}"
        lines.append(f"{where}: {path}{value}: {problem.message}")
        if problem.valid:
            wanted = problem.path[-1] if problem.message == "unknown key" else problem.value
            choices = closest(wanted, problem.valid)
            shown, more = choices[:MAX_SHOWN], len(choices) - MAX_SHOWN
            lines.append(f"    valid: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}")
    if len(problems) > MAX_SHOWN:
        lines.append(f"and {len(problems) - MAX_SHOWN} more problems")
    return "\n".join(lines)


def _place(sources: Mapping[str, Source], path: KeyPath, overrides: Sequence[str]) -> str:
    """``file:line`` of a key path in the file that holds it, or the override that set it."""
    if len(path) > 1 and path[0] in sources:
        own = sources[str(path[0])]
        return f"{own.file}:{_line(own.root, path[1:])}"
    if override := next((o for o in overrides if _covers(o, path)), None):
        return f"--set {override}"
    main = sources[""]
    return f"{main.file}:{_line(main.root, path)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _covers(override: str, path: KeyPath) -> bool:
    keys = tuple(override.partition("=")[0].split("."))
    return tuple(str(k) for k in path)[: len(keys)] == keys


def _line(root: yaml.Node, path: KeyPath) -> int:
    """Line of the deepest node of ``path`` that the file has."""
    node, line = root, root.start_mark.line
    for key in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == key), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line
        else:
            break
    return line + 1
