"""What the report costs: the published table's size with all resampling, and a million rows without any.

    python -m tests.bench attribution

Each case is the command as a user runs it, in a process of its own, from a CSV or Parquet table to the written page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from . import report

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("resolution", "augmentation", "id_classes", "spatial_reduction", "stem", "overparametrization", "depth")
TARGETS = ("retained", "pearson", "alignment")
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Case:
    """A table and how to analyse it; ``seconds`` and ``size`` are what it may take."""

    name: str
    backbones: int
    datasets: int
    resamples: int
    seconds: float
    size: int | None = None  # bytes


CASES = (
    Case("512 rows, 500 resamples, 200 permutations", 64, 8, 500, 90),
    Case("1,000,000 rows, no resampling", 125_000, 8, 0, 180, 2 * GIB),
    Case("1,000,000 rows, 20 resamples", 125_000, 8, 20, 600, 2 * GIB),
)
QUICK = (Case("96 rows, 20 resamples", 16, 6, 20, 60), Case("20,000 rows, no resampling", 2_500, 8, 0, 60, 2 * GIB))


def table(case: Case) -> pd.DataFrame:
    """Backbones at random points of the design, with effects, an interaction and noise of backbones and images."""
    rng = np.random.default_rng(0)
    level_VB = rng.integers(0, 4, (len(VARIABLES), case.backbones))
    effect_B = np.array([0.1, 0.15, 0.3, 0.05, 0.0, -0.1, -0.15]) @ (level_VB / 3)
    effect_B = effect_B + 0.2 * (level_VB[0] / 3 - 0.5) * (level_VB[4] > 1) + rng.normal(0, 0.05, case.backbones)
    backbone_N = np.repeat(np.arange(case.backbones), case.datasets)
    frame = {name: level_VB[v, backbone_N] for v, name in enumerate(VARIABLES)}
    noise_TN = rng.normal(0, 0.05, (len(TARGETS), len(backbone_N)))
    outcomes = {name: effect_B[backbone_N] + noise_TN[t] for t, name in enumerate(TARGETS)}
    outcomes["retained"] = 100 * outcomes["retained"]
    dataset_N = np.tile(np.arange(case.datasets), case.backbones)
    return pd.DataFrame({"backbone": backbone_N, "dataset": dataset_N, **frame, **outcomes})


def measure(case: Case) -> dict[str, Any]:
    """Wall seconds and peak resident bytes of the largest process, of one report."""
    spec = {
        "targets": {name: {"column": name} for name in TARGETS},
        "variables": {name: {"column": name, "kind": "ordinal"} for name in VARIABLES},
        "group": "backbone",
        "dataset": "dataset",
    }
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        table(case).to_parquet(folder / "table.parquet")
        (folder / "mapping.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        arguments = ["--table", folder / "table.parquet", "--mapping", folder / "mapping.yaml", "--out", folder / "out"]
        command = [sys.executable, ROOT / "analysis" / "shap_report.py", *arguments, "--bootstrap", str(case.resamples)]
        started = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)  # wait4 went past Popen, for the memory of this child
        if process.returncode:
            raise RuntimeError(f"{case.name}: the report ended with status {process.returncode}")
    return {"seconds": seconds, "bytes": usage.ru_maxrss * 1024}


def run(*, quick: bool, cases: Sequence[Case] | None = None) -> dict[str, Any]:
    """All cases, and whether each stays within its limits."""
    chosen = cases if cases is not None else QUICK if quick else CASES
    found = []
    for case in chosen:
        cost = measure(case)
        met = cost["seconds"] <= case.seconds and (case.size is None or cost["bytes"] <= case.size)
        found.append({"name": case.name, **cost, "most_seconds": case.seconds, "most_bytes": case.size, "met": met})
    return {"cases": found}


def markdown(result: Mapping[str, Any]) -> str:
    """One row per case."""
    rows = [
        [
            case["name"],
            f"{case['seconds']:.0f}",
            f"{case['most_seconds']:.0f}",
            f"{case['bytes'] / MIB:,.0f}",
            "" if case["most_bytes"] is None else f"{case['most_bytes'] / MIB:,.0f}",
            "yes" if case["met"] else "no",
        ]
        for case in result["cases"]
    ]
    return report.table(["3 targets, 7 variables", "seconds", "at most", "peak MiB", "at most", "met"], rows)
