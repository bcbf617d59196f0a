"""Who may import whom: the rooms of the house (see CONTRIBUTING)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DRIVER = ("driver_cluster", "driver_tasks", "driver_train", "tune_ray")
ONLY_HERE = {"ray": {f"sweep/{name}.py" for name in DRIVER}}
LIGHT = [
    "sweep.config",
    "sweep.config.read",
    "sweep.study.check",
    "sweep.models.facts",
    "sweep.study.grid",
    "sweep.study.plan",
]


def imports_of(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", sources("analysis"), ids=lambda f: f.name)
def test_analysis_knows_neither_torch_nor_ray_nor_sweep(file):
    tops = {name.split(".")[0] for name in imports_of(file)}
    assert not tops & {"torch", "torchvision", "timm", "ray", "sweep"}


@pytest.mark.parametrize("file", sources("sweep"), ids=lambda f: str(f.relative_to(ROOT)))
def test_ray_only_in_the_driver_and_analysis_nowhere(file):
    tops = {name.split(".")[0] for name in imports_of(file)}
    place = file.relative_to(ROOT).as_posix()
    assert "ray" not in tops or place in ONLY_HERE["ray"]
    assert "analysis" not in tops


def test_validating_a_config_imports_nothing_heavy():
    code = f"import sys, {', '.join(LIGHT)}; print(sorted({{'torch', 'timm', 'ray', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_and_functions_stay_small():
    for file in [*sources("sweep"), *sources("analysis")]:
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node)
                body = node.end_lineno - node.lineno + 1 - (len(doc.splitlines()) if doc else 0)
                assert body <= 45, f"{file}:{node.lineno} {node.name} has {body} lines"
