"""Where a network is split into extractor and tunnel: at layers that a config names, or that probes decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sweep import table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.cell.swaps import Place
from sweep.config import EVERY, MEASURED
from sweep.models import Anatomy
from sweep.study import PlannedCourse

_SHARES = {"id95": 0.95, "id98": 0.98}  # [M23]: of the last layer's ID accuracy


class NotYetError(UserError):
    """A probe curve that decides a split is not in the table; another run may find it."""


def places(planned: PlannedCourse, about: Anatomy, store: Store) -> list[Place]:
    """Every split that a course asks for, each layer once for each word.

    Raises
    ------
    NotYetError
        If a curve is not in the store that decides.
    UserError
        If a layer is not there, or a curve has no accuracy.
    """
    found: list[Place] = []
    for word in planned.course.splits:
        if word == EVERY:
            found += [Place(layer, EVERY, fine_tuned=False) for layer in range(1, len(about.layers) + 1)]
        elif word in MEASURED:
            found.append(Place(_measured(str(word), planned, store), str(word)))
        else:
            found.append(Place(named_layer(word, [layer.label for layer in about.layers]), f"layer {word}"))
    return found


def named_layer(word: int | str, names: Sequence[str]) -> int:
    """Number of a layer that is called by its number or its name."""
    if isinstance(word, int) and 1 <= word <= len(names):
        return word
    if word in names:
        return names.index(str(word)) + 1
    raise UserError(f"continual.split: {word}: no such layer; there are 1 to {len(names)}: {', '.join(names)}")


def _measured(word: str, planned: PlannedCourse, store: Store) -> int:
    """The layer that probes of the first task's weights decide."""
    if word in _SHARES:
        return first_reaching(_SHARES[word], _accuracies(store, planned.id_curve, "top1"))
    if not planned.ood_curves:
        raise UserError("continual.split: ood: no OOD dataset is probed; name some under probe_datasets")
    curves_DL = np.array([_accuracies(store, key, "heldout_top1") for key in planned.ood_curves])
    return int(curves_DL.mean(0).argmax()) + 1


def first_reaching(share: float, accuracy_L: np.ndarray) -> int:
    """Number of the first layer with so much of the last one's accuracy."""
    return int((accuracy_L >= share * accuracy_L[-1]).argmax()) + 1


def _accuracies(store: Store, curve_key: str, column: str) -> np.ndarray:
    """Accuracy of the chosen probes by layer, mean over replicates (L,)."""
    try:
        rows = table.read_fragments(store, [curve_key]).to_pylist()
    except FileNotFoundError:
        raise NotYetError(f"the probe curve {curve_key}, which decides the split, is not in the table") from None
    by_layer: dict[int, list[float]] = {}
    for row in rows:
        if row["chosen"]:
            by_layer.setdefault(row["layer"], []).append(row[column])
    return np.array([_mean(values, curve_key) for _, values in sorted(by_layer.items())])


def _mean(values: Iterable[float | None], curve_key: str) -> float:
    numbers = list(values)
    known = [value for value in numbers if value is not None]
    if len(known) < len(numbers):
        raise UserError(f"the probe curve {curve_key}, which decides the split, has a layer without accuracy")
    return float(np.mean(known))
