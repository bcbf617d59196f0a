"""What a store of findings holds, as frames with one row per independent unit: a backbone, a run, a course."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from analysis import load
from analysis.tables import continual, epochs, metrics
from analysis.tables.sweep import once, with_backbone

NETWORKS = {"cifar_resnet20": 20, "cifar_resnet32": 32, "cifar_resnet44": 44, "cifar_resnet56": 56}
SOLVERS = ("adamw", "converged", "ridge")
SETS = "cifar-resnets"  # sweeps of examples/cifar_resnets, one per solver


def uri(store: str, name: str) -> str:
    """The table of one sweep of a store that several share."""
    return f"{store}/probes-{name}.parquet"


def backbones(store: str, name: str) -> pd.DataFrame:
    """One row per backbone: the grid's variables, and outcomes as means over OOD datasets.

    ``retained`` (%); ``id_start`` and ``id_length``: layers before, and from, the first that reaches 95 % of the last
    layer's ID accuracy, as [M23] cuts extractor and tunnel; ``id_top1`` (%); ``last_rank``: numerical rank of the last
    layer on the ID dataset.
    """
    each = load.experiments(uri(store, name)).assign(
        id_start=lambda e: e["id_start_95"].astype(float),
        id_length=lambda e: e["n_layers"].astype(float) - e["id_start_95"].astype(float),
        id_top1=lambda e: 100 * e["id_final_accuracy"],
    )
    means = each.groupby("backbone")[["id_start", "id_length", "id_top1"]].mean()
    own = load.backbones(uri(store, name)).set_index("backbone").drop(columns=["id_start_95", "id_start_98"])
    return own.join(means).assign(last_rank=own["id_rank"].map(lambda ranks: ranks[-1])).reset_index()


def along(store: str, name: str) -> pd.DataFrame:
    """One row per run and epoch: ``retained`` (%, mean over OOD datasets) of the weights after so many epochs."""
    every = epochs.split(_chosen(uri(store, name)))[1].reset_index(drop=True)
    return _measured(every).groupby(["architecture", "seed", "epoch"])["retained"].mean().reset_index()


def _chosen(table: str) -> pd.DataFrame:
    """The chosen probes of a table, once each; held-out images alone choose the peak layer."""
    probes = pq.read_table(table).to_pandas()
    probes = probes.assign(crossfit_top1=np.nan, crossfit_loss=np.nan)
    return once(with_backbone(probes[probes["chosen"]]))


def _measured(probes: pd.DataFrame) -> pd.DataFrame:
    return metrics.experiments(metrics.collect(probes, accuracy="heldout"), accuracy="heldout")


def distances(store: str, name: str) -> pd.DataFrame:
    """One row per run, epoch and layer: how far weights moved, relative to their initial norm."""
    frame = load.readings(store, "weight_distance")
    own = set(pq.read_table(uri(store, name), columns=["backbone_key"])["backbone_key"].to_pylist())
    frame = frame[frame["backbone_key"].isin(own) & frame["epoch"].notna()]
    return frame.drop_duplicates(["architecture", "seed", "epoch", "layer"])


def runs(store: str, name: str) -> pd.DataFrame:
    """One row per run along training: changes of % retained, and of weights in the tunnel against those before it.

    ``early``: % retained after 2 epochs less at the initial weights; ``late``: at the end less after 5 epochs;
    ``moved``: mean relative distance of weights of the layers behind the peak less that of the others, at the end. The
    peak is the kept checkpoint's ``tunnel_start``, its median over OOD datasets with a tunnel.
    """
    wide = along(store, name).pivot(index=["architecture", "seed"], columns="epoch", values="retained")
    last = max(wide.columns)
    frame = pd.DataFrame({"early": wide[2] - wide[0], "late": wide[last] - wide[5]})
    starts = backbones(store, name).set_index(["architecture", "seed"])["tunnel_start"]
    far = distances(store, name)
    far = far[far["epoch"] == far["epoch"].max()].dropna(subset=["value"])
    for run, layers in far.groupby(["architecture", "seed"]):
        behind = layers["layer"] > starts.loc[run]
        frame.loc[run, "moved"] = layers["value"][behind].mean() - layers["value"][~behind].mean()
    return frame.reset_index()


def courses(store: str, name: str) -> pd.DataFrame:
    """One row per course of two tasks: what swapping a tunnel changes, and what was forgotten, in points of top-1.

    All on task 1, split by [M23]'s rule. ``new_tunnel``: E1+T2 less E1+T1; ``old_tunnel``: E2+T1 less E2+T2;
    ``…_refit``: the same with classifiers trained anew. ``forgetting``: what was known after task 1, less after task 2.
    """
    table = continual.read(store, name)
    assert table is not None
    table = table.assign(accuracy=100 * table["top1"], refit=100 * table["head_refit_top1"])
    keys = ["architecture", "seed"]
    first = table[(table["task"] == 1) & (table["split_by"] == "id95")]
    swap = first.pivot_table(index=keys, columns="combination", values="accuracy")
    refit = first.pivot_table(index=keys, columns="combination", values="refit")
    own = table[(table["kind"] == "matrix") & (table["task"] == 1)]
    memory = own.pivot_table(index=keys, columns="after_task", values="accuracy")
    return pd.DataFrame(
        {
            "new_tunnel": swap["E1+T2"] - swap["E1+T1"],
            "old_tunnel": swap["E2+T1"] - swap["E2+T2"],
            "new_tunnel_refit": refit["E1+T2"] - refit["E1+T1"],
            "old_tunnel_refit": refit["E2+T1"] - refit["E2+T2"],
            "forgetting": memory[1] - memory[2],
        }
    ).reset_index()


def resnets(store: str, solver: str = "converged") -> pd.DataFrame:
    """One row per published network and OOD dataset: ``depth``, ``retained`` (%), ``peak_layer``."""
    frame = _measured(_chosen(uri(store, f"{SETS}-{solver}")).reset_index(drop=True))
    frame = frame.assign(depth=frame["architecture"].map(NETWORKS))
    return frame[["architecture", "depth", "dataset", "retained", "peak_layer"]]


def deepest_less_shallowest(store: str) -> pd.DataFrame:
    """One row per OOD dataset: % retained of the network of 56 layers less that of 20."""
    wide = resnets(store).pivot(index="dataset", columns="depth", values="retained")
    return pd.DataFrame({"retained": wide[56] - wide[20]}).reset_index()


def solvers(store: str) -> pd.DataFrame:
    """One row per published network: % retained of AdamW and of ridge less that of converged probes."""
    wide = {s: resnets(store, s).set_index(["architecture", "dataset"]) for s in SOLVERS}
    sides = {s: wide[s]["retained"] - wide["converged"]["retained"] for s in ("adamw", "ridge")}
    return pd.DataFrame(sides).groupby("architecture").mean().reset_index()
