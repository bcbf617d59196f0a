"""The least that a sweep's training can take: its networks' bare steps, as many at a time as the sweep has tasks.

Bare is forward, backward and a fused AdamW step on a batch that is ready (:mod:`tests.bench.train`): no images, no
augmentation, no scores, no checkpoints.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import pandas as pd
import torch

from . import train

_STEPS, _TURNS = 20, 5


def bare_training(probes: pd.DataFrame) -> float:
    """Seconds of all steps of the table's backbones, summed over workers.

    Every network's step is measured as many times as there are workers, side by side, one thread each; the median of
    its turns counts.
    """
    backbones = probes.drop_duplicates("weights_key")
    steps: Counter[train.Case] = Counter()
    for row in backbones.itertuples():
        side, batch = int(row.resolution), int(row.batch_size)
        case = train.Case(row.architecture, side, batch * _STEPS, (side, side), width=row.width, batch_size=batch)
        steps[case] += math.ceil(row.id_images / batch) * int(row.epochs)
    workers = os.cpu_count() or 1
    cases = [case for case in steps for _ in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        seconds = list(pool.map(_step_seconds, cases))
    by_case = {case: median(s for of, s in zip(cases, seconds, strict=True) if of == case) for case in steps}
    return sum(number * by_case[case] for case, number in steps.items())


def _step_seconds(case: train.Case) -> float:
    torch.set_num_threads(1)
    several = train.bare_steps(case, torch.device("cpu"))
    several()
    found = []
    for _ in range(_TURNS):
        started = time.perf_counter()
        several()
        found.append((time.perf_counter() - started) / _STEPS)
    return median(found)
