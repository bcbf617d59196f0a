"""A table of networks that learned several tasks, whose numbers are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

SEEDS = 4
TRUTH = {"E1+T1": 0.9, "E1+T2": 0.85, "E2+T2": 0.5, "E2+T1": 0.6, "E2+T1 fine-tuned": 0.8, "E2 fine-tuned": 0.7}


def _rows(architecture: str, depth: int, seed: int, forgotten: float, tasks: int) -> Iterator[dict[str, Any]]:
    """A course: task 1 at 0.9, then ``forgotten`` less; its features keep all but a tenth of that."""
    rng = np.random.default_rng(seed)
    about = {
        "course_key": f"{architecture}{seed}", "plan": "known", "tasks": "a → b", "architecture": architecture,
        "depth": depth, "seed": seed, "split_layer": None,
    }  # fmt: skip
    matrix = {(0, 1): 0.2, (0, 2): 0.2, (1, 1): 0.9, (1, 2): 0.2, (2, 1): 0.9 - forgotten, (2, 2): 0.8}
    again = {(0, 1): 0.3, (0, 2): 0.3, (1, 1): 0.9, (1, 2): 0.5, (2, 1): 0.9 - forgotten / 10, (2, 2): 0.8}
    for (moment, task), top1 in matrix.items():
        yield about | {
            "kind": "matrix", "after_task": moment, "task": task, "top1": top1, "head_refit_top1": again[moment, task]
        }  # fmt: skip
    noise = rng.normal(0, 0.02)
    for later in range(2, tasks + 1):
        for combination, top1 in TRUTH.items():
            own = top1 + noise + (0 if combination == "E1+T1" else rng.normal(0, 1e-4))
            for split in ("id95", "all") if "fine" not in combination else ("id95",):
                yield about | {
                    "kind": "combination", "combination": combination.replace("2", str(later)), "task": 1,
                    "later_task": later, "split_by": split, "split_layer": 3, "top1": own,
                }  # fmt: skip
                if combination == "E1+T1" and tasks > 2:
                    yield about | {
                        "kind": "combination", "combination": combination, "task": later, "later_task": later,
                        "split_by": split, "split_layer": 3, "top1": 0.1 * later + noise,
                    }  # fmt: skip


def course_table(tasks: int = 2) -> pd.DataFrame:
    """Two depths, several seeds of each; the deeper network forgets twice as much; later tasks are as the second."""
    found = [_rows("vggm11", 11, seed, 0.2 + 0.01 * seed, tasks) for seed in range(SEEDS)]
    found += [_rows("vggm17", 17, seed, 0.4 + 0.01 * seed, tasks) for seed in range(SEEDS)]
    return pd.DataFrame([row for course in found for row in course])
