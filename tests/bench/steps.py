"""Other ways to take a training step: compiled, as a CUDA graph, several seeds of a network in one step.

Each against what the product does: the operators one after the other, and a process for each backbone. A way that costs
something before its first step pays from the number of steps on that is said; a recipe's are epochs × images ÷ batch.

Shapes: S seeds, B batch, C classes.
"""

from __future__ import annotations

import copy
import functools
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from sweep.models import Feeder
from sweep.train.beside import at_once

from . import machine, train
from .report import table

SEEDS = 3
_STEPS, _TURNS, _TURN_SECONDS = 100, 3, 2.0  # steps of a turn at most, and about its length; the shortest counts
_SEED_STEPS = 10
_WARM_UP = 3  # steps before a graph is captured, as torch's documentation asks for
_PROCESSES = 2  # that the product would have beside each other on CPU
SEEDED = train.Case("vggm11", 32, 1_024, (32, 32), width=0.125)
Step = Callable[[], object]


def run(*, quick: bool, cases: Sequence[train.Case] | None = None) -> dict[str, Any]:
    """Measure on the GPU if there is one, else on CPU with one thread, which is what a task has.

    Returns
    -------
    cases : of each network ms of a step by way, seconds before the first, and the steps from which on that pays; None
        where the way is not to be had here, and why.
    seeds : images per second of the machine with a process for each backbone, and with seeds in one step.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = cases or (train.SMALL if quick else train.ON_GPU if device.type == "cuda" else train.ON_CPU)
    seeded = replace(SEEDED, batch_size=cases[0].batch_size) if cases[0] == train.SMALL[0] else cases[0]
    with machine.threads(1):
        measured = [_measured(case, device) for case in cases]
    return {"cases": measured, "seeds": seeds(seeded, device, steps=2 if quick else _SEED_STEPS)}


def _measured(case: train.Case, device: torch.device) -> dict[str, Any]:
    eager, _ = _timed(_eager(case, device), device)
    found: dict[str, Any] = {"name": case.name, "batch": case.batch_size, "eager_ms": eager * 1e3}
    for way, (why_not, make) in WAYS.items():
        if (reason := why_not(device)) is not None:
            found[way] = {"ms": None, "why": reason}
            continue
        seconds, before = _timed(make(case, device), device)
        found[way] = {"ms": seconds * 1e3, "before_s": before, "pays_after": pays_after(eager, seconds, before)}
    return found


def pays_after(eager: float, other: float, before: float) -> int | None:
    """Steps from which on another way has taken less time, all in seconds; None if it never has."""
    return math.ceil(before / (eager - other)) if other < eager else None


def _timed(step: Step, device: torch.device) -> tuple[float, float]:
    """Seconds of a step, and those that the first took longer."""
    first, _ = machine.timed(step, device=device, repeats=1)
    second, _ = machine.timed(step, device=device, repeats=1)
    number = min(max(int(_TURN_SECONDS / second), 1), _STEPS)

    def several() -> None:
        for _ in range(number):
            step()

    seconds, _ = machine.timed(several, device=device, repeats=_TURNS)
    each = seconds / number
    return each, max(first - each, 0.0)


def _ready(case: train.Case, device: torch.device, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """A batch on the device as the network is given it, and its labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch_size, case.resolution, case.resolution, 3)
    raw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    images = Feeder(train.MEAN, train.STD, device=device, layout=layout).normalized(raw)
    return images, torch.randint(0, train.CLASSES, (case.batch_size,), generator=generator).to(device)


def _parts(
    case: train.Case, device: torch.device, *, capturable: bool = False
) -> tuple[Callable[[], Tensor], torch.optim.Optimizer]:
    """What computes the loss of a ready batch, and the product's optimizer."""
    model, layout = train.model_of(case, device)
    model.to(device).to(memory_format=layout).train()
    input_BCHW, target_B = _ready(case, device, layout)
    half = train.precision(device) == "bfloat16"

    def loss() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half, cache_enabled=not capturable):
            logits_BC = model(input_BCHW)
        return F.cross_entropy(logits_BC.float(), target_B)

    return loss, torch.optim.AdamW(model.parameters(), fused=True, capturable=capturable)


def _step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Step:
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def _eager(case: train.Case, device: torch.device) -> Step:
    return _step(*_parts(case, device))


def _compiled(case: train.Case, device: torch.device) -> Step:
    """Forward, loss and backward pass compiled; the first step compiles."""
    torch._dynamo.reset()
    loss, optimizer = _parts(case, device)
    return _step(torch.compile(loss), optimizer)


def _graphed(case: train.Case, device: torch.device) -> Step:
    """The whole step launched at once; the first call captures it."""
    loss, optimizer = _parts(case, device, capturable=True)
    step, graph = _step(loss, optimizer), torch.cuda.CUDAGraph()
    captured = False

    def replay() -> None:
        nonlocal captured
        if not captured:
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    step()
            torch.cuda.current_stream(device).wait_stream(side)
            optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                loss().backward()
                optimizer.step()
            captured = True
        graph.replay()

    return replay


def _no_compiler(_device: torch.device) -> str | None:
    found = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))
    return None if found else "no C++ compiler here"


def _no_gpu(device: torch.device) -> str | None:
    return None if device.type == "cuda" else "no GPU here"


WAYS = {"compiled": (_no_compiler, _compiled), "graph": (_no_gpu, _graphed)}


def seeds(case: train.Case, device: torch.device, *, steps: int) -> dict[str, Any]:
    """Images per second of the whole machine, backbones apart and seeds in one step.

    Returns
    -------
    apart : a process for each backbone, as many as the machine has cores for (on a GPU one, and ``SEEDS``).
    together : ``SEEDS`` of them in one step: of one process with all threads, and on CPU of a process on each core.
    """
    cores = os.cpu_count() or 1
    if device.type == "cuda":
        asked = {"apart": ((1, 1, 1), (SEEDS, 1, 1)), "together": ((1, SEEDS, 1),)}
    else:
        beside = min(_PROCESSES, cores)
        asked = {"apart": ((beside, 1, 1),), "together": ((1, SEEDS, beside), (beside, SEEDS, 1))}
    found: dict[str, Any] = {"name": case.name, "batch": case.batch_size, "seeds": SEEDS}
    for way, each in asked.items():
        found[way] = [
            {
                "processes": processes,
                "threads": threads,
                "images_s": processes
                * number
                * steps
                * case.batch_size
                / at_once(functools.partial(_trains, case, device.type, number, threads, steps), processes),
            }
            for processes, number, threads in each
        ]
    return found


def _trains(case: train.Case, kind: str, number: int, threads: int, steps: int, ready: Callable[[], None]) -> float:
    """Seconds of some steps of so many seeds in one process, once it and the others are warm."""
    device = torch.device(kind)
    with machine.threads(threads):
        step = _eager(case, device) if number == 1 else stacked(case, device, number)[0]
        step()
        step()
        machine.synchronize(device)
        ready()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        machine.synchronize(device)
        return time.perf_counter() - started


def stacked(case: train.Case, device: torch.device, number: int) -> tuple[Step, dict[str, Tensor]]:
    """A step of so many networks of one architecture, and their weights: stacked, so that convolutions are of groups.

    Each has a batch of its own, as seeds have orders and crops of their own; AdamW takes each number by itself.
    """
    model, layout = train.model_of(case, device)
    models = [copy.deepcopy(model).to(device).train() for _ in range(number)]
    params, buffers = stack_module_state(models)
    batches = [_ready(case, device, layout) for _ in range(number)]
    input_SBCHW, target_SB = (torch.stack(each) for each in zip(*batches, strict=True))
    half = train.precision(device) == "bfloat16"

    def logits(params: dict[str, Tensor], buffers: dict[str, Tensor], images_BCHW: Tensor) -> Tensor:
        """Of one of them."""
        logits_BC: Tensor = functional_call(models[0], (params, buffers), (images_BCHW,))
        return logits_BC

    of_all = torch.vmap(logits, randomness="different")

    def loss() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits_SBC = of_all(params, buffers, input_SBCHW)
        return F.cross_entropy(logits_SBC.float().flatten(0, 1), target_SB.flatten()) * number

    return _step(loss, torch.optim.AdamW(params.values(), fused=True)), params


def markdown(result: dict[str, Any]) -> str:
    """A row for each network, and the seeds'."""
    rows = []
    for case in result["cases"]:
        cells = [case["name"], str(case["batch"]), f"{case['eager_ms']:.1f}"]
        for way in WAYS:
            found = case[way]
            if found["ms"] is None:
                cells += [f"– ({found['why']})", "", ""]
                continue
            after = found["pays_after"]
            cells += [f"{found['ms']:.1f}", f"{found['before_s']:.0f}", "never" if after is None else f"{after:,}"]
        rows.append(cells)
    head = ["network", "batch", "one by one, ms"]
    for way in WAYS:
        head += [f"{way}, ms", "before the first step, s", "pays after steps"]
    found = result["seeds"]
    by_way = [
        [way, str(each["processes"]), str(each["threads"]), f"{each['images_s']:,.0f}"]
        for way in ("apart", "together")
        for each in found[way]
    ]
    return "\n".join(
        [
            "A training step of a ready batch, its operators one by one as the product has them, compiled by "
            "`torch.compile`, and launched as one CUDA graph.",
            "",
            table(head, rows),
            "",
            f"{found['name']}, batch {found['batch']}: a process for each backbone, and {found['seeds']} seeds in one "
            "step (`torch.func.stack_module_state`, `torch.vmap`), images per second of the machine:",
            "",
            table(["seeds", "processes", "threads of each", "images/s of all"], by_way),
        ]
    )
