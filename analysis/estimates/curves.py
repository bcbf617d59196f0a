"""Layer curves for the page: which backbones are shown, and their curves averaged over replicates."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.experiments import Experiments
from analysis.tables.metrics import Curves
from analysis.tables.variables import Array

MOST = 12
TITLE_WIDTH = 46  # characters that fit above a panel


@dataclass(frozen=True)
class Panel:
    """Curves of one configuration, means over its backbones.

    Attributes
    ----------
    id, rank : accuracy on, and numerical rank of, the ID dataset by layer; None without an ID curve.
    ood : (dataset, accuracy by layer).
    start : layer from which accuracy falls in more than half of the experiments; None where it does not.
    """

    name: str
    title: str
    layer: Array
    id: Array | None
    ood: tuple[tuple[str, Array], ...]
    rank: Array | None
    start: float | None

    def plain(self) -> dict[str, Any]:
        """The numbers for report.json."""
        return {
            "configuration": self.name,
            "layer": self.layer.astype(int).tolist(),
            "id": None if self.id is None else self.id.tolist(),
            "ood": {dataset: values.tolist() for dataset, values in self.ood},
            "rank": None if self.rank is None else self.rank.tolist(),
            "tunnel_from": self.start,
        }


def panels(experiments: Experiments) -> tuple[list[Panel], str]:
    """Panels of layer curves, strongest tunnel first, and what is shown, in words.

    Backbones that differ only in a replicate (seed) are averaged. With more than :data:`MOST` configurations, an even
    choice from the strongest tunnel to the weakest is shown.
    """
    curves = experiments.curves
    if curves is None:
        return [], ""
    frame, replicates = experiments.frame, experiments.replicates
    own = frame.drop_duplicates("backbone").set_index("backbone")["label"]
    if replicates:
        own = own.map(lambda text: text.rsplit(", ", len(replicates))[0])
    named = frame.assign(configuration=frame["backbone"].map(own))
    order = named.groupby("configuration", sort=False)["retained"].mean()
    names = list(order.sort_values().index)
    chosen = (
        names if len(names) <= MOST else [names[i] for i in np.linspace(0, len(names) - 1, MOST).round().astype(int)]
    )
    made = [_panel(name, set(own[own == name].index), order[name], curves, frame) for name in chosen]
    words = (
        "all configurations"
        if len(names) <= MOST
        else f"{MOST} of {len(names)} configurations, evenly from the strongest tunnel to the weakest"
    )
    return made, words + (f"; curves are means over {' and '.join(replicates)}" if replicates else "")


def _panel(name: str, members: set[str], kept: float, curves: Curves, frame: pd.DataFrame) -> Panel:
    own = np.flatnonzero(curves.table["backbone"].isin(members).to_numpy())
    dataset_C = curves.table["dataset"].to_numpy()
    is_id = curves.table["is_id"].to_numpy(bool)
    groups: dict[str, list[int]] = {}
    for c in own:
        groups.setdefault("" if is_id[c] else str(dataset_C[c]), []).append(int(c))
    found = frame[frame["backbone"].isin(members)]
    starts = found.loc[found["tunnel_claimed" if "tunnel_claimed" in found else "tunnel"], "tunnel_start"]
    first = slice(curves.start_C[own[0]], curves.stop_C[own[0]])
    return Panel(
        name,
        f"{textwrap.fill(name, TITLE_WIDTH)}\nkeeps {kept:.0f} %",
        curves.layer_N[first].astype(float),
        _mean(curves, groups[""]) if "" in groups else None,
        tuple((dataset, _mean(curves, groups[dataset])) for dataset in sorted(groups) if dataset),
        _rank(curves, groups[""]) if "" in groups else None,
        float(starts.median()) if len(starts) * 2 > len(found) else None,
    )


def _mean(curves: Curves, members: list[int]) -> Array:
    result: Array = np.mean([curves.accuracy_N[curves.start_C[c] : curves.stop_C[c]] for c in members], axis=0)
    return result


def _rank(curves: Curves, members: list[int]) -> Array | None:
    ranks = np.mean([curves.rank_N[curves.start_C[c] : curves.stop_C[c]] for c in members], axis=0)
    return ranks if np.isfinite(ranks).all() else None
