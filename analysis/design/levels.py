"""On which level a variable varies: backbone ⊂ configuration ⊂ cluster (an architecture, a family, …).

The units of an estimate are those of the coarsest level on which its variable varies: backbones of one architecture
say little about what a property of architectures does. Legend: B backbones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.tables.errors import UserError
from analysis.tables.variables import Array

Index = npt.NDArray[np.int64]
FEWEST_UNITS = 8  # below this nothing is called clear, and what varies within few clusters holds for these only
FEWEST_CLUSTERS = 3  # of two, each with its own value, nothing can be said but which of the two is higher
CONFIGURATION, BACKBONE = "configuration", "backbone"


@dataclass(frozen=True)
class Level:
    """One level of the table, with the unit that each backbone belongs to, and the units' names."""

    name: str
    unit_B: Index
    names: tuple[str, ...] = ()

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return int(self.unit_B.max(initial=-1)) + 1

    def only(self, used: Index) -> Level:
        """The level of some of the backbones, its units numbered anew."""
        present, unit_R = np.unique(self.unit_B[used], return_inverse=True)
        return Level(self.name, unit_R.astype(np.int64), tuple(self.names[k] for k in present) if self.names else ())


@dataclass(frozen=True)
class Unit:
    """What the interval of a variable rests on.

    Attributes
    ----------
    level : whose units are taken as independent.
    within : whether the variable varies within these units, so that each shows its own effect.
    fixed : a coarser level whose units are compared within, not generalised from; None if there is none.
    clusters : units of ``fixed`` in which the variable varies.
    named : the two clusters that are compared, if the variable has one value in each and there are two only.
    """

    level: Level
    within: bool
    fixed: Level | None = None
    clusters: int = 0
    named: tuple[str, ...] = ()


def levels(frame: pd.DataFrame, clusters: Mapping[str, str], configuration_B: Index) -> tuple[Level, ...]:
    """Levels from coarse to fine.

    Parameters
    ----------
    frame : one row per backbone.
    clusters : name of a level → its column, as declared.
    configuration_B : number of each backbone's combination of values.

    Raises
    ------
    UserError
        If two declared clusters cross instead of lying in each other.
    """
    found = []
    for name, column in clusters.items():
        unit_B, names = pd.factorize(frame[column].astype(str), sort=True)
        found.append(Level(name, unit_B.astype(np.int64), tuple(map(str, names))))
    found.sort(key=lambda level: level.n_units)
    for coarse, fine in pairwise(found):
        if not _nested(fine.unit_B, coarse.unit_B):
            raise UserError(
                f"cluster: {fine.name} and {coarse.name} cross: a {fine.name} stands in several of {coarse.name}; "
                "declare levels of which each lies within the next"
            )
    if found:
        configuration_B = pd.factorize(configuration_B * (found[-1].n_units + 1) + found[-1].unit_B)[0].astype(np.int64)
    backbone = Level(BACKBONE, np.arange(len(frame), dtype=np.int64))
    own = Level(CONFIGURATION, configuration_B)
    return (*found, *([own] if own.n_units < backbone.n_units else []), backbone)


def _nested(fine_B: Index, coarse_B: Index) -> bool:
    return bool((pd.Series(coarse_B).groupby(fine_B).nunique() <= 1).all())


def unit_of(all_levels: Sequence[Level], code_B: Array) -> Unit:
    """The unit of a variable, from its codes (NaN: has no value)."""
    known = np.isfinite(code_B)
    fixed, clusters, named = None, 0, tuple[str, ...]()
    for level in all_levels[:-1]:
        unit = level.unit_B[known]
        spread = pd.Series(code_B[known]).groupby(unit).nunique()
        varying = int((spread > 1).sum())
        n_units = len(spread)
        if level.name == CONFIGURATION:
            if n_units >= FEWEST_UNITS:
                return Unit(level, False, fixed, clusters, named)
        elif varying == 0 and n_units >= FEWEST_CLUSTERS:
            return Unit(level, False, fixed, clusters, named)
        elif varying == 0:
            named = tuple(level.names[number] for number in spread.index)
        elif varying >= FEWEST_UNITS:
            return Unit(level, True)
        else:
            fixed, clusters = level, varying
    return Unit(all_levels[-1], False, fixed, clusters, named)
