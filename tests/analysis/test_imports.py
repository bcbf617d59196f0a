"""Who may import whom in this half: one list, from the top down, for every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDER = ("commands", "page", "study", "findings", "estimates", "design", "tables")  # each may import those after it
FREE = {"progress", "streams"}
FILES = sorted((ROOT / "analysis").rglob("*.py"))


def room(parts):
    """The room of a file or module below analysis/: its folder; a file beside the folders is a command but for two."""
    top = parts[0] if parts else "__init__"
    return top if top in {*ORDER, *FREE} else "commands"


def imports_of(file):
    """Modules of this half that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_of(file):
    """The files of this half that a file imports."""
    for name in imports_of(file):
        top, *parts = name.split(".")
        if top != "analysis":
            continue
        while parts and not (ROOT / "analysis").joinpath(*parts).with_suffix(".py").exists():
            parts.pop()  # a function or class of the module before it
        assert parts, f"{file}: imports {name}"
        yield (ROOT / "analysis").joinpath(*parts).with_suffix(".py")


def relative(file):
    return file.relative_to(ROOT / "analysis").with_suffix("").parts


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_room_imports_only_what_stands_below_it(file):
    own = room(relative(file))
    tops = {name.split(".")[0] for name in imports_of(file)}
    assert not tops & {"torch", "torchvision", "timm", "ray", "sweep"}
    for other in {room(relative(module)) for module in modules_of(file)} - {own} - FREE:
        assert own not in FREE, f"{file} imports {other}"
        assert ORDER.index(own) < ORDER.index(other), f"{own} imports {other}"


def test_no_circle():
    waiting = {file: set(modules_of(file)) for file in FILES}
    while waiting:
        free = {file for file, needs in waiting.items() if not needs & set(waiting)}
        assert free, f"these import one another: {sorted(map(str, waiting))}"
        waiting = {file: needs for file, needs in waiting.items() if file not in free}
