"""Which model is ahead on the test images, and how sure that is.

Legend: M models, N test images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.answer.names import Model
from sweep.table import best_row, choosing_columns

_RESAMPLES = 2000
_LEVEL = 0.95
_BLOCK = 250  # resamples at a time: their counts of test images fit into memory


@dataclass(frozen=True)
class Answer:
    """One model's best layer, chosen on held-out images; numbers are from test images, in [0, 1].

    Attributes
    ----------
    low, high : 95 % Wilson interval of the accuracy.
    lost, lost_low, lost_high : best layer − last layer; the interval is that of the paired bootstrap.
    layer : its number in the network, of ``layers``; a budget may have left out others.
    right_N : which test images the best layer's probe has right.
    n_choosing : training images that chose the layer: all where the probes were cross-fitted, else those held out.
    """

    model: Model
    layer: int
    layers: int
    layer_name: str
    width: int
    resolution: int
    accuracy: float
    low: float
    high: float
    lost: float
    lost_low: float
    lost_high: float
    right_N: npt.NDArray[np.bool_]
    n_choosing: int
    curve_key: str


@dataclass(frozen=True)
class Lead:
    """The first model against another: difference of accuracies with a simultaneous 95 % interval."""

    other: Model
    difference: float
    low: float
    high: float

    @property
    def tied(self) -> bool:
        """Whether the interval holds zero."""
        return self.low <= 0


def answers(rows: Sequence[Mapping[str, Any]], networks: Mapping[Model, Sequence[str]] | None = None) -> list[Answer]:
    """Of each curve among rows of the table one answer, the highest test accuracy first; a failed curve has none.

    Parameters
    ----------
    networks : names of all layers of a model in order, where a budget had only some of them probed on all images.
    """
    curves: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        curves.setdefault((row["architecture"], row["pretraining"]), []).append(row)
    known = networks or {}
    found = [_answer(Model(*model), curve, known.get(Model(*model))) for model, curve in curves.items()]
    return sorted((each for each in found if each is not None), key=lambda each: (-each.accuracy, each.model.name))


def _answer(model: Model, curve: Sequence[Mapping[str, Any]], network: Sequence[str] | None) -> Answer | None:
    best = best_row(curve)
    if best is None:
        return None
    chooser, _ = choosing_columns([row for row in curve if row["chosen"] and row["problem"] is None])
    last = next(row for row in curve if row["is_penultimate"] and row["chosen"])
    right_N, n = _right(best), best["n_test"]
    low, high = wilson(int(right_N.sum()), n)
    lost = (0.0, 0.0, 0.0)
    if last is not best and last["problem"] is None:
        difference, error = paired(right_N, _right(last))
        margin = NormalDist().inv_cdf(0.5 + _LEVEL / 2) * error
        lost = (difference, difference - margin, difference + margin)
    return Answer(
        model,
        layer=network.index(best["layer_name"]) + 1 if network else best["layer"],
        layers=len(network) if network else max(row["layer"] for row in curve),
        layer_name=best["layer_name"],
        width=best["layer_width"],
        resolution=best["resolution"],
        accuracy=best["top1"],
        low=low,
        high=high,
        lost=lost[0],
        lost_low=lost[1],
        lost_high=lost[2],
        right_N=right_N,
        n_choosing=best["n_heldout" if chooser == "heldout_top1" else "n_train"],
        curve_key=best["curve_key"],
    )


def _right(row: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(row["correct"], dtype=np.uint8))[: row["n_test"]].astype(bool)


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927)."""
    z2 = NormalDist().inv_cdf(0.5 + _LEVEL / 2) ** 2
    centre = (right + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (right * (n - right) / n + z2 / 4)) / (n + z2)
    return centre - half, centre + half


def paired(one_N: npt.NDArray[np.bool_], other_N: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Difference of two accuracies on the same images, and its standard error by resampling these images.

    As if the two were apart on half an image more either way (Agresti and Min 2005): models that differ on few images
    are else called apart too often, and two that differ on none were known to be equal.
    """
    each_N = one_N.astype(np.float32) - other_N.astype(np.float32)
    n, rng = len(each_N), np.random.default_rng(0)
    drawn = [
        rng.multinomial(n, np.full(n, 1 / n), size=_BLOCK).astype(np.float32) @ each_N / n
        for _ in range(_RESAMPLES // _BLOCK)
    ]
    return float(each_N.mean()), math.hypot(float(np.concatenate(drawn).std()), 1 / n)


def leads(found: Sequence[Answer]) -> list[Lead]:
    """The first against each other one.

    The first is the first by these very images, so any two models might have been compared: the intervals hold for
    all pairs at once (Bonferroni).
    """
    pairs = len(found) * (len(found) - 1) / 2
    compared = []
    for other in found[1:]:
        difference, error = paired(found[0].right_N, other.right_N)
        margin = NormalDist().inv_cdf(1 - (1 - _LEVEL) / 2 / pairs) * error
        compared.append(Lead(other.model, difference, difference - margin, difference + margin))
    return compared


def sentence(found: Sequence[Answer]) -> str:
    """How sure the order is, in one sentence."""
    if len(found) < 2:
        return "There is one model: nothing to compare it with."
    compared = leads(found)
    first, n = found[0].model.name, len(found[0].right_N)
    tied = [lead for lead in compared if lead.tied]
    behind = [lead for lead in compared if not lead.tied]
    basis = f"paired bootstrap over {n:,} test images, 95 % for all pairs at once"
    if not tied:
        closest = behind[0]
        return f"{first} is ahead of {_all(behind)}: {_by(closest)} to {closest.other.name}, the closest ({basis})."
    words = f"{first} is not surely ahead: it is tied with {', '.join(lead.other.name for lead in tied)}"
    rest = f", and ahead of {_all(behind)}" if behind else ""
    return f"{words}{rest}; to {tied[0].other.name} it is {_by(tied[0])} ({basis})."


def _all(behind: Sequence[Lead]) -> str:
    return behind[0].other.name if len(behind) == 1 else f"the other {len(behind)}"


def _by(lead: Lead) -> str:
    return f"{100 * lead.difference:.1f} points ({100 * lead.low:.1f} to {100 * lead.high:.1f})"
