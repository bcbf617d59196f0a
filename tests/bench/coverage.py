"""How often a page is right: tables whose truth is known, with effects of backbones, configurations, architectures.

    python -m tests.bench coverage

Of nothing: how many pages assert an effect. Of an effect: how often its 95 % interval holds the truth, and how often it
is asserted. The trees, which can only keep a page from asserting more, are left out; their intervals are measured on
fewer tables. Writes what the page's small print quotes: ``analysis/page/calibration.json``. What is done is kept in
``build/coverage`` for this very code, so that a run that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from analysis.estimates import adjusted, effects, interactions, outcome, pairs, resampling, trees
from analysis.estimates.estimate import COMPARISONS, CONFIRMED, INTERACTIONS, Estimate, basic_interval, holm
from analysis.tables.experiments import Experiments
from analysis.tables.names import TARGETS
from analysis.tables.variables import describe
from tests import synthetic_cases

from . import report

TABLES, FEWER = 600, 200  # a share near 5 % takes many tables to be known; fewer of what is slow or seldom asserted
RESAMPLES, WITH_TREES = 200, 10
AT_ONCE = 20  # tables after which what is done is kept
ROOT = Path(__file__).parents[2]
CALIBRATION = ROOT / "analysis" / "page" / "calibration.json"


@dataclass(frozen=True)
class Cell:
    """One kind of table: how it is drawn, which variable has an effect, and how large that is.

    Attributes
    ----------
    level : of an unordered variable the level whose effect it is.
    alike : whether clusters do not differ either, so that a comparison of them may assert nothing.
    """

    name: str
    draw: str
    options: Mapping[str, float]
    variable: str = ""
    effect: float = 0.0
    level: str = ""
    tables: int = TABLES
    alike: bool = False


CELLS = (
    Cell("no effect, 64 backbones", "independent", {}),
    Cell("no effect, 8 architectures", "architectures", {"augmentation": 0.0}),
    Cell("no effect, 8 architectures that answer each its way", "answering", {}),
    Cell("no effect, 8 like architectures", "architectures", {"augmentation": 0.0, "spread": 0.0}, alike=True),
    Cell("no effect, the published design", "published", {}),
    Cell("no effect, 32 configurations trained twice", "repeated", {}),
    Cell("no effect, 200 models of 30 families", "observed", {}),
    *(
        Cell(f"{size:g} points of {what}", draw, {**only, option: size}, variable, size, level, tables)
        for what, draw, option, variable, level, only, tables in (
            ("a backbone", "independent", "effect", "a", "", {}, TABLES),
            ("a configuration", "repeated", "effect", "a", "", {}, TABLES),
            ("what varies within architectures", "architectures", "augmentation", "augmentation", "", {}, TABLES),
            ("augmentation in the published design", "published", "augmentation", "augmentation", "", {}, FEWER),
            ("an architecture", "architectures", "depth", "depth", "", {"augmentation": 0.0}, FEWER),
            ("an objective, 200 models", "observed", "effect", "objective", "objective: ssl", {}, FEWER),
        )
        for size in (5.0, 10.0)
    ),
)


@dataclass(frozen=True)
class Page:
    """What a page of one table says, trees aside: effects, and names of all that it asserts."""

    found: Mapping[str, Estimate]
    asserted: tuple[str, ...]


def page(experiments: Experiments, *, compared: bool = True) -> Page:
    """Estimates and corrected verdicts of a table; ``compared``: comparisons of clusters are among what it asserts."""
    variables = describe(
        experiments.frame, experiments.variables, experiments.kinds, logs=experiments.logs,
        references=experiments.references,
    )  # fmt: skip
    made = outcome.prepared(experiments, variables, TARGETS["retained"], "default")
    design, bound, apart = made.task.design, made.task.ties, made.additive
    names = [design.names[term[0]] for term in made.task.terms]
    found = {
        name: adjusted.estimate(design, bound, apart.mean_B, apart.component_B, name) for name in names
    }  # fmt: skip
    corrected = holm([own.p if own is not None else None for own in found.values()], share=CONFIRMED)
    told = [name for name, p in zip(found, corrected, strict=True) if p is not None and p < 0.05]
    searched = interactions.found(design, bound, apart.mean_B)
    p = holm([i.estimate.p for i in searched], share=INTERACTIONS)
    told += [
        f"{i.variable} × {i.partner}" for i, x in zip(searched, p, strict=True) if i.corrected(x).estimate.asserted
    ]
    headline = {name: effects.headline(own) for name, own in found.items() if own is not None}
    headline |= {
        f"{name}: {level.level}": Estimate(level.contrast.value, *level.contrast.interval())
        for name, own in found.items() if own is not None for level in own.levels
    }  # fmt: skip
    return Page(headline, (*told, *(_comparisons(experiments, made, variables) if compared else [])))


def _comparisons(experiments: Experiments, made: outcome.Fitted, variables: Any) -> list[str]:
    if not experiments.clusters:  # without them no comparison of clusters is looked at
        return []
    table = outcome.backbones(experiments, [made])
    found = []
    for variable in variables:
        for low, high in pairs.level_pairs(variable):
            match = pairs.find_match(table, variable.name, low, high)
            own = None if match is None else pairs.contrast(table, match, "retained", (variable.name, low, high))
            found += [own] if own is not None and own.searched else []
    p = holm([c.estimate.p for c in found], share=COMPARISONS)
    return [f"clusters: {c.variable}" for c, x in zip(found, p, strict=True) if c.estimate.corrected(x).asserted]


def one(number: int, cell: Cell) -> tuple[bool, bool | None, bool | None]:
    """Of one table: whether anything is asserted of what has no effect, interval holds the truth, effect asserted."""
    drawn = getattr(synthetic_cases, cell.draw)(np.random.default_rng([number, 7]), **cell.options)
    with TemporaryDirectory() as folder:
        said = page(drawn.read(Path(folder)), compared=cell.alike)  # elsewhere clusters differ: to say so is true
    false = [name for name in said.asserted if name != cell.variable]
    if not cell.variable:
        return bool(false), None, None
    own = said.found[cell.level or cell.variable]
    holds = own.low is not None and own.high is not None and own.low <= cell.effect <= own.high
    return bool(false), holds, cell.variable in said.asserted


def trees_hold(number: int) -> tuple[bool, bool]:
    """Whether the trees' interval, and that of the SHAP slope, hold an effect of ten points in one table."""
    drawn = synthetic_cases.independent(np.random.default_rng([number, 8]), effect=10.0)
    with TemporaryDirectory() as folder:
        experiments = drawn.read(Path(folder))
    variables = describe(experiments.frame, experiments.variables, experiments.kinds)
    made = outcome.prepared(experiments, variables, TARGETS["retained"], "default")
    job, fitted = made.task, trees.attribute(made.task)
    draws = resampling.resample(
        [job], [["backbone"]], bootstrap=RESAMPLES, permutations=0, jobs=1, progress=lambda done, total: None
    )[0]["backbone"]
    at = [job.design.names[term[0]] for term in job.terms].index("a")
    apart = [values[:, 1] - values[:, 0] for values in (draws.level_TRL[at], fitted.level_TL[at][None])]
    bounds = basic_interval(float(apart[1][0]), apart[0])
    slope = basic_interval(float(fitted.term_ST[:, at].mean()), draws.term_RT[:, at])
    return tuple(low is not None and high is not None and low <= 0.1 <= high for low, high in (bounds, slope))  # type: ignore[return-value]


def run(*, quick: bool) -> dict[str, Any]:
    """All cells; not quick, what the page quotes is written too."""
    cells = [CELLS[0], CELLS[1], next(cell for cell in CELLS if cell.variable)] if quick else CELLS
    with (
        TemporaryDirectory() as passing,
        ProcessPoolExecutor(1 if quick else os.cpu_count(), multiprocessing.get_context("spawn")) as pool,
    ):
        folder = Path(passing) if quick else ROOT / "build" / "coverage" / _code()
        measured = [
            _cell(cell, _each(partial(one, cell=cell), 3 if quick else cell.tables, folder / f"{cell.name}.json", pool))
            for cell in cells
        ]
        hold = [] if quick else _each(trees_hold, WITH_TREES, folder / "trees.json", pool)
    result = {
        "cells": measured, "with_trees": len(hold),
        "trees": float(np.mean([t for t, _ in hold])) if hold else None,
        "slopes": float(np.mean([s for _, s in hold])) if hold else None,
    }  # fmt: skip
    if not quick:
        quoted = [{"name": cell["name"], "tables": cell["tables"], "text": _text(cell)} for cell in measured]
        CALIBRATION.write_text(json.dumps({"cells": quoted}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _code() -> str:
    """What the results come from: the estimates, the draws, and this."""
    rooms = [file for room in ("tables", "design", "estimates") for file in (ROOT / "analysis" / room).glob("*.py")]
    files = sorted([*rooms, Path(__file__), Path(synthetic_cases.__file__)])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _each(function: Callable[[int], Any], tables: int, kept: Path, pool: Executor) -> list[Any]:
    """The answers of tables 0, 1, …; those that were kept are not asked for again."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    while len(found) < tables:
        found.extend(pool.map(function, range(len(found), min(len(found) + AT_ONCE, tables))))
        whole = kept.with_suffix(".part")
        whole.write_text(json.dumps(found), encoding="utf-8")
        whole.replace(kept)
    return list(found[:tables])


def _cell(cell: Cell, found: list[tuple[bool, bool | None, bool | None]]) -> dict[str, Any]:
    false, holds, told = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    n, share = len(found), float(false.mean())
    return {
        "name": cell.name, "tables": n, "false": share,
        "error": float(np.sqrt(max(share * (1 - share), 1 / n / n) / n)),
        "coverage": float(holds.mean()) if cell.variable else None,
        "power": float(told.mean()) if cell.variable else None,
    }  # fmt: skip


def _text(cell: Mapping[str, Any]) -> str:
    if cell["coverage"] is None:
        return f"{cell['false']:.1%} of pages assert one (± {cell['error']:.1%})".replace("%", " %")
    text = f"interval holds it in {cell['coverage']:.0%}, asserted in {cell['power']:.0%}"
    return text.replace("%", " %")


def markdown(result: Mapping[str, Any]) -> str:
    """The figures as a table."""
    head = ["kind", "tables", "pages that assert what is not", "95 % interval holds the truth", "effect asserted"]
    rows = [
        [
            cell["name"], str(cell["tables"]), f"{cell['false']:.1%} ± {cell['error']:.1%}",
            *("" if cell[key] is None else f"{cell[key]:.0%}" for key in ("coverage", "power")),
        ]
        for cell in result["cells"]
    ]  # fmt: skip
    text = "Trees aside: they only keep a page from asserting more.\n\n"
    text += report.table(head, rows)
    if result["with_trees"]:
        text += (
            f"\n\nThe trees' own intervals hold an effect of 10 points in {result['trees']:.0%} of "
            f"{result['with_trees']} tables of 64 backbones ({RESAMPLES} resamples), those of SHAP slopes in "
            f"{result['slopes']:.0%}."
        )
    return text
