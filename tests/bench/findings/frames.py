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
RESNETS = "findings-resnets"  # of converged probes; the other solvers' sweeps are called after them


def uri(store: str, name: str) -> str:
    """The table of one sweep of a store that several share."""
    return f"{store}/probes-{name}.parquet"


def backbones(store: str, name: str) -> pd.DataFrame:
    """One row per backbone: the grid's variables, and outcomes as means over OOD datasets.

    ``retained`` (%); ``id_start`` and ``id_length``: layers before, and from, the first that reaches 95 % of the last
    layer's ID accuracy, as [M23] cuts extractor and tunnel; ``id_top1`` (%) of the last layer, and ``id_best`` of the
    layer with the highest; ``last_rank``: numerical rank of the last layer on the ID dataset.
    """
    each = load.experiments(uri(store, name)).assign(
        id_start=lambda e: e["id_start_95"].astype(float),
        id_length=lambda e: e["n_layers"].astype(float) - e["id_start_95"].astype(float),
        id_top1=lambda e: 100 * e["id_final_accuracy"],
    )
    means = each.groupby("backbone")[["id_start", "id_length", "id_top1"]].mean()
    layers = load.layers(uri(store, name))
    best = 100 * layers[layers["is_id"].astype(bool)].groupby("backbone")["accuracy"].max().rename("id_best")
    own = load.backbones(uri(store, name)).set_index("backbone").drop(columns=["id_start_95", "id_start_98"])
    return own.join(means).join(best).assign(last_rank=own["id_rank"].map(lambda ranks: ranks[-1])).reset_index()


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


def distances(store: str, name: str, reading: str = "weight_distance") -> pd.DataFrame:
    """One row per run, epoch and layer: how far weights moved, relative to their initial norm or a weight's change."""
    frame = load.readings(store, reading)
    own = set(pq.read_table(uri(store, name), columns=["backbone_key"])["backbone_key"].to_pylist())
    frame = frame[frame["backbone_key"].isin(own) & frame["epoch"].notna()]
    return frame.drop_duplicates(["architecture", "seed", "epoch", "layer"])


def runs(store: str, name: str) -> pd.DataFrame:
    """One row per run along training: changes of % retained, and of weights in the tunnel against those before it.

    ``after_…``: % retained after so many epochs; ``early``: after 2 epochs less at the initial weights; ``late``: at
    the end less after 5 epochs. ``behind``, ``before``: mean relative distance of weights of the layers behind the
    peak, and of the others, at the end; ``moved``: the difference. ``change_behind``, ``change_before``, ``changed``:
    likewise the root mean square change of a weight. The peak is the kept checkpoint's ``tunnel_start``, its median
    over OOD datasets with a tunnel.
    """
    wide = along(store, name).pivot(index=["architecture", "seed"], columns="epoch", values="retained")
    last = max(wide.columns)
    frame = wide.rename(columns=lambda epoch: f"after_{epoch:g}")
    frame = frame.assign(early=wide[2] - wide[0], late=wide[last] - wide[5])
    starts = backbones(store, name).set_index(["architecture", "seed"])["tunnel_start"]
    for reading, behind, before, less in (
        ("weight_distance", "behind", "before", "moved"),
        ("weight_change", "change_behind", "change_before", "changed"),
    ):
        far = distances(store, name, reading)
        far = far[far["epoch"] == far["epoch"].max()].dropna(subset=["value"])
        for run, layers in far.groupby(["architecture", "seed"]):
            is_behind = layers["layer"] > starts.loc[run]
            frame.loc[run, behind] = layers["value"][is_behind].mean()
            frame.loc[run, before] = layers["value"][~is_behind].mean()
        frame[less] = frame[behind] - frame[before]
    return frame.reset_index()


def courses(store: str, name: str) -> pd.DataFrame:
    """One row per course of two tasks: what swapping a tunnel changes, and what was forgotten, in points of top-1.

    All on task 1, split by [M23]'s rule. Every combination has a column of its own, with ``… refit`` for classifiers
    trained anew. ``new_tunnel``: E1+T2 less E1+T1; ``old_tunnel``: E2+T1 less E2+T2; ``tuned_tunnel``: E2+T1 less E2
    alone, both trained further; ``forgetting``: what was known after task 1, less after task 2. ``…_refit``: with
    classifiers trained anew.
    """
    table = continual.read(store, name)
    assert table is not None
    keys, ways = ["architecture", "seed"], {"": "top1", "_refit": "head_refit_top1"}
    first = table[table["task"] == 1]
    found = pd.DataFrame(index=pd.MultiIndex.from_frame(first[keys].drop_duplicates()))
    for end, column in ways.items():
        points = first.assign(points=100 * first[column])
        parts = points[points["split_by"] == "id95"].pivot_table(index=keys, columns="combination", values="points")
        memory = points[points["kind"] == "matrix"].pivot_table(index=keys, columns="after_task", values="points")
        found["new_tunnel" + end] = parts["E1+T2"] - parts["E1+T1"]
        found["old_tunnel" + end] = parts["E2+T1"] - parts["E2+T2"]
        found["forgetting" + end] = memory[1] - memory[2]
        if not end:
            found["tuned_tunnel"] = parts["E2+T1 fine-tuned"] - parts["E2 fine-tuned"]
        found = found.join(parts.dropna(axis=1, how="all").add_suffix(end.replace("_", " ")))
    return found.reset_index()


def resnets(store: str, solver: str = "converged", accuracy: str = "heldout") -> pd.DataFrame:
    """One row per published network and OOD dataset: ``depth``, ``retained`` (%), ``peak_layer``.

    Parameters
    ----------
    accuracy : which epoch of a solver that has epochs: ``heldout`` the one that held-out images choose, ``last``, or
        ``paper``, the best on test images, which then choose the peak layer too.
    """
    probes = _chosen(of_solver(store, solver)).reset_index(drop=True)
    frame = metrics.experiments(metrics.collect(probes, accuracy=accuracy), accuracy=accuracy)
    frame = frame.assign(depth=frame["architecture"].map(NETWORKS))
    return frame[["architecture", "depth", "dataset", "retained", "peak_layer"]]


def of_solver(store: str, solver: str) -> str:
    """The table of the published networks as one solver reads them."""
    return uri(store, RESNETS if solver == "converged" else f"{RESNETS}-{solver}")


def deepest_less_shallowest(store: str) -> pd.DataFrame:
    """One row per OOD dataset: % retained by each published network, and by that of 56 layers less that of 20.

    As converged probes read them and, ``adamw…``, as the papers' do.
    """
    found = {}
    for solver, name in (("converged", "retained"), ("adamw", "adamw")):
        wide = resnets(store, solver).pivot(index="dataset", columns="depth", values="retained")
        found |= {f"{name}_{depth}": wide[depth] for depth in NETWORKS.values()}
        found[name] = wide[56] - wide[20]
    return pd.DataFrame(found).reset_index()


def solvers(store: str) -> pd.DataFrame:
    """One row per published network: how the probes of AdamW and of ridge differ from converged ones.

    Each less that of converged probes, mean over OOD datasets: ``adamw``, ``ridge``: % retained; ``…_layers``: OOD
    accuracy, points, mean over layers; ``…_peaks``: the peak layer.
    ``adamw_last``, ``adamw_best``: % retained of AdamW's last epoch, and of the best on test images, less that of the
    epoch that held-out images choose; with it they choose the peak layer of ``adamw_last`` too. ``retained_…``: %
    retained itself.
    """
    keys = ["architecture", "dataset"]
    wide = {solver: resnets(store, solver).set_index(keys) for solver in SOLVERS}
    layers = {solver: _layer_accuracies(store, solver) for solver in SOLVERS}
    sides = {f"retained_{solver}": wide[solver]["retained"] for solver in SOLVERS}
    for own in ("adamw", "ridge"):
        sides[own] = wide[own]["retained"] - wide["converged"]["retained"]
        sides[f"{own}_layers"] = (layers[own] - layers["converged"]).groupby(keys).mean()
        sides[f"{own}_peaks"] = (wide[own]["peak_layer"] - wide["converged"]["peak_layer"]).astype(float)
    for end, accuracy in (("last", "last"), ("best", "paper")):
        epoch = resnets(store, "adamw", accuracy).set_index(keys)["retained"]
        sides[f"adamw_{end}"] = epoch - wide["adamw"]["retained"]
    return pd.DataFrame(sides).groupby("architecture").mean().reset_index()


def _layer_accuracies(store: str, solver: str) -> pd.Series:
    """Test top-1 (points) of every layer on every OOD dataset."""
    probes = _chosen(of_solver(store, solver))
    probes = probes[~probes["is_id"].astype(bool)].set_index(["architecture", "dataset", "layer"])
    return 100 * probes["top1"]
