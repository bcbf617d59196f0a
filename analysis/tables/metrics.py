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

from analysis.tables.errors import UserError

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
FEW_CHOOSING = 100  # images; fewer choose a peak layer too badly for a class of strength
OPEN = "open"  # the class of a backbone whose peaks so few images chose
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
    loss_N : cross-entropy of the images that choose, which decides between equal accuracies; infinite where unknown.
    crossed_C : whether the folds of a cross-fit chose, all training images in turn, instead of one held-out part.
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
    loss_N: Array
    paper_N: Array
    crossed_C: npt.NDArray[np.bool_]
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
    crossed_N = _crossed(ordered, curve_N, chooser)
    chooser_N, loss_N = _choice(ordered, crossed_N, chooser)
    broken_N = ~np.isfinite(values_N) | ~np.isfinite(chooser_N)
    count_C = np.bincount(curve_N, minlength=len(keys))
    broken_C = np.bincount(curve_N, weights=broken_N, minlength=len(keys)) > 0
    gaps_C = ordered.groupby("curve_key", sort=True)["layer"].max().to_numpy() != count_C
    bad_C = broken_C | gaps_C
    keep_N = ~bad_C[curve_N]
    kept = ordered[keep_N]
    stop_C = np.cumsum(count_C[~bad_C])
    start_C = stop_C - count_C[~bad_C]
    return Curves(
        table=kept.drop_duplicates("curve_key").reset_index(drop=True),
        start_C=start_C,
        stop_C=stop_C,
        accuracy_N=values_N[keep_N],
        choice_N=chooser_N[keep_N],
        loss_N=np.where(np.isfinite(loss_N), loss_N, np.inf)[keep_N],
        crossed_C=crossed_N[keep_N][start_C],
        paper_N=kept["top1_best"].to_numpy(float),
        layer_N=kept["layer"].to_numpy(np.int64),
        rank_N=_optional(kept, "rank"),
        row_N=kept["_row"].to_numpy(np.int64),
        incomplete=_reasons(ordered, set(keys[broken_C]), set(keys[gaps_C])),
    )


def choosing(ordered: pd.DataFrame) -> tuple[Array, Array]:
    """Accuracy that chooses the peak layer where held-out images do, and loss that decides between equal ones, (N,).

    Parameters
    ----------
    ordered : probes, curve by curve.
    """
    curve_N = pd.factorize(ordered["curve_key"])[0]
    return _choice(ordered, _crossed(ordered, curve_N, "heldout_top1"), "heldout_top1")


def _choice(ordered: pd.DataFrame, crossed_N: npt.NDArray[np.bool_], chooser: str) -> tuple[Array, Array]:
    choice_N = np.where(crossed_N, _optional(ordered, "crossfit_top1"), _optional(ordered, chooser))
    return choice_N, np.where(crossed_N, _optional(ordered, "crossfit_loss"), _optional(ordered, "heldout_loss"))


def _optional(frame: pd.DataFrame, name: str) -> Array:
    return frame[name].to_numpy(float) if name in frame else np.full(len(frame), np.nan)


def _crossed(ordered: pd.DataFrame, curve_N: npt.NDArray[np.int64], chooser: str) -> npt.NDArray[np.bool_]:
    """Which probes belong to a curve whose every layer has a cross-fit, where held-out images choose at all (N,)."""
    known_N = np.isfinite(_optional(ordered, "crossfit_top1")) & (chooser == "heldout_top1")
    lacks_C = np.bincount(curve_N, weights=~known_N) > 0
    result: npt.NDArray[np.bool_] = ~lacks_C[curve_N]
    return result


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


def experiments(curves: Curves, *, accuracy: str) -> pd.DataFrame:
    """Compute every metric of protocol §8 for each OOD curve.

    Which layer is the peak: the one with the highest accuracy on the images that choose; of equal ones the one with
    the lowest cross-entropy on them; of these, where that is equal too or unknown, the middle one (of two middle ones
    the deeper). The rule looks at images and not at depth, so it favours neither a tunnel nor none. The paper's
    variant has no other images than the test images, and takes the first.

    Returns
    -------
    The curve's own columns, and: n_layers, n_choosing (images that chose the peak layer), peak_layer, peak_accuracy,
    final_accuracy, retained (%), retained_paper (% with best-on-test accuracies), pearson, alignment, tunnel,
    tunnel_start (layer; null without tunnel), tunnel_length (layers after the start), id_final_accuracy, id_start_95,
    id_start_98 (layers).
    """
    ood = np.flatnonzero(~curves.table["is_id"].to_numpy(bool))
    last_C, n_C = curves.stop_C - 1, curves.stop_C - curves.start_C
    paper_C = _first_peaks(curves, curves.paper_N)
    peak_C = paper_C if accuracy == "paper" else _peaks(curves, curves.choice_N)
    top_C, final_C = curves.accuracy_N[peak_C], curves.accuracy_N[last_C]
    tunnel_C = (peak_C < last_C) & (top_C > final_C)
    start_C = pd.array(curves.layer_N[peak_C], dtype="Int64")
    start_C[~tunnel_C] = pd.NA
    metrics = pd.DataFrame(
        {
            "n_layers": n_C,
            "n_choosing": _choosing(curves, accuracy),
            "peak_layer": curves.layer_N[peak_C],
            "peak_accuracy": top_C,
            "final_accuracy": final_C,
            "retained": _share(final_C, top_C),
            "retained_paper": _share(curves.paper_N[last_C], curves.paper_N[paper_C]),
            "tunnel": tunnel_C,
            "tunnel_start": start_C,
            "tunnel_length": np.where(tunnel_C, last_C - peak_C, 0),
        }
    ).iloc[ood]
    table = curves.table.iloc[ood].reset_index(drop=True)
    return pd.concat([table, metrics.reset_index(drop=True), _against_id(curves, ood)], axis=1)


def _choosing(curves: Curves, accuracy: str) -> pd.Series:
    """How many images chose each curve's peak layer: test images by the paper's rule; null where unknown (C,)."""
    own = _optional(curves.table, "n_test" if accuracy == "paper" else "n_heldout")
    counts_C = np.where(curves.crossed_C, _optional(curves.table, "n_train"), own)
    return pd.Series(counts_C).astype("Int64")


def _peaks(curves: Curves, choice_N: Array) -> npt.NDArray[np.int64]:
    """Flat index of each curve's peak by the rule of :func:`experiments` (C,)."""
    if not len(curves.start_C):
        return np.zeros(0, dtype=np.int64)
    n_C = curves.stop_C - curves.start_C
    top_N = choice_N == np.repeat(np.maximum.reduceat(choice_N, curves.start_C), n_C)
    loss_N = np.where(top_N, curves.loss_N, np.inf)
    at = np.flatnonzero(top_N & (loss_N == np.repeat(np.minimum.reduceat(loss_N, curves.start_C), n_C)))
    count_C = np.bincount(np.searchsorted(curves.stop_C, at, side="right"), minlength=len(n_C))
    result: npt.NDArray[np.int64] = at[np.cumsum(count_C) - count_C + count_C // 2]
    return result


def _first_peaks(curves: Curves, choice_N: Array) -> npt.NDArray[np.int64]:
    """Flat index of each curve's highest accuracy; of equal ones the first (C,)."""
    if not len(curves.start_C):
        return np.zeros(0, dtype=np.int64)
    top_N = np.repeat(np.maximum.reduceat(choice_N, curves.start_C), curves.stop_C - curves.start_C)
    at = np.flatnonzero(choice_N == top_N)
    curve = np.searchsorted(curves.stop_C, at, side="right")
    return at[np.unique(curve, return_index=True)[1]]


def places(frame: pd.DataFrame, target: str) -> Array:
    """A place of the tunnel as numbers, from the columns of :func:`experiments`; NaN where there is none.

    Parameters
    ----------
    target : a key of :data:`analysis.tables.names.FURTHER`.
    """
    if not target.startswith("id_length_"):
        return frame[target].to_numpy(float, na_value=np.nan)
    starts: Array = frame[target.replace("length", "start")].to_numpy(float, na_value=np.nan)
    result: Array = frame["n_layers"].to_numpy(float) - starts
    return result


def _share(part: Array, whole: Array) -> Array:
    """100 · part / whole; NaN where the whole is 0."""
    result: Array = 100 * part / np.where(whole > 0, whole, np.nan)
    return result


def _against_id(curves: Curves, ood: npt.NDArray[np.int64]) -> pd.DataFrame:
    """What the backbone's ID curve adds: one row per OOD curve; null where there is no ID curve."""
    is_id_C = curves.table["is_id"].to_numpy(bool)
    backbone_C = pd.factorize(curves.table["backbone"])[0]
    own_B = np.full(int(backbone_C.max(initial=-1)) + 1, -1)
    own_B[backbone_C[is_id_C]] = np.flatnonzero(is_id_C)
    own = own_B[backbone_C[ood]]
    known = own >= 0
    chance_C = curves.table["chance"].to_numpy(float)
    final_C = curves.accuracy_N[curves.stop_C - 1] if len(curves.stop_C) else np.zeros(0)
    id_final = np.where(known, final_C[own] if len(final_C) else np.nan, np.nan)
    columns: dict[str, object] = {
        "pearson": _pearson(curves, ood, own),
        "alignment": (id_final - np.where(known, chance_C[own] if len(own) else 0, 0)) * (final_C - chance_C)[ood],
        "id_final_accuracy": id_final,
    }
    for percent in ID_RULES:
        start = pd.array(_first_reaching(curves, percent)[own], dtype="Int64")
        start[~known] = pd.NA
        columns[f"id_start_{percent}"] = start
    return pd.DataFrame(columns)


def _first_reaching(curves: Curves, percent: float) -> npt.NDArray[np.int64]:
    """First layer of each curve, counted from 1, with at least ``percent`` % of the last layer's accuracy ([M23])."""
    n_C = curves.stop_C - curves.start_C
    reached = np.flatnonzero(curves.accuracy_N >= percent / 100 * np.repeat(curves.accuracy_N[curves.stop_C - 1], n_C))
    result = np.zeros(len(n_C), dtype=np.int64)
    curve = np.searchsorted(curves.stop_C, reached, side="right")
    result[curve[::-1]] = (reached - curves.start_C[curve] + 1)[::-1]
    return result


def _pearson(curves: Curves, ood: npt.NDArray[np.int64], own: npt.NDArray[np.int64]) -> Array:
    """Pearson correlation of each OOD curve with its ID curve; NaN where a curve is constant or the layers differ."""
    n_C = curves.stop_C - curves.start_C
    result = np.full(len(ood), np.nan)
    whole = np.flatnonzero((own >= 0) & (n_C[ood] == n_C[own])) if len(ood) else np.zeros(0, dtype=np.int64)
    for n in np.unique(n_C[ood[whole]]):  # curves of one length at a time, as a matrix
        rows = whole[n_C[ood[whole]] == n]
        layers_RL, id_layers_RL = (curves.layer_N[curves.start_C[c[rows], None] + np.arange(n)] for c in (ood, own))
        rows = rows[(layers_RL == id_layers_RL).all(axis=1)]
        ood_RL, id_RL = (curves.accuracy_N[curves.start_C[c[rows], None] + np.arange(n)] for c in (ood, own))
        result[rows] = correlations(id_RL, ood_RL)
    return result


def correlations(first_RL: Array, second_RL: Array) -> Array:
    """Pearson correlation of each row of two matrices; NaN where one of the rows is constant (R,)."""
    varies = (np.ptp(first_RL, axis=1) > 0) & (np.ptp(second_RL, axis=1) > 0)
    first = first_RL - first_RL.mean(axis=1, keepdims=True)
    second = second_RL - second_RL.mean(axis=1, keepdims=True)
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    result: Array = (first * second).sum(axis=1) / np.where(varies, spread, np.nan)
    return np.clip(result, -1, 1)
