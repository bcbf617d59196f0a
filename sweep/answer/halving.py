"""Successive halving within a budget of time: many models on few images, the better ones on all.

Rounds are sweeps of their own, in a store beside the answer's, so that one that was interrupted goes on. Held-out
images decide in every round, never test images. What a round took says what the rest will take; the numbers come from
the table, so that a rerun decides as the first run did.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep import driver
from sweep.answer.finish import finish, reasons
from sweep.answer.names import Model
from sweep.answer.question import Question, checked
from sweep.base.errors import UserError
from sweep.base.line import duration
from sweep.base.store import Store
from sweep.study import sizes
from sweep.table import best_row, choosing_columns

_FIRST, _GROWTH = 10, 3  # images of a class in the first round, and how many times as many in each next one
_HELDOUT = 0.3  # of a round's images: few images choose badly
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """``20m``, ``1h30m``, ``90s`` or a number of seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([hms]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        raise UserError(f"--budget {text}: not a time; write 20m, 1h30m or 90s")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise UserError(f"--budget {text}: there is no time in it")
    return total


@dataclass(frozen=True)
class Candidate:
    """A model after a round.

    Attributes
    ----------
    score : top-1 of its best layer on images that chose it, and minus their loss.
    layers : names of its better half, and of the last one.
    network : names of all layers that were probed, in order.
    per_image : s of extraction and probes.
    """

    model: Model
    score: tuple[float, float]
    layers: tuple[str, ...]
    network: tuple[str, ...]
    per_image: float


@dataclass(frozen=True)
class Round:
    """Candidates after a round, the best first; what it took, s; images it saw, and those of the whole dataset."""

    found: tuple[Candidate, ...]
    seconds: float
    images: int
    whole: int


@dataclass(frozen=True)
class Kept:
    """What goes on: models, by architecture a pattern of the layers that are still probed, and what these are of."""

    question: Question
    layers: dict[str, str]
    networks: dict[Model, tuple[str, ...]]


def halve(question: Question, store: Store, budget: float) -> Kept:
    """Narrow the models until all images of those that are left fit into the budget.

    Raises
    ------
    UserError
        If not even one model fits, or all failed.
    """
    left, per_class = budget * min(len(question.models), os.cpu_count() or 1), _FIRST
    for number in itertools.count(1):
        this = _round(question, store, per_class, number)
        left -= this.seconds
        names = ", ".join(f"{each.model.name} {100 * each.score[0]:.0f} %" for each in this.found)
        print(f"round {number}, {this.images:,} images: held-out {names}", file=sys.stderr)
        fitting, first = _fitting(this, left), this.found[0]
        if not fitting:
            raise UserError(
                f"--budget: too small: {first.model.name} alone takes about {duration(first.per_image * this.whole)} "
                f"on all {this.whole:,} images; give more, or smaller models, or --few-shot"
            )
        half = this.found[: math.ceil(len(this.found) / 2)]
        images = this.images * _GROWTH
        closer = sum(each.per_image for each in half) * images + first.per_image * this.whole
        if len(fitting) >= len(half) or closer > left or 2 * images > this.whole:
            break
        question, per_class = question.only([each.model for each in half]), per_class * _GROWTH
    print(f"on all {this.whole:,} images: {', '.join(each.model.name for each in fitting)}", file=sys.stderr)
    networks = {each.model: each.network for each in fitting}
    return Kept(question.only(list(networks)), _patterns(fitting), networks)


def _fitting(this: Round, left: float) -> list[Candidate]:
    """As many of the best as see all images in the seconds that are left."""
    totals = itertools.accumulate(each.per_image * this.whole for each in this.found)
    return [each for each, total in zip(this.found, totals, strict=True) if total <= left]


def _round(question: Question, store: Store, per_class: int, number: int) -> Round:
    """Every model on so many training images of a class; of test images one, which nothing looks at."""
    whole = sizes(checked(question.config(datasets=question.with_images(question.few_shot)), store), question.data)
    few = question.with_images(min(per_class, question.few_shot or per_class), 1)
    values = question.config(name=f"{question.name}-round-{number}", datasets=few, holdout=_HELDOUT, keep_probes=None)
    sweep = driver.prepare(checked(values, store, f"round-{number}.yaml"), store.uri)
    outcome, rows = finish(sweep)
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        curves.setdefault(row["curve_key"], []).append(row)
    found = [each for each in map(_candidate, curves.values()) if each is not None]
    if not found:
        raise UserError(f"no model could be probed: {reasons(outcome)[0]}")
    for line in reasons(outcome):
        print(line, file=sys.stderr)
    cost = sum(rows[0]["embed_seconds"] + rows[0]["probe_seconds"] for rows in curves.values())
    images = max(rows[0]["n_train"] + rows[0]["n_test"] for rows in curves.values())
    ordered = sorted(found, key=lambda each: each.score, reverse=True)
    return Round(tuple(ordered), cost, images, whole.train + whole.test)


def _candidate(rows: Sequence[Mapping[str, Any]]) -> Candidate | None:
    best = best_row(rows)
    if best is None:
        return None
    running = [row for row in rows if row["chosen"] and row["problem"] is None]
    top1, loss = choosing_columns(running)
    ordered = sorted(running, key=lambda row: (-row[top1], row[loss]))
    half = {row["layer_name"] for row in ordered[: math.ceil(len(ordered) / 2)]}
    names = [row["layer_name"] for row in rows if row["layer_name"] in half or row["is_penultimate"]]
    cost = best["embed_seconds"] + best["probe_seconds"]
    return Candidate(
        Model(best["architecture"], best["pretraining"]),
        (best[top1], -best[loss]),
        tuple(dict.fromkeys(names)),
        tuple(dict.fromkeys(row["layer_name"] for row in sorted(rows, key=lambda row: row["layer"]))),
        cost / (best["n_train"] + best["n_test"]),
    )


def _patterns(kept: Sequence[Candidate]) -> dict[str, str]:
    """By architecture the layers that are worth all images; of an input of a module no pattern can speak."""
    names: dict[str, dict[str, None]] = {}
    for each in kept:
        names.setdefault(each.model.architecture, {}).update(dict.fromkeys(each.layers))
    return {
        architecture: "|".join(map(re.escape, layers))
        for architecture, layers in names.items()
        if not any(" (input)" in layer for layer in layers)
    }
