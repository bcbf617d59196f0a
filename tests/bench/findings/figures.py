"""One figure per finding: the outcome by level on the left, layers on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import load
from analysis.tables import continual

from . import frames

COLOURS = ("#0b6e99", "#d9822b", "#4c8c4a", "#8e5ea2", "#7a7a7a", "#b03a2e", "#2f2f2f")
_KEPT = "% of the peak kept by the last layer"


def draw(name: str, store: str) -> Figure:
    """The figure of a finding by its name."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _PANELS.get(name, _of_levels)(name, store, left, right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


LEVELS: dict[str, tuple[str, ...]] = {
    "classes": ("id_classes", "images_per_class"),
    "depth": ("architecture", "width"),
    "phi": ("architecture",),
    "resolution": ("architecture", "resolution"),
    "augmentation": ("architecture", "augmentation"),
    "temperature": ("architecture", "temperature"),
}


def _of_levels(name: str, store: str, left: Axes, right: Axes) -> None:
    columns = list(LEVELS[name])
    frame = frames.backbones(store, f"findings-{name}").sort_values(["depth", *columns])
    level = frame[columns].map(_word).agg(" × ".join if name == "classes" else ", ".join, axis=1)
    names = list(dict.fromkeys(level))
    _dots(left, names, [frame["retained"][level == each] for each in names])
    left.set_xlabel(", ".join(column.replace("_", " ") for column in columns))
    left.set_ylabel(_KEPT)
    layers = load.layers(frames.uri(store, f"findings-{name}"))
    layers = layers.assign(level=layers["backbone"].map(dict(zip(frame["backbone"], level, strict=True))))
    _curves(right, layers, names)


def _dots(axes: Axes, names: Sequence[str], values: Sequence[pd.Series], different: int | None = None) -> None:
    """A dot per backbone, a bar at the mean; so many colours in turn (one for each name)."""
    colours = _colours(different or len(names)) * len(names)
    for place, (own, colour) in enumerate(zip(values, colours, strict=False)):
        axes.plot([place] * len(own), own, "o", color=colour, alpha=0.8)
        axes.plot([place - 0.3, place + 0.3], [own.mean()] * 2, color=colour, lw=2)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize=8)


def _curves(axes: Axes, layers: pd.DataFrame, names: Sequence[str]) -> None:
    """Mean over backbones (and OOD datasets) of each layer's share of the peak; ID dashed."""
    for own, colour in zip(names, _colours(len(names)), strict=True):
        part = layers[layers["level"] == own]
        for is_id, style in ((False, "-"), (True, "--")):
            mean = part[part["is_id"] == is_id].groupby("layer")["share"].mean()
            axes.plot(mean.index, mean, style, color=colour, lw=1.6, label=None if is_id else own)
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("% of the peak layer's accuracy (ID dashed)", fontsize=9)
    axes.legend(frameon=False, fontsize=7)


def _emergence(name: str, store: str, left: Axes, right: Axes) -> None:
    frame = frames.along(store, f"findings-{name}")
    for (architecture, own), colour in zip(frame.groupby("architecture"), COLOURS, strict=False):
        for _, run in own.groupby("seed"):
            left.plot(run["epoch"], run["retained"], "o-", color=colour, lw=0.7, ms=3, alpha=0.6)
        mean = own.groupby("epoch")["retained"].mean()
        left.plot(mean.index, mean, color=colour, lw=2.4, label=architecture)
    left.set_xlabel("epochs of ID training")
    left.set_ylabel(_KEPT)
    left.legend(frameon=False)
    far = frames.distances(store, f"findings-{name}")
    deepest = far[far["architecture"] == sorted(far["architecture"].unique())[-1]]
    moments = [e for e in sorted(deepest["epoch"].unique()) if e > 0]
    for epoch, colour in zip(moments, COLOURS, strict=False):
        mean = deepest[deepest["epoch"] == epoch].groupby("layer")["value"].mean()
        right.plot(mean.index, mean, "o-", color=colour, ms=3, label=f"epoch {epoch:g}")
    right.set_xlabel(f"layer of {deepest['architecture'].iloc[0]}")
    right.set_ylabel("distance of weights, ‖W − W₀‖ / ‖W₀‖")
    right.set_ylim(0, 1.35 * right.get_ylim()[1])  # the legend stands above the lines
    right.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")


def _continual(name: str, store: str, left: Axes, right: Axes) -> None:
    table = continual.read(store, f"findings-{name}")
    assert table is not None
    table = table[(table["task"] == 1) & (table["kind"] == "combination")].assign(accuracy=100 * table["top1"])
    measured = table[table["split_by"] == "id95"]
    order = [
        c
        for c in ("E1+T1", "E1+T2", "E2+T2", "E2+T1", "E2+T1 fine-tuned", "E2 fine-tuned")
        if c in set(measured["combination"])
    ]
    groups = [(a, c) for c in order for a in sorted(measured["architecture"].unique())]
    _dots(
        left,
        [c if k % 2 == 0 else "" for k, (_, c) in enumerate(groups)],
        [measured["accuracy"][(measured["architecture"] == a) & (measured["combination"] == c)] for a, c in groups],
        different=measured["architecture"].nunique(),
    )
    left.axhline(20, color="#7a7a7a", lw=0.8, ls=":")  # chance, of five classes
    left.set_title(" and ".join(sorted(measured["architecture"].unique())) + ", left and right", fontsize=9, loc="left")
    left.set_ylabel("top-1 on task 1, % (dotted: chance)")
    deep = table[(table["split_by"] == "all") & (table["architecture"] == table["architecture"].max())]
    for own, colour in zip(("E1+T2", "E2+T1"), COLOURS, strict=False):
        mean = deep[deep["combination"] == own].groupby("split_layer")["accuracy"].mean()
        right.plot(mean.index, mean, "o-", color=colour, ms=3, label=own)
    right.set_xlabel(f"last layer of the extractor, {table['architecture'].max()}")
    right.set_ylabel("top-1 on task 1, %")
    right.legend(frameon=False)


def _resnets(name: str, store: str, left: Axes, right: Axes) -> None:
    frame = frames.resnets(store)
    for (dataset, own), colour in zip(frame.groupby("dataset"), COLOURS, strict=False):
        own = own.sort_values("depth")
        left.plot(own["depth"], own["retained"], "o-", color=colour, label=dataset)
    left.set_xticks(sorted(frames.NETWORKS.values()))
    left.set_xlabel("layers")
    left.set_ylabel(_KEPT)
    left.legend(frameon=False, fontsize=8)
    layers = load.layers(frames.uri(store, frames.RESNETS))
    owner = load.backbones(frames.uri(store, frames.RESNETS)).set_index("backbone")["architecture"]
    _curves(right, layers.assign(level=layers["backbone"].map(owner)), list(frames.NETWORKS))


def _solvers(name: str, store: str, left: Axes, right: Axes) -> None:
    for solver, colour in zip(frames.SOLVERS, COLOURS, strict=False):
        mean = frames.resnets(store, solver).groupby("depth")["retained"].mean()
        left.plot(mean.index, mean, "o-", color=colour, label=solver)
    left.set_xlabel("layers")
    left.set_xticks(sorted(frames.NETWORKS.values()))
    left.set_ylabel(_KEPT)
    left.legend(frameon=False)
    parts = []
    for solver in frames.SOLVERS:
        uri = frames.of_solver(store, solver)
        deepest = load.backbones(uri).set_index("architecture").loc["cifar_resnet56", "backbone"]
        layers = load.layers(uri)
        parts.append(layers[layers["backbone"] == deepest].assign(level=solver))
    _curves(right, pd.concat(parts), frames.SOLVERS)
    right.set_xlabel("layer of the network of 56")


_PANELS: dict[str, Callable[[str, str, Axes, Axes], None]] = {
    "emergence": _emergence,
    "continual": _continual,
    "resnets": _resnets,
    "solvers": _solvers,
}


def _colours(n: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(n)]


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
