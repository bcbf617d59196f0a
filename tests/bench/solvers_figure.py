"""Draws ``docs/figures/probe_solvers.png``: two OOD curves of a published ResNet-56, by AdamW and converged.

TUNNEL_SWEEP_SHARED=DIR python -m tests.bench.solvers_figure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.probes import ProbeResult, fit_probes

from . import machine, real, solvers

FILE = machine.ROOT / "docs" / "figures" / "probe_solvers.png"
_CURVES = [real.Curve("clothing", 56), real.Curve("trashnet", 56)]
_COLOURS = {"AdamW 30": "#999999", "converged": "#0b6e99"}


def measured(curve: real.Curve) -> dict[str, list[ProbeResult]]:
    """The results of both solvers, layer by layer."""
    data = real.embeddings(curve)
    return {
        name: [result for result in fit_probes(data, solvers.SOLVERS[name], seed=solvers.SEED) if result.chosen]
        for name in _COLOURS
    }


def draw(found: Mapping[str, Mapping[str, Sequence[ProbeResult]]], file: Path) -> None:
    """One panel per curve: test accuracy by layer, and what the last layer keeps in the legend."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for place, (title, results) in zip(axes, found.items(), strict=True):
        _panel(place, title, results)
    axes[0].set_ylabel("test accuracy, %")
    figure.savefig(file, dpi=100)


def _panel(place: Axes, title: str, results: Mapping[str, Sequence[ProbeResult]]) -> None:
    for name, layers in results.items():
        label = f"{name}: last layer keeps {solvers.retained(layers):.0f} % of the peak"
        accuracies = [100 * result.top1 for result in layers]
        place.plot(range(1, len(layers) + 1), accuracies, color=_COLOURS[name], linewidth=2, label=label)
    low, high = place.get_ylim()
    place.set_ylim(low, high + 0.2 * (high - low))  # the legend stands above the lines
    place.legend(loc="upper left", frameon=False, fontsize=9)
    place.set_title(title, loc="left", fontsize=11)
    place.set_xlabel("layer")
    place.spines[["top", "right"]].set_visible(False)


def main() -> int:
    """Measure, which takes half a minute, and draw."""
    if real.shared() is None:
        raise SystemExit("TUNNEL_SWEEP_SHARED must name a directory with study/weights and data")
    draw({f"ResNet-{curve.depth}, {curve.dataset}": measured(curve) for curve in _CURVES}, FILE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
