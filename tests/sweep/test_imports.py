"""Who may import whom in ``sweep/``: the rooms of the house (see CONTRIBUTING), one list without exceptions."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# each may import those after it; those of one line do not import each other
FLOORS = (
    ("run", "tune", "best_layer", "export_probe", "plugins"),  # plugins is for users' modules: no room imports it
    ("commands", "answer", "artefact"),
    ("driver",),
    ("cell",),
    ("train",),
    ("embed", "probes", "table"),
    ("study",),
    ("models",),
    ("data",),
    ("config",),
    ("register",),
    ("base",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LIGHT = (
    "config",
    "plugins",
    "register",
    "study",
    "models.facts",
    "data.facts",
    "commands",
)  # answer a mistake within a second
FILES = sorted((ROOT / "sweep").rglob("*.py"))


def imports_of(file):
    """Modules that a file imports, inside functions and under TYPE_CHECKING too, each with the names it takes."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            yield node.module, tuple(alias.name for alias in node.names)


def room_of(file):
    return file.relative_to(ROOT / "sweep").with_suffix("").parts[0]


def ours(file):
    """Rooms that a file imports from, with what stands behind the room's name."""
    for module, names in imports_of(file):
        if module == "sweep":
            yield from ((name, ()) for name in names)
        elif module.startswith("sweep."):
            room, *rest = module.split(".")[1:]
            yield room, tuple(rest)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_room_imports_only_those_below_it(file):
    here = room_of(file)
    if here == "__init__":
        assert not list(ours(file))
        return
    for room, rest in ours(file):
        if room == here:
            continue
        assert FLOOR[room] > FLOOR[here], f"{here} imports {room}, which stands above or beside it"
        assert not rest or room == "base", (
            f"{'.'.join((room, *rest))}: only the face of a room is imported from outside"
        )


def test_no_file_imports_in_a_circle():
    modules = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES}
    graph = {name: set() for name in modules}
    for name, file in modules.items():
        if file.name != "__init__.py":
            for module, names in imports_of(file):
                graph[name] |= {full for full in (module, *(f"{module}.{n}" for n in names)) if full in modules}
    done = set()

    def visit(name, trail):
        assert name not in trail, " → ".join((*trail, name))
        for other in graph[name] - done:
            if modules[other].name != "__init__.py":
                visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_ray_only_in_the_driver_and_analysis_nowhere(file):
    tops = {module.split(".")[0] for module, _ in imports_of(file)}
    assert "ray" not in tops or room_of(file) == "driver"
    assert "analysis" not in tops


@pytest.mark.parametrize(
    "imports",
    [
        "import " + ", ".join(f"sweep.{name}" for name in LIGHT),
        "import sweep.data.images; from sweep.cell import decode; from sweep.train.augment import STRONG",
    ],
    ids=["validating a config", "decoding"],
)
def test_what_others_wait_for_imports_nothing_heavy(imports):
    code = f"import sys; {imports}; print(sorted({{'torch', 'timm', 'ray', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_and_functions_stay_small(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node)
            body = node.end_lineno - node.lineno + 1 - (len(doc.splitlines()) if doc else 0)
            assert body <= 45, f"{node.lineno} {node.name} has {body} lines"
