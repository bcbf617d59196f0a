"""Curves by layer for the browsing page: which probes, under which backbone, and as columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.page.browse_plain import Columns, plain
from analysis.tables import epochs, readings
from analysis.tables.experiments import GRID
from analysis.tables.metrics import choosing
from analysis.tables.stored import Stored
from analysis.tables.sweep import FIT_ON, once, with_backbone, without_shifted

ACCURACIES = ("top1", "top1_last", "top1_best", "heldout_top1")
CHOOSING = ("heldout_loss", "crossfit_top1", "crossfit_loss")  # besides, what chooses the peak layer
_OF_PROBES: Mapping[str, str] = {
    "rank": "numerical rank",
    "cka_first": "CKA with the first layer",
    "cka_last": "CKA with the last layer",
    "cka_first_debiased": "CKA with the first layer, debiased",
    "cka_last_debiased": "CKA with the last layer, debiased",
    "nc1": "neural collapse NC1",
}
READINGS: Mapping[str, str] = {  # of readings.parquet, where a config asked for them
    "weight_distance": "distance from initial weights",
    "weight_change": "root mean square change of a weight",
    "rankme": "effective rank, RankMe",
    "spectral_entropy": "entropy of the spectrum (nats)",
    "top_share": "variance in the top C directions",
    "nc2_norms": "neural collapse NC2, lengths",
    "nc2_angles": "neural collapse NC2, angles",
    "nc3": "neural collapse NC3",
    "nc4": "neural collapse NC4",
    "energy_auroc": "OOD detection by energy, AUROC",
    "energy_fpr95": "OOD detection by energy, FPR95",
    "knn_auroc": "OOD detection by k-NN, AUROC",
    "knn_fpr95": "OOD detection by k-NN, FPR95",
    "linear_per_class": "linear probe, mean per class",
    "knn_top1": "k-NN accuracy",
    "nearest_mean_top1": "nearest class mean accuracy",
    "few_shot_top1_1": "linear, 1 image per class",
    "few_shot_top1_5": "linear, 5 images per class",
    "few_shot_top1_10": "linear, 10 images per class",
}
MEASURES: Mapping[str, str] = {**_OF_PROBES, **READINGS}
OF_CURVE = ("curve_key", "backbone", "own_backbone", "dataset", "is_id", "n_test", "chance", epochs.EPOCH)


def probes(found: Stored, prefix: str) -> pd.DataFrame:
    """The chosen probes of a sweep, by curve and layer; the names of backbones and curves begin with a prefix."""
    present = found.probes.schema.names
    wanted = [
        "backbone_key",
        "weights_key",
        "resolution",
        FIT_ON,
    ]  # its name's parts; what is shown
    wanted += ["curve_key", "dataset", "is_id", "n_test", "chance", epochs.EPOCH, "chosen"]
    wanted += ["layer", "layer_name", "layer_width", "layer_parameters", "epoch_chosen"]
    wanted += [*ACCURACIES, *CHOOSING, *MEASURES]
    frame = _with_readings(found, found.table([c for c in wanted if c in present]).to_pandas())
    frame = with_backbone(frame)
    frame, _ = without_shifted(frame)
    if "chosen" in frame:
        frame = frame[frame["chosen"].isna() | (frame["chosen"] == True)]  # noqa: E712
    frame = _under_their_runs(found, once(frame))
    frame = frame.assign(backbone=prefix + frame["backbone"], curve_key=prefix + frame["curve_key"])
    return frame.sort_values(["curve_key", "layer"], kind="stable")


def _with_readings(found: Stored, frame: pd.DataFrame) -> pd.DataFrame:
    """Probes with what else was measured of their layers, a column each."""
    wide = readings.by_layer(found.uri)
    if wide is None:
        return frame
    keys = [name for name in ("curve_key", "backbone_key", "layer") if name in frame]
    new = [name for name in READINGS if name in wide and name not in frame]
    return frame.merge(wide[[*keys, *new]].drop_duplicates(keys), on=keys, how="left")


def _under_their_runs(found: Stored, frame: pd.DataFrame) -> pd.DataFrame:
    """Probes along training under the kept backbone of their run; ``own_backbone`` is what the table calls theirs."""
    if epochs.EPOCH not in frame or not frame[epochs.EPOCH].notna().any():
        return frame
    present = found.probes.schema.names
    run = [c for c in dict.fromkeys((*GRID, *found.about.get("variables", {}))) if c in present and c != epochs.EPOCH]
    named = [c for c in ("backbone_key", "weights_key", "resolution") if c in present]
    table = with_backbone(found.table(list(dict.fromkeys([*named, *run, epochs.EPOCH]))).to_pandas())
    table = table.sort_values(epochs.EPOCH, na_position="first", kind="stable").drop_duplicates("backbone")
    kept = frame["backbone"].map(epochs.runs(table, run)).fillna(frame["backbone"])
    return frame.assign(own_backbone=frame["backbone"], backbone=kept)


def curves(rows: pd.DataFrame, number: Mapping[str, int]) -> tuple[Columns, dict[str, np.ndarray]]:
    """Curves of the backbones that have experiments: a row for each, and their rows as columns."""
    rows = rows[rows["backbone"].isin(list(number))].reset_index(drop=True)
    code_N = pd.factorize(rows["curve_key"])[0]
    start_C = np.flatnonzero(np.diff(code_N, prepend=-1))
    n_C = np.diff(np.append(start_C, len(code_N)))
    table = rows.iloc[start_C]
    text = rows["layer_name"].astype(str) if "layer_name" in rows else rows["layer"].astype(str)
    stacks: dict[tuple[str, ...], int] = {}
    stack_C = [stacks.setdefault(tuple(text.iloc[a : a + n]), len(stacks)) for a, n in zip(start_C, n_C, strict=True)]
    kept = [c for c in OF_CURVE if c in table and c != "backbone"]
    found = {
        **plain(table[kept]),
        "backbone": [number[name] for name in table["backbone"]],
        "start": start_C.tolist(),
        "n": n_C.tolist(),
        "stack": stack_C,
    }
    numbers = ["layer", "layer_width", "layer_parameters", "epoch_chosen", *ACCURACIES, *MEASURES]
    rows["choice"], rows["choice_loss"] = choosing(rows)
    columns = {
        name: rows[name].to_numpy(float, na_value=np.nan)
        for name in (*numbers, "choice", "choice_loss")
        if name in rows and rows[name].notna().any()
    }
    return {**found, "stacks": [list(stack) for stack in stacks]}, columns
