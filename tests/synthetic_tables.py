"""Tables with known truth: probe tables that follow the Parquet contract, and tables of experiments."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "vggm11": {
        "family": "CNN",
        "stem": 3,
        "depth": 11,
        "spatial_reduction": 0.5,
        "n_layers": 10,
        "parameters": 9_462_180,
    },
    "vggm17": {
        "family": "CNN",
        "stem": 3,
        "depth": 17,
        "spatial_reduction": 0.5,
        "n_layers": 16,
        "parameters": 20_086_692,
    },
    "resnet18": {
        "family": "CNN",
        "stem": 7,
        "depth": 18,
        "spatial_reduction": 0.25,
        "n_layers": 17,
        "parameters": 11_227_812,
    },
    "vit_tiny_patch8": {
        "family": "ViT",
        "stem": 8,
        "depth": 12,
        "spatial_reduction": 1.0,
        "n_layers": 12,
        "parameters": 5_395_108,
    },
}
BASE: Mapping[str, Any] = {
    "architecture": "vggm11",
    "id_dataset": "fractals",
    "id_classes": 10,
    "images_per_class": 200,
    "resolution": 32,
    "augmentation": "off",
    "pretraining": "scratch",
    "seed": 0,
    "width": 1.0,
    "lr": 1e-2,
    "epochs": 20,
}
INTEGERS = {
    "id_classes", "images_per_class", "resolution", "seed", "epochs", "stem", "depth", "classes", "n_train",
    "n_heldout", "n_test", "layer", "layer_width", "rank",
}  # fmt: skip
OOD = ("glyphs", "gratings", "digits")


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Backbones of a full product; what is not named keeps its default."""
    return [
        {**BASE, **dict(zip(values, combination, strict=True))} for combination in itertools.product(*values.values())
    ]


def drop_by_default(backbone: Mapping[str, Any]) -> float:
    """Share of the peak accuracy that the tunnel takes: less with more classes or augmentation, more with depth."""
    drop = 0.30 - 0.15 * (backbone["id_classes"] >= 50) - 0.06 * (backbone["augmentation"] == "on")
    return float(np.clip(drop + 0.10 * (backbone["depth"] > 11), 0.0, 0.9))


def probe_table(
    backbones: Sequence[Mapping[str, Any]],
    *,
    datasets: Sequence[str] = OOD,
    drop: Callable[[Mapping[str, Any]], float] = drop_by_default,
    n_test: int = 400,
    seed: int = 0,
    varied: Mapping[str, str] | None = None,
    failed: Sequence[str] = (),
    adjust: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    """A probe table as the sweep exports it, with per-image bits that agree with the accuracies.

    Parameters
    ----------
    drop : share of the peak accuracy lost at the last layer, from the backbone's columns.
    varied : variable → role, for the metadata; None leaves the metadata out.
    """
    rng = np.random.default_rng(seed)
    rows = [
        row
        for number, spec in enumerate(backbones)
        for row in _backbone_rows(number, spec, datasets, drop, n_test, rng)
    ]
    schema = pa.schema([pa.field(name, _kind(name, rows)) for name in rows[0]])
    if varied is not None:
        curves = len({row["curve_key"] for row in rows})
        about = {
            "schema_version": 1,
            "name": "synthetic",
            "variables": {name: {"role": role} for name, role in varied.items()},
            "planned_curves": curves + len(failed),
            "failed_curves": list(failed),
            "adjust": adjust or {},
        }
        schema = schema.with_metadata({"tunnel_sweep": json.dumps(about)})
    return pa.Table.from_pylist(rows, schema=schema)


def write_sweep(folder: Path, table: pa.Table) -> Path:
    """Write a table where a finished sweep has it."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "probes.parquet")
    return folder


def _kind(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.DataType:
    if name in INTEGERS:
        return pa.int32()
    sample = next((row[name] for row in rows if row[name] is not None), "")
    kinds = {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        bytes: pa.binary(),
        list: pa.list_(pa.string()),
    }
    return kinds[type(sample)]


def _backbone_rows(
    number: int,
    spec: Mapping[str, Any],
    datasets: Sequence[str],
    drop: Callable[[Mapping[str, Any]], float],
    n_test: int,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    facts = dict(ARCHITECTURES[spec["architecture"]])
    layers = facts.pop("n_layers")
    id_images = spec["id_classes"] * (spec["images_per_class"] or 500)
    backbone = {**spec, **facts, "id_images": id_images, "overparametrization": facts["parameters"] / id_images}
    for name in (spec["id_dataset"], *datasets):
        is_id = name == spec["id_dataset"]
        classes = spec["id_classes"] if is_id else 10 + 10 * sorted(datasets).index(name)
        level = 0.8 if is_id else 0.75 - 0.1 * sorted(datasets).index(name)
        truth_L = _truth(layers, level, 0.0 if is_id else drop(backbone))
        right_LN = _bits(truth_L, n_test, rng)
        held_LN = _bits(truth_L, n_test // 2, rng)
        for layer in range(layers):
            accuracy = float(right_LN[layer].mean())
            yield {
                "curve_key": f"curve-{number:03d}-{name}",
                "weights_key": f"weights-{number:03d}",
                **backbone,
                "dataset": name,
                "is_id": is_id,
                "classes": classes,
                "chance": 1 / classes,
                "n_train": 10 * n_test,
                "n_test": n_test,
                "skipped_images": [],
                "layer": layer + 1,
                "layer_width": 64,
                "position": layer / (layers - 1),
                "is_penultimate": layer == layers - 1,
                "rank": int(60 * (1 - 0.9 * (layer / layers) ** 2)) + 1,
                "top1": accuracy,
                "top1_last": accuracy - 0.01,
                "top1_best": accuracy + 0.01,
                "heldout_top1": float(held_LN[layer].mean()),
                "correct": np.packbits(right_LN[layer]).tobytes(),
                "problem": None,
            }


def _truth(layers: int, level: float, drop: float) -> np.ndarray:
    """A curve that rises over the first 60 % of the layers and then loses ``drop`` of its height."""
    position_L = np.linspace(0, 1, layers)
    rise_L = np.minimum(1, 0.4 + position_L)
    fall_L = 1 - drop * np.clip((position_L - 0.6) / 0.4, 0, 1)
    return level * rise_L * fall_L


def _bits(accuracy_L: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Right or not (L, n): easy images are easy for every layer."""
    ease_N = rng.uniform(size=n)
    own_LN = rng.uniform(size=(len(accuracy_L), n))
    return np.where(rng.uniform(size=(len(accuracy_L), n)) < 0.7, ease_N, own_LN) < accuracy_L[:, None]


def experiment_table(
    *,
    n_backbones: int = 64,
    n_datasets: int = 6,
    effects: Mapping[str, float] | None = None,
    interaction: float = 0.0,
    backbone_sd: float = 0.0,
    noise_sd: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Experiments with an additive truth: outcome = Σ effect · position + interaction + group effect + noise.

    Columns: backbone, dataset, a, b, c, d (each in 0…3, drawn at random), retained (%). ``interaction`` flips the
    effect of ``a`` by the half in which ``b`` lies.
    """
    rng = np.random.default_rng(seed)
    levels = {name: rng.integers(0, 4, n_backbones) for name in "abcd"}
    position = {name: values / 3 for name, values in levels.items()}
    flip = np.where(levels["b"] >= 2, 1.0, -1.0)
    mean_B = 0.5 + sum(effect * position[name] for name, effect in (effects or {}).items())
    mean_B = mean_B + interaction * flip * (position["a"] - 0.5) + rng.normal(0, backbone_sd, n_backbones)
    backbone = np.repeat(np.arange(n_backbones), n_datasets)
    dataset = np.tile(np.arange(n_datasets), n_backbones)
    outcome = mean_B[backbone] + 0.05 * (dataset - dataset.mean()) + rng.normal(0, noise_sd, len(backbone))
    columns = {name: values[backbone] for name, values in levels.items()}
    return pd.DataFrame({"backbone": backbone, "dataset": dataset, **columns, "retained": 100 * outcome})


MAPPING = {
    "targets": {"retained": {"column": "retained"}},
    "variables": {name: {"column": name, "kind": "ordinal"} for name in "abcd"},
    "group": "backbone",
    "dataset": "dataset",
}
