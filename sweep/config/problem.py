"""What is wrong with a config, and how it is said: file, line, key, value, what would be valid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sweep.base.errors import UserError

KeyPath = tuple[str | int, ...]


MAX_SHOWN = 12


@dataclass(frozen=True)
class ConfigFile:
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


def closest(value: Any, valid: Iterable[str]) -> list[str]:
    """The valid choices, those most like ``value`` first."""
    word = str(value).lower()
    return sorted(valid, key=lambda v: (-difflib.SequenceMatcher(None, word, v.lower()).ratio(), v))


def render_problems(sources: Mapping[str, ConfigFile], problems: Sequence[Problem], overrides: Sequence[str]) -> str:
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


def _place(sources: Mapping[str, ConfigFile], path: KeyPath, overrides: Sequence[str]) -> str:
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
