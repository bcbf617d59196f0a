"""Probe rows → experiments (protocol §8): one row per backbone × OOD dataset.

Everything works on columns sorted by curve and layer, so a million probes take seconds.
Legend: C curves, L layers of a curve, N probes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import UserError

Array = npt.NDArray[np.float64]

ACCURACIES: Mapping[str, tuple[str, str]] = {
    "heldout": ("top1", "heldout_top1"),
    "last": ("top1_last", "heldout_top1"),
    "paper": ("top1_best", "top1_best"),
}
ACCURACY_TEXT: Mapping[str, str] = {
    "heldout": "test accuracy at the epoch, and peak layer, that held-out images chose",
    "last": "test accuracy after the last epoch; peak layer chosen on held-out images",
    "paper": "paper protocol: best test accuracy over epochs, and peak layer chosen on the test set (optimistic)",
}
STRENGTHS: tuple[tuple[float, str], ...] = ((95.0, "negligible"), (90.0, "weak"), (80.0, "medium"))
ID_RULES: tuple[int, ...] = (95, 98)  # [M23]: tunnel starts where the ID probe reaches this % of its final accuracy


@dataclass(frozen=True)
class Curves:
    """Curves with a finite accuracy on every layer, as flat arrays sorted by curve and layer.

    Attributes
    ----------
    table : one row per curve; its columns are constant within a curve.
    start_C, stop_C : slice of each curve in the flat arrays.
    accuracy_N, choice_N, paper_N : reported accuracy, the accuracy that chooses the peak, best on test.
    layer_N : layer index, 1 is the first.
    rank_N : numerical rank, NaN where unknown.
    row_N : row of the probe in the table that was read, to find its per-image bits.
    incomplete : one row per curve that was left out, with the reason.
    """

    table: pd.DataFrame
    start_C: npt.NDArray[np.int64]
    stop_C: npt.NDArray[np.int64]
    accuracy_N: Array
    choice_N: Array
    paper_N: Array
    layer_N: npt.NDArray[np.int64]
    rank_N: Array
    row_N: npt.NDArray[np.int64]
    incomplete: pd.DataFrame


def strength(retained: float) -> str:
    """Strength of the tunnel from mean % retained ([H24] §3): negligible, weak, medium, strong."""
    return next((name for bound, name in STRENGTHS if retained >= bound), "strong")


def collect(probes: pd.DataFrame, *, accuracy: str) -> Curves:
    """Group probe rows into complete curves.

    Parameters
    ----------
    probes : columns of the table's contract: curve_key, backbone, dataset, is_id, layer, the accuracies, problem; its
        index counts the rows of the table that was read.
    accuracy : key of :data:`ACCURACIES`.

    Raises
    ------
    UserError
        If a layer of a curve stands in the table twice, or a backbone has two curves on one dataset.
    """
    reported, chooser = ACCURACIES[accuracy]
    ordered = probes.assign(_row=probes.index).sort_values(["curve_key", "layer"], kind="stable")
    _refuse_duplicates(ordered)
    curve_N, keys = pd.factorize(ordered["curve_key"])
    values_N = ordered[reported].to_numpy(float)
    chooser_N = ordered[chooser].to_numpy(float)
    broken_N = ~np.isfinite(values_N) | ~np.isfinite(chooser_N)
    count_C = np.bincount(curve_N, minlength=len(keys))
    broken_C = np.bincount(curve_N, weights=broken_N, minlength=len(keys)) > 0
    gaps_C = ordered.groupby("curve_key", sort=True)["layer"].max().to_numpy() != count_C
    bad_C = broken_C | gaps_C
    keep_N = ~bad_C[curve_N]
    kept = ordered[keep_N]
    stop_C = np.cumsum(count_C[~bad_C])
    return Curves(
        table=kept.drop_duplicates("curve_key").reset_index(drop=True),
        start_C=stop_C - count_C[~bad_C],
        stop_C=stop_C,
        accuracy_N=values_N[keep_N],
        choice_N=chooser_N[keep_N],
        paper_N=kept["top1_best"].to_numpy(float),
        layer_N=kept["layer"].to_numpy(np.int64),
        rank_N=_optional(kept, "rank"),
        row_N=kept["_row"].to_numpy(np.int64),
        incomplete=_reasons(ordered, set(keys[broken_C]), set(keys[gaps_C])),
    )


def _optional(frame: pd.DataFrame, name: str) -> Array:
    return frame[name].to_numpy(float) if name in frame else np.full(len(frame), np.nan)


def _refuse_duplicates(ordered: pd.DataFrame) -> None:
    twice = ordered[ordered.duplicated(["curve_key", "layer"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"curve_key {row.curve_key}: layer {row.layer} stands in the table twice; one row per probe is needed"
        )
    curves = ordered.drop_duplicates("curve_key")
    twice = curves[curves.duplicated(["backbone", "dataset"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"backbone {row.backbone} has two curves on dataset {row.dataset} (columns weights_key, resolution, "
            "dataset); analyse tables with different probe recipes one at a time"
        )


def _reasons(ordered: pd.DataFrame, broken: set[str], gaps: set[str]) -> pd.DataFrame:
    bad = ordered[ordered["curve_key"].isin(broken | gaps)]
    rows = []
    for key, part in bad.groupby("curve_key", sort=True):
        problems = list(part["problem"].dropna()) if "problem" in part else []
        reason = (
            str(problems[0])
            if len(problems)
            else ("a layer has no accuracy" if key in broken else "layers are missing")
        )
        rows.append(
            {
                "curve_key": key,
                "backbone": part["backbone"].iloc[0],
                "dataset": part["dataset"].iloc[0],
                "reason": reason,
            }
        )
    return pd.DataFrame(rows, columns=["curve_key", "backbone", "dataset", "reason"])


def peak_layer(choice_L: Array, *, deepest: bool) -> int:
    """Index (0 is the first layer) of the highest accuracy; ties go to the deepest layer, or to the first.

    Our default takes the deepest, so that equal accuracies never make a tunnel; the paper's variant the first.
    """
    if deepest:
        return len(choice_L) - 1 - int(np.argmax(choice_L[::-1]))
    return int(np.argmax(choice_L))


def pearson(first_L: Array, second_L: Array) -> float:
    """Pearson correlation of two curves; NaN where one of them is constant or has a single layer."""
    if len(first_L) < 2 or np.ptp(first_L) == 0 or np.ptp(second_L) == 0:
        return float("nan")
    return float(np.corrcoef(first_L, second_L)[0, 1])


def first_reaching(accuracy_L: Array, percent: float) -> int:
    """First layer (1 is the first) whose accuracy is at least ``percent`` % of the last layer's ([M23])."""
    return int(np.argmax(accuracy_L >= percent / 100 * accuracy_L[-1])) + 1


def retained(accuracy_L: Array, peak: int) -> float:
    """% of the peak layer's accuracy that the last layer keeps; NaN if the peak is 0."""
    top = accuracy_L[peak]
    return float(100 * accuracy_L[-1] / top) if top > 0 else float("nan")


def experiments(curves: Curves, *, accuracy: str) -> pd.DataFrame:
    """Compute every metric of protocol §8 for each OOD curve.

    Returns
    -------
    The curve's own columns, and: n_layers, peak_layer, peak_accuracy, final_accuracy, retained (%), retained_paper
    (% with best-on-test accuracies), pearson, alignment, tunnel, tunnel_start (layer; null without tunnel),
    tunnel_length (layers after the start), id_final_accuracy, id_start_95, id_start_98 (layers).
    """
    table = curves.table
    is_id_C = table["is_id"].to_numpy(bool)
    backbone_C, chance_C = table["backbone"].to_numpy(), table["chance"].to_numpy(float)
    id_curve = {backbone_C[c]: int(c) for c in np.flatnonzero(is_id_C)}
    rows = []
    ood = np.flatnonzero(~is_id_C)
    for c in ood:
        part = slice(curves.start_C[c], curves.stop_C[c])
        row = _tunnel(curves.accuracy_N[part], curves.choice_N[part], curves.layer_N[part], accuracy)
        paper_L = curves.paper_N[part]
        row["retained_paper"] = retained(paper_L, peak_layer(paper_L, deepest=False))
        i = id_curve.get(backbone_C[c])
        if i is not None:
            row |= _against_id(curves, part, slice(curves.start_C[i], curves.stop_C[i]), chance_C[i], chance_C[c])
        rows.append(row)
    columns = [
        "n_layers", "peak_layer", "peak_accuracy", "final_accuracy", "retained", "retained_paper", "pearson",
        "alignment", "tunnel", "tunnel_start", "tunnel_length", "id_final_accuracy",
        *(f"id_start_{p}" for p in ID_RULES),
    ]  # fmt: skip
    metrics = pd.DataFrame(rows, columns=columns)
    for name in ("tunnel_start", *(f"id_start_{p}" for p in ID_RULES)):
        metrics[name] = metrics[name].astype("Int64")
    for name in ("pearson", "alignment", "id_final_accuracy"):
        metrics[name] = metrics[name].astype(float)
    return pd.concat([table.iloc[ood].reset_index(drop=True), metrics], axis=1)


def _tunnel(accuracy_L: Array, choice_L: Array, layer_L: npt.NDArray[np.int64], accuracy: str) -> dict[str, object]:
    peak, n = peak_layer(choice_L, deepest=accuracy != "paper"), len(accuracy_L)
    has_tunnel = peak < n - 1 and accuracy_L[peak] > accuracy_L[-1]
    return {
        "n_layers": n,
        "peak_layer": int(layer_L[peak]),
        "peak_accuracy": float(accuracy_L[peak]),
        "final_accuracy": float(accuracy_L[-1]),
        "retained": retained(accuracy_L, peak),
        "tunnel": bool(has_tunnel),
        "tunnel_start": int(layer_L[peak]) if has_tunnel else None,
        "tunnel_length": n - 1 - peak if has_tunnel else 0,
    }


def _against_id(curves: Curves, ood: slice, own: slice, id_chance: float, ood_chance: float) -> dict[str, object]:
    id_L, ood_L = curves.accuracy_N[own], curves.accuracy_N[ood]
    same = np.array_equal(curves.layer_N[own], curves.layer_N[ood])
    row: dict[str, object] = {
        "pearson": pearson(id_L, ood_L) if same else float("nan"),
        "alignment": float((id_L[-1] - id_chance) * (ood_L[-1] - ood_chance)),
        "id_final_accuracy": float(id_L[-1]),
    }
    return row | {f"id_start_{percent}": first_reaching(id_L, percent) for percent in ID_RULES}
