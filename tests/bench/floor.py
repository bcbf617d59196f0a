"""What a step of one probe cannot do without, as this machine's libraries do it: two matmuls, AdamW, one gather.

Operands are taken in turn from sets larger than a core's cache, as in training, where other probes come in between.

Shapes: N images, D width, C classes, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from . import machine
from .shapes import Case, fit_flops

CPU = torch.device("cpu")
_SETS, _STEPS = 6, 60


def floor_seconds(case: Case, *, n_held: int) -> float:
    """Seconds of both fits of all layers if a step did only these operators, and scores only their matmuls."""
    steps = case.epochs * sum(math.ceil(n / case.batch_size) for n in (case.n, case.n - n_held))
    trained = sum(case.widths.count(width) * step_seconds(case, width) for width in set(case.widths)) * steps
    sizes = {"classes": case.classes, "n": 0, "n_held": 0, "n_test": case.epochs * case.n_test}
    scored = fit_flops(case.widths, epochs=1, **sizes) / machine.matmul_peak(CPU)
    return trained + scored


def step_seconds(case: Case, width: int) -> float:
    """Of one probe and one batch."""
    batch, classes = case.batch_size, case.classes
    emb_ND = torch.randn(min(case.n, 5_000), width).half()
    images = [torch.randint(0, len(emb_ND), (batch,)) for _ in range(_SETS)]
    x_BD, logits_CB = torch.empty(batch, width), torch.randn(classes, batch)
    states = [[torch.rand(classes, width) for _ in range(4)] for _ in range(_SETS)]
    count = torch.ones(())
    settings = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False, "maximize": False}

    def steps() -> None:
        for number in range(_STEPS):
            weight_CD, grad_CD, mean_CD, square_CD = states[number % _SETS]
            x_BD.copy_(emb_ND.index_select(0, images[number % _SETS]))
            torch.mm(weight_CD, x_BD.T, out=logits_CB)
            torch.mm(logits_CB, x_BD, out=grad_CD)
            torch._fused_adamw_([weight_CD], [grad_CD], [mean_CD], [square_CD], [], [count], lr=1e-9, **settings)

    work: Callable[[], None] = torch.inference_mode()(steps)
    seconds, _ = machine.timed(work, device=CPU, repeats=3)
    return seconds / _STEPS
