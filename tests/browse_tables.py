"""A study of any size as columns at once: for pages of many probes, where row by row would take too long."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa


def study(backbones: int, datasets: int, layers: int, *, seed: int = 0) -> pa.Table:
    """A complete table: every backbone on its ID dataset and on all others, with statistics of each layer."""
    rng = np.random.default_rng(seed)
    curves = backbones * (datasets + 1)
    b_C = np.repeat(np.arange(backbones), datasets + 1)
    d_C = np.tile(np.arange(datasets + 1), backbones)
    b_N, d_N, layer_N = np.repeat(b_C, layers), np.repeat(d_C, layers), np.tile(np.arange(1, layers + 1), curves)
    position_N = (layer_N - 1) / (layers - 1)
    drop_N = np.where(d_N == 0, 0.0, 0.1 + 0.3 * (b_N % 3) / 2) * np.clip(position_N - 0.6, 0, 1)
    truth_N = (0.8 - 0.02 * d_N) * np.minimum(1, 0.3 + position_N) - drop_N
    top1_N = np.round(np.clip(truth_N + rng.normal(0, 0.02, len(b_N)), 0, 1) * 5794) / 5794
    text = lambda form, values: [form.format(value) for value in values]  # noqa: E731
    columns = {
        "curve_key": text("curve-{:06d}", np.repeat(np.arange(curves), layers)),
        "weights_key": text("weights-{:04d}", b_N),
        "architecture": [("vggm11", "vggm17", "resnet34")[b % 3] for b in b_N],
        "depth": pa.array(np.array([11, 17, 34])[b_N % 3], pa.int32()),
        "id_dataset": ["imagenet100"] * len(b_N),
        "id_classes": pa.array(np.array([10, 50, 100])[b_N // 3 % 3], pa.int32()),
        "resolution": pa.array(np.array([32, 64, 128, 224])[b_N // 9 % 4], pa.int32()),
        "augmentation": [("off", "on")[b // 36 % 2] for b in b_N],
        "seed": pa.array(b_N // 72, pa.int32()),
        "dataset": [f"ood-{d}" if d else "imagenet100" for d in d_N],
        "is_id": d_N == 0,
        "chance": np.full(len(b_N), 0.01),
        "n_test": pa.array(np.full(len(b_N), 5794), pa.int32()),
        "layer": pa.array(layer_N, pa.int32()),
        "layer_name": text("features.{}", layer_N),
        "layer_width": pa.array(64 * (1 + layer_N // 4), pa.int32()),
        "layer_parameters": pa.array(1000 * layer_N**2, pa.int64()),
        "top1": top1_N,
        "top1_last": np.clip(top1_N - 0.01, 0, 1),
        "top1_best": np.clip(top1_N + 0.01, 0, 1),
        "heldout_top1": np.round(np.clip(truth_N + rng.normal(0, 0.03, len(b_N)), 0, 1) * 500) / 500,
        "rank": pa.array(rng.integers(5, 200, len(b_N)), pa.int32()),
        "cka_first": rng.uniform(size=len(b_N)),
        "cka_last": rng.uniform(size=len(b_N)),
        "nc1": rng.gamma(2.0, size=len(b_N)),
        "epoch_chosen": pa.array(rng.integers(1, 30, len(b_N)), pa.int32()),
    }
    roles = {name: {"role": "treatment"} for name in ("architecture", "id_classes", "resolution", "augmentation")}
    about = {"name": "study", "variables": {**roles, "seed": {"role": "replicate"}}, "planned_curves": curves}
    return pa.table(columns).replace_schema_metadata({"tunnel_sweep": json.dumps(about)})
