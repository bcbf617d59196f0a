"""How the probes of a sweep are fitted, in words: their numbers cannot be read without it."""

from __future__ import annotations

from collections.abc import Iterable

from sweep.config import AUTO, CONVERGED, PENALTIES, Config, Probe
from sweep.study.grid import Curve, Grid


def probes_said(curves: Iterable[Curve]) -> str:
    """Every way in which curves are probed, in the order in which they first stand."""
    return "; ".join(dict.fromkeys(_said(probe) for curve in curves for probe in curve.probes))


def readings_lines(config: Config, grid: Grid) -> list[str]:
    """What is measured of layers besides, and of which backbones some of it cannot be."""
    asked = dict.fromkeys((*config.instruments, *config.readings))
    if not asked:
        return []
    lines = [f"measured of layers besides: {', '.join(asked)}"]
    backbones = [cell.backbone for cell in grid.cells]
    named = sum(backbone.recipe is None for backbone in backbones)
    if named and "weight_distance" in asked:
        lines.append(f"notice: weight_distance: {named} backbones are downloaded, and where they started is not known")
    apart = sum(not any(curve.is_id for curve in cell.curves) for cell in grid.cells)
    if apart and "ood_detection" in asked:
        lines.append(f"notice: ood_detection: {apart} backbones have no ID dataset that others could be told from")
    return lines


def _said(probe: Probe) -> str:
    parts = [probe.solver]
    if probe.solver == "adamw":
        parts.append(f"at most {probe.most_epochs} epochs" if probe.epochs == AUTO else f"{probe.epochs} epochs")
    if probe.solver != CONVERGED:
        parts.append(f"weight decay {probe.weight_decay:g}" if probe.solver in PENALTIES else f"lr {probe.lr:g}")
    elif len(probe.penalties) > 1:
        parts.append("penalty chosen on held-out images")
    parts.append("standardised" if probe.standardize == "feature" else "not standardised")
    if probe.check:
        parts.append(f"{probe.check:.0%} of layers checked")
    return ", ".join(parts)
