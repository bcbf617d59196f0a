"""What a run is asked for: a config, its grid with keys, and the store."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sweep import table
from sweep.base.store import Store
from sweep.config import Config
from sweep.study import Grid, Keyring, Planned, PlannedCell, PlannedCourse, Rates


@dataclass(frozen=True)
class Sweep:
    """A config with everything that follows from it and from what is stored.

    ``cells`` are those of the grid with the keys of their curves; ``profile`` names the profile the run is to have;
    ``threads`` is what ``threads: auto`` stands for, if that is settled; ``rates`` are those of ``--calibrate``, if it
    was asked.
    """

    config: Config
    grid: Grid
    keys: Keyring
    cells: tuple[PlannedCell, ...]
    store: Store
    profile: str | None = None
    threads: int | None = None
    rates: Rates | None = None

    @functools.cached_property
    def curves(self) -> dict[str, Planned]:
        """What there is to compute: planned curves by key, in plan order; of those that share a key the first."""
        found: dict[str, Planned] = {}
        for planned in self.planned:
            found.setdefault(planned.key, planned)
        return found

    @property
    def planned(self) -> Iterator[Planned]:
        """Every curve of the grid with its keys."""
        return (planned for cell in self.cells for planned in cell.curves)

    @functools.cached_property
    def courses(self) -> dict[str, PlannedCourse]:
        """Series of tasks by key, in plan order."""
        return {course.key: course for cell in self.cells for course in cell.courses}

    def listing(self) -> table.Listing:
        """What the store has: curves, and courses where there are any."""
        found = table.listing(self.store)
        learned = table.done_courses(self.store) if self.courses else frozenset()
        return replace(found, done=found.done | learned, failed=found.failed - learned)
