"""The recipe search without Ray: which recipes are tried for which backbones, what came out, which one is chosen.

A trial's outcome is a record in the store under a content key, as everything else here; a search that was killed,
or asked for more trials, runs what has no record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sweep.base.seeds import derive_seed
from sweep.config import Range, Search
from sweep.study.check_search import whole
from sweep.study.grid import Backbone, Grid
from sweep.study.keys import Keyring

_DIGITS = 3  # significant ones of a drawn value: people copy recipes


_DRAWS_PER_TRIAL = 20


TrialStatus = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One recipe tried for one group of backbones.

    Attributes
    ----------
    group : values of the ``search.per`` keys that the backbones share.
    number : within the group; 0 is the recipe that the config gives.
    backbone : the one that stands for the group, with the recipe to try.
    searched : the recipe's values under the searched keys.
    """

    group: tuple[tuple[str, Any], ...]
    number: int
    backbone: Backbone
    searched: tuple[tuple[str, Any], ...]

    @property
    def label(self) -> str:
        """Group and recipe for people."""
        values = ", ".join(f"{key} {value:g}" for key, value in self.searched)
        return f"{group_label(self.group)}: {values}"


@dataclass(frozen=True)
class Record:
    """How a trial ended.

    Attributes
    ----------
    status : finished all its epochs, stopped early by ASHA, or failed.
    heldout_top1_epochs : held-out top-1 after each epoch, in [0, 1].
    n_heldout : images behind that.
    seconds : of training.
    problem : why it failed.
    """

    status: TrialStatus
    heldout_top1_epochs: tuple[float, ...] = ()
    n_heldout: int = 0
    seconds: float = 0.0
    problem: str | None = None

    @property
    def heldout_top1(self) -> float:
        """Held-out top-1 of the epoch that would be kept; NaN before the first."""
        return max(self.heldout_top1_epochs, default=math.nan)


@dataclass(frozen=True)
class TrialOutcome:
    """A trial with its record, None while there is none, and whether its recipe is the one to use."""

    trial: Trial
    key: str
    record: Record | None
    chosen: bool = field(default=False)


def group_label(group: Sequence[tuple[str, Any]]) -> str:
    """Values of a group for people."""
    return " ".join(f"{value} px" if key == "resolution" else str(value) for key, value in group)


def propose(search: Search, grid: Grid) -> list[Trial]:
    """Trials of every group, trial 0 of all groups first.

    A group is all trained backbones of the grid that share ``search.per``; the first of them in grid order stands for
    it. Recipes are points of a scrambled Halton sequence whose seed is the group's, so asking for more trials keeps
    those there are. Two equal recipes are one trial; a small space has fewer trials than asked for.
    """
    groups: dict[tuple[tuple[str, Any], ...], Backbone] = {}
    for cell in grid.cells:
        if cell.backbone.recipe is not None:
            groups.setdefault(tuple((key, getattr(cell.backbone, key)) for key in search.per), cell.backbone)
    trials = [trial for group, backbone in groups.items() for trial in _of_group(search, group, backbone)]
    return sorted(trials, key=lambda trial: trial.number)


def _of_group(search: Search, group: tuple[tuple[str, Any], ...], backbone: Backbone) -> list[Trial]:
    from scipy.stats import qmc

    assert backbone.recipe is not None
    fixed = {"train_on": "fit", "checkpoint_on": "heldout", "data_parallel": 1, "evaluate_every": 1}
    default = backbone.recipe.model_copy(update=fixed)
    recipes = [{key: getattr(default, key) for key in sorted(search.recipe)}]
    seed = derive_seed("search", search.seed, json.dumps(group))
    points = qmc.Halton(d=len(search.recipe), rng=seed).random(_DRAWS_PER_TRIAL * search.trials)
    for point in points:
        if len(recipes) == search.trials:
            break
        drawn = {key: _value(key, search.recipe[key], float(u)) for key, u in zip(recipes[0], point, strict=True)}
        if drawn not in recipes:
            recipes.append(drawn)
    return [
        Trial(group, number, replace(backbone, recipe=default.model_copy(update=recipe)), tuple(recipe.items()))
        for number, recipe in enumerate(recipes)
    ]


def _value(key: str, space: Range | tuple[Any, ...], u: float) -> Any:
    """The value at a share ``u`` in [0, 1) of a searched key's choices or range."""
    if not isinstance(space, Range):
        return space[int(u * len(space))]
    numbers = isinstance(whole(key, space.low), int)
    high = space.high + 1 if numbers else space.high  # a whole number stands for the interval that starts with it
    value = space.low * (high / space.low) ** u if space.log else space.low + u * (high - space.low)
    if numbers:
        return min(int(value), int(space.high))
    return min(max(float(f"{value:.{_DIGITS}g}"), space.low), space.high)


def trial_key(keys: Keyring, trial: Trial) -> str:
    """Content key of a trial: that of the weights it trains."""
    return keys.weights(trial.backbone)


def outcomes(trials: Sequence[Trial], keys: Keyring, records: Mapping[str, Record]) -> list[TrialOutcome]:
    """Every trial with its record; in each group the chosen one is marked."""
    found = [TrialOutcome(trial, key, records.get(key)) for trial in trials for key in [trial_key(keys, trial)]]
    best = {id(outcome) for outcome in map(_best, _by_group(found).values()) if outcome}
    return [replace(outcome, chosen=id(outcome) in best) for outcome in found]


def _by_group(found: Sequence[TrialOutcome]) -> dict[tuple[tuple[str, Any], ...], list[TrialOutcome]]:
    groups: dict[tuple[tuple[str, Any], ...], list[TrialOutcome]] = {}
    for outcome in found:
        groups.setdefault(outcome.trial.group, []).append(outcome)
    return groups


def _best(of_group: Sequence[TrialOutcome]) -> TrialOutcome | None:
    """The trial with the highest held-out top-1 of those that ran to their end; the config's recipe wins ties.

    No choice before the config's recipe has ended: what is chosen must not be worse.
    """
    ended = [o for o in of_group if o.record is not None and o.record.status == "finished"]
    default = next((o for o in of_group if o.trial.number == 0), None)
    if not ended or default is None or default.record is None:
        return None
    return max(ended, key=lambda o: (o.record.heldout_top1 if o.record else 0.0, -o.trial.number))
