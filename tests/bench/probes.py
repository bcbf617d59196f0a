"""Fitting probes: the engine against one probe at a time, from a DataLoader and by slicing.

Every engine gets the same embeddings, initial weights, batch order, epochs and batch size. The loops fit one layer
of each width; their time for the others of that width is taken to be the same. Engine and loops have all of torch's
threads; the share of the matmul peak is that of one thread, as each worker of a sweep has (``resources.threads``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from sweep.probes.data import ProbeData, ProbeResult
from sweep.probes.fit import fit_probes

from . import machine, scikit
from .floor import floor_seconds
from .loops import Batches, Looped, fit_one, loaded, sliced
from .report import table
from .shapes import Case, chosen_layers, data_flops, synthetic, widths_of

SEED = 3
CPU = torch.device("cpu")
_SIZES = {5_000: (2_000, 10), 50_000: (5_000, 2)}  # training images: test images, epochs
_MANY_CLASSES = 100  # from here on half the matmul peak is asked for


def study_cases() -> list[Case]:
    """Backbones of the study × classes × images, and ResNet-34's widths one by one."""
    found = []
    for n, (n_test, epochs) in _SIZES.items():
        for classes in (10, 100, 200):
            for name in ("resnet34", "vggm17"):
                found.append(Case(f"{name}-c{classes}-n{n}", widths_of(name), classes, n, n_test, epochs))
            name = "vit_tiny_plus_patch8"
            case = Case(f"{name}-c{classes}-n{n}", widths_of(name), classes, n, n_test, epochs)
            found.append(replace(case, batch_size=512, lr=1e-2, weight_decay=1e-4))  # its own recipe, protocol §6
    n_test, epochs = _SIZES[5_000]
    for width, layers in Counter(widths_of("resnet34")).items():
        name = f"resnet34-w{width}-c100-n5000"
        found.append(Case(name, (width,) * layers, 100, 5_000, n_test, epochs))
    return found


QUICK = [
    Case("quick-w192-c100", (192,) * 6, 100, 1_500, 1_000, 3, batch_size=128),
    Case("quick-mixed-c10", (256, 256, 512, 512, 1024), 10, 1_500, 1_000, 3),
    Case("quick-w2048-c100", (2048,) * 2, 100, 1_500, 1_000, 2),
]


def run(*, quick: bool, cases: Sequence[Case] | None = None) -> dict[str, Any]:
    """Measure all cases.

    Returns
    -------
    peak_gflops : of a large float32 matmul on one thread, the highest of all cases.
    cases : one mapping per case, see :func:`measure`.
    solvers : see :func:`tests.bench.scikit.run`.
    targets : what the issue asks for, and what was reached; None where no case tells.
    """
    cases = list(cases) if cases is not None else QUICK if quick else study_cases()
    measured = [measure(case) for case in cases]
    with machine.threads(1):
        solved = scikit.run(quick=quick)
    return {
        "peak_gflops": max(case["peak_gflops"] for case in measured),
        "cases": measured,
        "solvers": solved,
        "targets": targets(cases, measured, solved),
    }


def measure(case: Case) -> dict[str, Any]:
    """One case.

    Returns
    -------
    seconds : of the engine on all ``threads``, both fits of all layers; ``seconds_one_thread`` the same on one.
    loop_seconds, sliced_seconds : of the loops, all layers; ``measured_layers`` of them measured.
    ratio_loop, ratio_sliced : theirs over the engine's.
    ratio_at_peak : ratio_loop of an engine that did nothing but its matmuls at the peak: the most that can be had.
    peak_gflops : of a large float32 matmul on one thread, the best right before and after the engine's time on one:
        clocks change within a long run.
    gflops, peak_fraction : arithmetic of the probes over the engine's time on one thread, and over its matmul peak.
    floor_fraction : share of the peak if a step did nothing but its two matmuls at this machine's speed for their
        shapes, a fused AdamW and one gather (:mod:`tests.bench.floor`): the most that such steps allow.
    max_abs_diff_points, mean_abs_diff_points : test top-1 of the engine and loop (a), at the chosen and the last
        epoch, percentage points.
    data_bytes, peak_bytes : of the embeddings, and of what the engine needed beyond them.
    """
    data = synthetic(case, device=CPU)
    fit_probes(chosen_layers(data, [0]), replace(case, epochs=1).recipe, seed=SEED)  # threads and allocator
    with machine.peak_memory(CPU) as memory:
        seconds, ours = machine.timed(lambda: fit_probes(data, case.recipe, seed=SEED), device=CPU)
    with machine.threads(1):
        before = machine.matmul_peak(CPU)
        one_thread, _ = machine.timed(lambda: fit_probes(data, case.recipe, seed=SEED), device=CPU)
        peak = max(before, machine.matmul_peak(CPU))
        floor = floor_seconds(case, n_held=int(data.heldout_N.sum()))
    layers = {width: case.widths.index(width) for width in case.widths}
    loop_seconds, looped = _loop(data, case, layers, loaded)
    sliced_seconds, _ = _loop(data, case, layers, sliced)
    flops = data_flops(data, case.epochs)
    differences = _differences(ours, looped)
    return {
        "name": case.name,
        "layers": len(case.widths),
        "widths": sorted(set(case.widths)),
        "classes": case.classes,
        "n": case.n,
        "epochs": case.epochs,
        "measured_layers": len(layers),
        "seconds": seconds,
        "seconds_one_thread": one_thread,
        "threads": torch.get_num_threads(),
        "loop_seconds": loop_seconds,
        "sliced_seconds": sliced_seconds,
        "ratio_loop": loop_seconds / seconds,
        "ratio_sliced": sliced_seconds / seconds,
        "ratio_at_peak": loop_seconds * peak * torch.get_num_threads() / flops,
        "peak_gflops": peak / 1e9,
        "gflops": flops / one_thread / 1e9,
        "peak_fraction": flops / one_thread / peak,
        "floor_fraction": flops / floor / peak,
        "max_abs_diff_points": max(differences),
        "mean_abs_diff_points": sum(differences) / len(differences),
        "data_bytes": sum(emb_ND.nbytes for emb_ND in (*data.train, *data.test)),
        "peak_bytes": memory.extra_bytes,
    }


def _loop(data: ProbeData, case: Case, layers: dict[int, int], batches: Batches) -> tuple[float, dict[int, Looped]]:
    """Time for all layers, scaled up from one of each width, and the scores of those."""
    total, scores = 0.0, {}
    for width, layer in layers.items():
        fit = partial(fit_one, data, layer, case.recipe, seed=SEED, batches=batches)
        seconds, scores[layer] = machine.timed(fit, device=CPU, repeats=1)
        total += seconds * case.widths.count(width)
    return total, scores


def _differences(ours: Sequence[ProbeResult], looped: dict[int, Looped]) -> list[float]:
    found = []
    for layer, slow in looped.items():
        if ours[layer].problem is not None:
            raise RuntimeError(f"the engine has no number where the loop has one: {ours[layer].problem}")
        found += [abs(ours[layer].top1 - slow.top1), abs(ours[layer].top1_last - slow.top1_E[-1])]
    return [100 * difference for difference in found]


@dataclass(frozen=True)
class Target:
    """A figure that must be reached, on the case farthest from it."""

    text: str
    bound: float
    at_least: bool = True


NARROW = Target("ratio to loop (a), widths ≤ 256", 5)
WIDE = Target("ratio to loop (a), width 2048 × 100 classes", 3)
PEAK = Target("share of the matmul peak, ≥ 100 classes", 0.5)
MEAN = Target("mean difference of top-1, points", 0.2, at_least=False)
WORST = Target("largest difference of top-1, points", 1, at_least=False)
SOLVER = Target("lbfgs: ratio to scikit-learn at the same loss", 2)


def targets(cases: Sequence[Case], measured: Sequence[dict[str, Any]], solved: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with the case that is farthest from it."""
    pairs = list(zip(cases, measured, strict=True))
    values = {
        NARROW: [m["ratio_loop"] for c, m in pairs if max(c.widths) <= 256],
        WIDE: [m["ratio_loop"] for c, m in pairs if set(c.widths) == {2048} and c.classes == 100],
        PEAK: [m["peak_fraction"] for c, m in pairs if c.classes >= _MANY_CLASSES],
        MEAN: [m["mean_abs_diff_points"] for m in measured],
        WORST: [m["max_abs_diff_points"] for m in measured],
        SOLVER: [m["ratio"] for m in solved["cases"] if not m["white"]],
    }
    return [_reached(target, found) for target, found in values.items()]


def _reached(target: Target, values: Sequence[float]) -> dict[str, Any]:
    value = None
    if values:
        value = min(values) if target.at_least else max(values)
    met = None if value is None else value >= target.bound if target.at_least else value <= target.bound
    return {"text": target.text, "at_least": target.at_least, "bound": target.bound, "value": value, "met": met}


def markdown(result: dict[str, Any]) -> str:
    """Tables of targets and cases."""
    lines = [
        "One curve's probes: all layers, selection fit and full fit, scored after every epoch. (a) fetches single "
        "vectors through a DataLoader, (b) slices tensors; both fit one `nn.Linear` at a time with "
        "`torch.optim.AdamW`. They were run on one layer of each width and scaled to all; epochs are 10 for 5,000 "
        "images and 2 for 50,000 (an epoch costs the same whichever it is; the protocol has 30). “Ceiling” is the "
        "ratio to (a) of an engine that did its matmuls at the machine's peak (measured beside each case, at most "
        f"{result['peak_gflops']:.0f} GFLOP/s a thread), and nothing else: where it is low, arithmetic is most of what "
        "(a) does, and no engine can be much faster. GFLOP/s and the share of the peak are those of one thread, as "
        "each worker of a sweep has; “floor” is "
        "the share that steps of this batch size allow: their two matmuls at the speed of the library for these "
        "shapes, a fused AdamW, one gather, and nothing else. “Speed-up” is that of all threads over one.",
        "",
        table(
            ["target", "asked", "worst case", ""],
            [
                [
                    t["text"],
                    f"{'≥' if t['at_least'] else '≤'} {t['bound']:g}",
                    "–" if t["value"] is None else f"{t['value']:.2f}",
                    {None: "not measured", True: "reached", False: "missed"}[t["met"]],
                ]
                for t in result["targets"]
            ],
        ),
        "",
        table(
            [
                "case",
                "layers",
                "s",
                "÷ (a)",
                "÷ (b)",
                "ceiling",
                "GFLOP/s",
                "of peak",
                "floor",
                "speed-up",
                "Δ max",
                "Δ mean",
                "memory",
            ],
            [_row(case) for case in result["cases"]],
        ),
        "",
        "Δ: difference of test top-1 from (a), percentage points, at the chosen and the last epoch. Memory: peak "
        "beyond the embeddings, as a multiple of them.",
    ]
    return "\n".join([*lines, "", scikit.markdown(result["solvers"])])


def _row(case: dict[str, Any]) -> list[str]:
    digits = 1 if case["seconds"] >= 10 else 2
    memory = case["peak_bytes"] / case["data_bytes"]
    return [
        case["name"],
        str(case["layers"]),
        f"{case['seconds']:.{digits}f}",
        f"{case['ratio_loop']:.1f}",
        f"{case['ratio_sliced']:.1f}",
        f"{case['ratio_at_peak']:.1f}",
        f"{case['gflops']:.0f}",
        f"{case['peak_fraction']:.0%}",
        f"{case['floor_fraction']:.0%}",
        f"{case['seconds_one_thread'] / case['seconds']:.2f}",
        f"{case['max_abs_diff_points']:.2f}",
        f"{case['mean_abs_diff_points']:.2f}",
        f"{memory:.1f} ×" if math.isfinite(memory) else "–",
    ]
