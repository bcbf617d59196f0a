"""All probes of one full paper backbone, what all of the study's would take, and how far that is from the limits.

On a GPU the real size; without one a small case, so that the script stays tested, and no figures of a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sweep.config import CONVERGED
from sweep.config.recipe import PENALTIES, Probe
from sweep.embed.statistics import layer_statistics
from sweep.probes.fit import fit_probes

from . import gpu_stages, machine, paper, steps, train
from .paper import Work, study, work
from .report import table
from .shapes import Case, data_flops, synthetic, widths_of

FULL = Case("ResNet-34, ImageNet-100, 224 px", widths_of("resnet34"), 100, 126_689, 5_000, 30)
SMALL = Case("small stand-in", (64, 64, 128), 10, 1_000, 500, 3)
TARGET_SECONDS = 600.0
CONVERGED_DEFAULT = Probe(solver=CONVERGED, standardize="feature", label_smoothing=0.0, penalties=PENALTIES[CONVERGED])
_SEED = 3


def run(*, quick: bool, case: Case | None = None) -> dict[str, Any]:
    """Measure the backbone's probes; at full size only where there is a GPU.

    Returns
    -------
    measured : whether this is the real size on a GPU; else ``case`` is small and only shows that the script runs.
    stages : seconds of making the embeddings, of the probes' set-up, of their epochs, of the converged probes with
        their path of penalties, and of the statistics.
    limits : seconds of the probes' arithmetic at the matmul peak and of their traffic at the copy bandwidth.
    others : the other stages, see :func:`tests.bench.gpu_stages.run`; None unless measured.
    steps : other ways to take a training step, see :func:`tests.bench.steps.run`; None unless measured.
    hours : GPU-hours of every block of ``paper.yaml`` by stage; None unless measured.
    study : number of probes of the scratch-trained study, and its seconds extrapolated by arithmetic, by traffic
        and by steps; None unless measured.
    """
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    case = case or (FULL if on_gpu and not quick else SMALL)
    peak, bandwidth = machine.matmul_peak(device), machine.copy_bandwidth(device, size=1 << (30 if on_gpu else 26))
    made, data = machine.timed(lambda: synthetic(case, device=device), device=device, repeats=1)
    one, _ = machine.timed(lambda: fit_probes(data, replace(case, epochs=1).recipe, seed=_SEED), device=device)
    with machine.peak_memory(device) as memory:
        fitted, results = machine.timed(
            lambda: fit_probes(data, case.recipe, seed=_SEED), device=device, repeats=1 if on_gpu else 2
        )
    converging, found = machine.timed(lambda: fit_probes(data, CONVERGED_DEFAULT, seed=_SEED), device=device, repeats=1)
    described, _ = machine.timed(
        lambda: layer_statistics(data.train, data.train_labels_N, classes=data.classes), device=device, repeats=1
    )
    epoch = max(fitted - one, 0.0) / (case.epochs - 1)
    held = int(data.heldout_N.sum())
    counted = work(case.widths, classes=case.classes, n=case.n, n_held=held, n_test=case.n_test, case=case)
    measured = on_gpu and case == FULL
    others = gpu_stages.run(small=False) if measured else None
    return {
        "measured": measured,
        "case": case.name,
        "layers": len(case.widths),
        "n": case.n,
        "epochs": case.epochs,
        "problems": [result.problem for result in (*results, *found) if result.problem],
        "stages": {
            "embeddings made": made,
            "probes: set-up": max(fitted - case.epochs * epoch, 0.0),
            "probes: epochs": case.epochs * epoch,
            "converged probes": converging,
            "statistics": described,
        },
        "fit_seconds": fitted,
        "limits": {"matmul peak": counted.flops / peak, "memory bandwidth": counted.bytes / bandwidth},
        "gflops": data_flops(data, case.epochs) / fitted / 1e9,
        "peak_gflops": peak / 1e9,
        "bandwidth_gbs": bandwidth / 1e9,
        "peak_bytes": memory.extra_bytes,
        "data_bytes": sum(emb_ND.nbytes for emb_ND in (*data.train, *data.test)),
        "study": extrapolate(counted, fitted, case) | ({} if measured else {"seconds": None}),
        "others": others,
        "steps": steps.run(quick=False, cases=train.ON_GPU[:2]) if measured else None,
        "hours": paper.hours_by_block(gpu_stages.rates(others, (counted, fitted)), case) if others else None,
    }


def extrapolate(counted: Work, seconds: float, case: Case) -> dict[str, Any]:
    """The scratch-trained study of the paper, if its time went by arithmetic, by memory traffic or by steps."""
    parts = [curve.work(case) for curve in study()]
    whole = Work(*(sum(getattr(part, name) for part in parts) for name in ("flops", "bytes", "steps")))
    return {
        "probes": sum(len(curve.widths) for curve in study()),
        "curves": len(study()),
        "seconds": {name: seconds * share for name, share in whole.times(counted).items()},
    }


def markdown(result: dict[str, Any]) -> str:
    """Stages, limits and the extrapolation; without a GPU, that there was none."""
    if not result["measured"]:
        return (
            "Not measured: no GPU could be had, or only the quick run was asked for. `python -m tests.bench "
            "gpu` on a machine with one measures the "
            f"probes of {FULL.name} ({FULL.n:,} images × {FULL.classes} classes, {len(FULL.widths)} layers, "
            f"{FULL.epochs} epochs, batch {FULL.batch_size}) and extrapolates to the {result['study']['probes']:,} "
            "probes of the scratch-trained study; the same script runs at small size on CPU in the tests."
        )
    whole, limits = result["study"], result["limits"]
    stages = [[name, f"{seconds:.2f}"] for name, seconds in result["stages"].items()]
    floors = [[name, f"{value:.2f}", f"{result['fit_seconds'] / value:.1f} ×"] for name, value in limits.items()]
    verdict = "reached" if max(whole["seconds"].values()) <= TARGET_SECONDS else "missed"
    minutes = [[name, f"{seconds / 60:.1f}"] for name, seconds in whole["seconds"].items()]
    return "\n".join(
        [
            f"Probes of {result['case']}: {result['n']:,} images, {result['layers']} layers, {result['epochs']} "
            f"epochs: {result['fit_seconds']:.1f} s, {result['gflops']:,.0f} GFLOP/s; peak memory "
            f"{result['peak_bytes'] / 2**30:.1f} GiB beyond {result['data_bytes'] / 2**30:.1f} GiB of embeddings.",
            "",
            table(["stage", "s"], stages),
            "",
            f"Limits ({result['peak_gflops']:,.0f} GFLOP/s float32 matmul, {result['bandwidth_gbs']:,.0f} GB/s copy):",
            "",
            table(["limit", "s", "distance"], floors),
            "",
            f"All {whole['probes']:,} probes ({whole['curves']} curves) of the scratch-trained study, extrapolated; "
            f"asked: ≤ {TARGET_SECONDS / 60:.0f} min, {verdict} by the slowest:",
            "",
            table(["if time goes by", "min"], minutes),
            *(["", gpu_stages.markdown(result["others"])] if result["others"] else []),
            *(["", steps.markdown(result["steps"])] if result["steps"] else []),
            *(["", "\n\n".join(paper.markdown(result["hours"]))] if result["hours"] else []),
        ]
    )
