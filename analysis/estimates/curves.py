"""Layer curves for the page: which backbones are shown, and their curves averaged over replicates."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.experiments import Experiments
from analysis.tables.metrics import Curves

MOST = 12
TITLE_WIDTH = 46  # characters that fit above a panel


def panels(experiments: Experiments) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Panels for :func:`analysis.figures.layer_curves`, strongest tunnel first, and its caption: what is shown.

    Backbones that differ only in a replicate (seed) are averaged. With more than :data:`MOST` settings, an even
    choice from the strongest tunnel to the weakest is shown.
    """
    curves = experiments.curves
    if curves is None:
        return [], {}
    frame, replicates = experiments.frame, experiments.replicates
    by_backbone = frame.drop_duplicates("backbone").set_index("backbone")
    setting = by_backbone["label"]
    if replicates:
        setting = setting.map(lambda text: text.rsplit(", ", len(replicates))[0])
    order = frame.assign(setting=frame["backbone"].map(setting)).groupby("setting", sort=False)["retained"].mean()
    names = list(order.sort_values().index)
    chosen = (
        names if len(names) <= MOST else [names[i] for i in np.linspace(0, len(names) - 1, MOST).round().astype(int)]
    )
    members = {name: set(setting[setting == name].index) for name in chosen}
    made = [_panel(name, members[name], order[name], curves, frame) for name in chosen]
    words = (
        "all settings"
        if len(names) <= MOST
        else f"{MOST} of {len(names)} settings, evenly from the strongest tunnel to the weakest"
    )
    if replicates:
        words += f"; curves are means over {' and '.join(replicates)}"
    return made, {"layer_curves": words}


def plain(shown: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The panels' numbers for report.json."""
    return [
        {
            "setting": panel["name"],
            "layer": panel["layer"].astype(int).tolist(),
            "id": None if panel["id"] is None else panel["id"].tolist(),
            "ood": {dataset: values.tolist() for dataset, values in panel["ood"]},
            "rank": None if panel["rank"] is None else panel["rank"].tolist(),
            "tunnel_from": panel["start"],
        }
        for panel in shown
    ]


def _panel(name: str, members: set[str], kept: float, curves: Curves, frame: pd.DataFrame) -> dict[str, Any]:
    own = np.flatnonzero(curves.table["backbone"].isin(members).to_numpy())
    dataset_C = curves.table["dataset"].to_numpy()
    is_id = curves.table["is_id"].to_numpy(bool)
    groups: dict[str, list[int]] = {}
    for c in own:
        groups.setdefault("" if is_id[c] else str(dataset_C[c]), []).append(int(c))
    found = frame[frame["backbone"].isin(members)]
    starts = found.loc[found["tunnel_claimed" if "tunnel_claimed" in found else "tunnel"], "tunnel_start"]
    start = float(starts.median()) if len(starts) * 2 > len(found) else None
    first = slice(curves.start_C[own[0]], curves.stop_C[own[0]])
    return {
        "name": name,
        "title": f"{textwrap.fill(name, TITLE_WIDTH)}\nkeeps {kept:.0f} %",
        "layer": curves.layer_N[first].astype(float),
        "id": _mean(curves, groups[""]) if "" in groups else None,
        "ood": [(dataset, _mean(curves, groups[dataset])) for dataset in sorted(groups) if dataset],
        "start": start,
        "rank": _rank(curves, groups[""]) if "" in groups else None,
    }


def _mean(curves: Curves, members: list[int]) -> np.ndarray:
    return np.mean([curves.accuracy_N[curves.start_C[c] : curves.stop_C[c]] for c in members], axis=0)


def _rank(curves: Curves, members: list[int]) -> np.ndarray | None:
    ranks = np.mean([curves.rank_N[curves.start_C[c] : curves.stop_C[c]] for c in members], axis=0)
    return ranks if np.isfinite(ranks).all() else None
