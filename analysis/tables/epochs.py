"""The tunnel along ID training ([M23]): the metrics of every epoch that was probed, beside the kept checkpoint.

Probes of epochs along the way are used here only; experiments and their attribution are those of kept checkpoints.
A *configuration* is what tells backbones apart, but for replicates such as the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.tables.metrics import ID_RULES, Curves

EPOCH = "epoch"
METRICS = ("retained", "pearson", "alignment", "id_start", "backbone_top1")


@dataclass(frozen=True)
class Emergence:
    """What the probes along training show.

    Attributes
    ----------
    points : one row per configuration, epoch and ``kept`` (true: the kept checkpoint, at its own epoch): the means of
        :data:`METRICS` over OOD datasets and replicates, the lowest (``…_low``) and highest (``…_high``) replicate,
        ``n_datasets`` and ``n_backbones``. ``id_start`` is the position (0: first layer, 1: last) of the first layer
        with 95 % of the last layer's ID accuracy, where [M23] lets the tunnel start.
    layers : one row per configuration, epoch along the way, ``is_id`` and ``layer``: mean ``accuracy`` of the probes.
    """

    points: pd.DataFrame
    layers: pd.DataFrame


def split(probes: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probes of kept checkpoints, and those of epochs along training: none in a table without that column."""
    if EPOCH not in probes:
        return probes, probes.iloc[:0]
    along = probes[EPOCH].notna()
    return probes[~along].drop(columns=EPOCH), probes[along]


def keys(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """One text per row that is equal where all these columns are, nulls included."""
    return frame[list(columns)].map(str).agg(" | ".join, axis=1)  # `astype` would leave what is missing as it is


def runs(backbones: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Backbones along training → the kept one of the same run: equal in all these columns, if one alone is.

    Parameters
    ----------
    backbones : one row per backbone: ``backbone``, ``epoch`` (null: kept) and the columns of the grid.
    """
    run = keys(backbones, columns) if len(columns) else pd.Series("", backbones.index)
    along = backbones[EPOCH].notna()
    kept = backbones["backbone"][~along].set_axis(run[~along])
    kept = kept[~kept.index.duplicated(keep=False)]
    found = backbones["backbone"][along].to_frame().assign(kept=run[along].map(kept)).dropna()
    return dict(found.itertuples(index=False))


def describe(
    kept: pd.DataFrame,
    along: pd.DataFrame,
    curves: Curves,
    *,
    labels: pd.Series,
    configuration: Sequence[str],
    run: Sequence[str],
) -> Emergence:
    """Average the metrics of every epoch by configuration.

    Parameters
    ----------
    kept, along : experiments of kept checkpoints, and of epochs along training.
    curves : per-layer data of ``along``.
    labels : name of each configuration, by its key.
    configuration, run : columns that tell configurations apart, and training runs (these and their replicates).
    """
    own = kept[keys(kept, run).isin(keys(along, run))]  # runs that were probed along the way
    own = own.assign(**{EPOCH: own.get("backbone_epoch", np.nan), "kept": True})
    both = pd.concat([along.assign(kept=False), own[own[EPOCH].notna()]], ignore_index=True)
    deep = (both["n_layers"] - 1).clip(lower=1)
    return Emergence(
        _points(
            both.assign(
                epoch=both[EPOCH].astype(int),
                run=keys(both, run),
                configuration=keys(both, configuration).map(labels),
                id_start=(both[f"id_start_{ID_RULES[0]}"].astype(float) - 1) / deep,
                backbone_top1=both.get("backbone_test_top1", np.nan),
            )
        ),
        _layers(curves, keys(curves.table, configuration).map(labels)),
    )


def _points(frame: pd.DataFrame) -> pd.DataFrame:
    by, metrics = ["configuration", EPOCH, "kept"], list(METRICS)
    groups = frame.groupby([*by, "run"])[metrics].mean().groupby(by)
    parts = [groups.mean(), groups.min().add_suffix("_low"), groups.max().add_suffix("_high")]
    counts = [groups.size().rename("n_backbones"), frame.groupby(by)["dataset"].nunique().rename("n_datasets")]
    return pd.concat([*parts, *counts], axis=1).reset_index()


def _layers(curves: Curves, configuration_C: pd.Series) -> pd.DataFrame:
    table = pd.DataFrame(
        {"configuration": configuration_C, EPOCH: curves.table[EPOCH].astype(int), "is_id": curves.table["is_id"]}
    )
    flat = table.loc[np.repeat(table.index, curves.stop_C - curves.start_C)]
    flat = flat.assign(layer=curves.layer_N, accuracy=curves.accuracy_N)
    return flat.groupby(["configuration", EPOCH, "is_id", "layer"])["accuracy"].mean().reset_index()
