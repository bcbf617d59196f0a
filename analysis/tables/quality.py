"""How far the probes themselves can be trusted: converged, smooth by layer, the same for another seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.tables.metrics import Curves

JUMP = 0.20  # a difference of accuracy between neighbouring layers that needs an explanation
FALLEN = 0.05  # below the best layer before: more than the noise of a few hundred test images
MOST_UNFINISHED = 0.20  # share of probes that may be best in their last epoch
MOST_UNCONVERGED = 0.10  # share of probes that may end where their gradient is not yet small
MOST_JUMPING = 0.25  # share of curves that may jump
MOST_SPREAD = 0.05  # of accuracy, between seeds of one probe


@dataclass(frozen=True)
class Quality:
    """Shares and spreads; None where the table does not say.

    Attributes
    ----------
    unconverged : share of probes, among those of which it is known, whose gradient did not become small.
    unfinished : share of probes whose best epoch on held-out images is their last: they had not converged.
    jumping : share of curves in which accuracy falls by more than :data:`JUMP` from a layer to the next, or rises so
        after it had fallen. The first rise is no jump: it is steep wherever the first layers know next to nothing.
    spread : median standard deviation of accuracy over the seeds of one probe.
    """

    probes: int
    curves: int
    unfinished: float | None
    jumping: float | None
    spread: float | None
    unconverged: float | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know first; empty if every limit is kept."""
        found = []
        if self.unconverged is not None and self.unconverged > MOST_UNCONVERGED:
            found.append(
                f"{100 * self.unconverged:.0f} % of {self.probes} probes did not converge (limit "
                f"{100 * MOST_UNCONVERGED:.0f} %): a tunnel is a difference between layers, and part of this one may "
                "be their probes' training; probe.solver: converged fits them to the end"
            )
        if self.unfinished is not None and self.unfinished > MOST_UNFINISHED:
            found.append(
                f"{100 * self.unfinished:.0f} % of {self.probes} probes were best in their last epoch (limit "
                f"{100 * MOST_UNFINISHED:.0f} %): they had not converged, so part of what looks like a tunnel may be "
                "the probe"
            )
        if self.jumping is not None and self.jumping > MOST_JUMPING:
            found.append(
                f"in {100 * self.jumping:.0f} % of {self.curves} curves accuracy falls by more than {100 * JUMP:.0f} "
                f"points from one layer to the next, or rises so after a fall (limit "
                f"{100 * MOST_JUMPING:.0f} % of the curves)"
            )
        if self.spread is not None and self.spread > MOST_SPREAD:
            found.append(
                f"the same probe with another seed differs by {100 * self.spread:.1f} points of accuracy (standard "
                f"deviation, median; limit {100 * MOST_SPREAD:.0f})"
            )
        return tuple(found)


def of(every: pd.DataFrame, curves: Curves) -> Quality:
    """Quality of the probes of a sweep.

    Parameters
    ----------
    every : all probes of kept checkpoints, those that held-out images did not choose included.
    curves : the complete curves among the chosen ones.
    """
    table = every[every["chosen"].fillna(True).astype(bool)] if "chosen" in every else every
    unfinished = None
    if {"epoch_chosen", "probe_epochs"} <= set(table) and (table["probe_epochs"].fillna(0) > 1).any():
        known = table[table["probe_epochs"].notna() & table["epoch_chosen"].notna() & (table["probe_epochs"] > 1)]
        unfinished = float((known["epoch_chosen"] >= known["probe_epochs"]).mean()) if len(known) else None
    known_N = table["converged"].dropna().to_numpy(bool) if "converged" in table else np.zeros(0, dtype=bool)
    unconverged = float((~known_N).mean()) if len(known_N) else None
    return Quality(len(table), len(curves.table), unfinished, _jumping(curves), _spread(every), unconverged)


def _jumping(curves: Curves) -> float | None:
    step_N = np.diff(curves.accuracy_N)
    inner = np.ones(len(step_N), dtype=bool)
    inner[curves.stop_C[:-1] - 1] = False  # from the last layer of one curve to the first of the next
    curve_N = np.searchsorted(curves.stop_C, np.arange(len(step_N)), side="right")
    if not inner.any():
        return None
    whole_N = np.searchsorted(curves.stop_C, np.arange(len(curves.accuracy_N)), side="right")
    best_N = pd.Series(curves.accuracy_N).groupby(whole_N).cummax().to_numpy()
    fallen_N = curves.accuracy_N[:-1] < best_N[:-1] - FALLEN
    jump_N = (step_N < -JUMP) | ((step_N > JUMP) & fallen_N)
    jumps = np.bincount(curve_N[inner], weights=jump_N[inner], minlength=len(curves.table))
    return float((jumps > 0).mean())


def _spread(every: pd.DataFrame) -> float | None:
    keys = [name for name in ("curve_key", "layer", "probe_lr", "probe_weight_decay") if name in every]
    if "probe_seed_index" not in every or every["probe_seed_index"].nunique() < 2:
        return None
    spread = every.groupby(keys, dropna=False)["top1"].std()
    return float(spread.median()) if spread.notna().any() else None
