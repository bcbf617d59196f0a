"""What the store and Ray cost: planning and resuming, listing many curves, tasks, two workers.

    python -m tests.bench storage

Fragments of the plan and rerun cases hold real columns and made-up numbers; keys are those that the config gives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep import driver, table
from sweep.config.schema import Resources
from sweep.driver import status
from sweep.driver.cluster import connect
from sweep.driver.tasks import run_cells
from sweep.models.facts import layers
from sweep.study.check import read_config
from sweep.study.grid import Curve

from . import report

ROOT = Path(__file__).resolve().parents[2]
FINISHED = """
name: finished
grid: [{architecture: vit_tiny_plus_patch8, id_dataset: fractals, id_classes: CLASSES, seed: SEEDS, width: 0.25}]
probe_datasets: [glyphs, gratings, digits]
"""
TRAINED = """
name: trained
grid: [{architecture: vggm11, id_dataset: fractals, id_classes: 10, seed: SEEDS, width: 0.125}]
probe_datasets: [glyphs, digits]
datasets:
  fractals: {classes: 10, train_per_class: IMAGES, test_per_class: 20}
  glyphs: {train_per_class: 10, test_per_class: 5}
recipe: {epochs: EPOCHS, warmup_epochs: 1, batch_size: 64}
"""
RERUN_SECONDS, EFFICIENCY = 5.0, 0.9


def write(directory: Path, text: str, **values: object) -> Path:
    """A config file with these words replaced."""
    for name, value in values.items():
        text = text.replace(name.upper(), str(value))
    file = directory / "config.yaml"
    file.write_text(f"{text}cache_dir: {directory / 'cache'}\n", encoding="utf-8")
    return file


def rows(key: str, curve: Curve) -> list[dict[str, Any]]:
    """Made-up probes of a curve."""
    found = layers(curve.backbone.architecture, width=curve.backbone.width, resolution=curve.backbone.resolution)
    last = len(found)
    return [
        {
            "curve_key": key,
            "layer": number,
            "layer_name": layer.name,
            "is_penultimate": number == last,
            "top1": 0.5,
            "top1_epochs": [0.5] * 30,
            "correct": bytes(256),
        }
        for number, layer in enumerate(found, start=1)
    ]


def rerun(backbones: int) -> dict[str, Any]:
    """The command on a sweep whose every fragment is there, from the shell and back; first export, then nothing."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        file = write(home, FINISHED, classes="[10, 20, 40]", seeds=list(range(backbones // 3)))
        sweep = driver.prepare(read_config(file), str(home / "out"))
        for key, planned in sweep.curves.items():
            table.write_fragment(sweep.store, key, rows(key, planned.curve))
        command = [sys.executable, ROOT / "sweep" / "run.py", "--config", file, "--out", home / "out"]
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        probes = sum(len(rows(key, planned.curve)) for key, planned in sweep.curves.items())
        return {"curves": len(sweep.curves), "probes": probes, "first": seconds[0], "again": seconds[1]}


def listing(curves: int) -> dict[str, Any]:
    """Expanding a grid to keys, listing its fragments, finding what is missing, and ``--status``; in seconds each."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        file = write(home, FINISHED, classes="10", seeds=list(range(curves // 4)))
        config, store, times = read_config(file), str(home / "out"), []
        started = time.perf_counter()
        sweep = driver.prepare(config, store)
        times.append(time.perf_counter() - started)
        (home / "out" / "fragments").mkdir(parents=True)
        for key in list(sweep.curves)[1:]:  # the names are what planning trusts
            (home / "out" / "fragments" / f"{key}.parquet").write_bytes(b"")
        started = time.perf_counter()
        done = table.listing(sweep.store).done
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
        missing = driver.missing_cells(sweep, done)
        times.append(time.perf_counter() - started)
        table.publish_plan(sweep.store, driver.plan_of(sweep))
        started = time.perf_counter()
        status.show(store, None)
        times.append(time.perf_counter() - started)
        assert len(missing) == 1
    return {"curves": len(sweep.curves), **dict(zip(("plan", "list", "missing", "status"), times, strict=True))}


def scheduling(cells: int) -> dict[str, Any]:
    """Seconds per cell that has nothing to do, against a bare Ray task."""
    import ray

    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        file = write(home, FINISHED, classes="10", seeds="[0]")
        sweep = driver.prepare(read_config(file), str(home / "out"))
        cell = sweep.cells[0]
        for key, planned in sweep.curves.items():
            table.write_fragment(sweep.store, key, rows(key, planned.curve))
        with connect(Resources(gpus=0, max_in_flight=4)) as resources:
            task = driver.task_of(sweep, cell, gpu=False)
            bare = ray.remote(max_retries=0)(lambda: None)

            def ours(count: int) -> None:
                run_cells(
                    [cell] * count,
                    resources,
                    task_of=lambda _cell, _train_only: task,
                    lost=_fail,
                    show=_nothing,
                )

            found = {}
            for name, act in (("ours", ours), ("bare", lambda n: ray.get([bare.remote() for _ in range(n)]))):
                act(4)  # workers start, and import
                started = time.perf_counter()
                act(cells)
                found[name] = (time.perf_counter() - started) / cells
    return {"cells": cells, **found}


def _fail(lost: Any) -> None:
    raise RuntimeError(f"a cell was lost: {lost.error}")


def _nothing(_running: int) -> None:
    pass


def scaling(backbones: int, epochs: int, images: int) -> dict[str, Any]:
    """Backbones per second of one sweep with 1 and 2 workers, and of two sweeps with one worker side by side."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        half = backbones // 2
        whole, first, second = range(backbones), range(half), range(half, backbones)
        _sweep(home / "warm", [range(1)], 1, epochs=2, images=images)  # images are decoded once
        one = _sweep(home / "one", [whole], 1, epochs=epochs, images=images)
        two = _sweep(home / "two", [whole], 2, epochs=epochs, images=images)
        side = _sweep(home / "side", [first, second], 1, epochs=epochs, images=images)
    return {"backbones": backbones, "one": one, "two": two, "side": side, "efficiency": side / two}


def _sweep(home: Path, seeds: list[range], workers: int, *, epochs: int, images: int) -> float:
    """Seconds until sweeps of these seeds, started together, have ended."""
    processes = []
    started = time.perf_counter()
    for number, chosen in enumerate(seeds):
        place = home / str(number)
        place.mkdir(parents=True)
        file = write(place, TRAINED, seeds=list(chosen), epochs=epochs, images=images)
        file.write_text(file.read_text().replace(str(place / "cache"), str(home.parent / "cache")), encoding="utf-8")
        places = ["--config", file, "--out", place / "out", "--set", f"resources.max_in_flight={workers}"]
        command = [sys.executable, ROOT / "sweep" / "run.py", *places]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        processes.append(subprocess.Popen([str(part) for part in command], env=environment, **quiet))
    for process in processes:
        if process.wait():
            raise RuntimeError(f"a sweep of {home.name} ended with status {process.returncode}")
    return time.perf_counter() - started


def run(*, quick: bool) -> dict[str, Any]:
    """All cases."""
    return {
        "rerun": rerun(6 if quick else 147),
        "listing": [listing(curves) for curves in ((100, 400) if quick else (1_000, 10_000, 100_000))],
        "scheduling": scheduling(10 if quick else 300),
        "scaling": None if quick else scaling(6, 12, 200),
    }


def markdown(result: Mapping[str, Any]) -> str:
    """What was found, against what is wanted."""
    again, tasks = result["rerun"], result["scheduling"]
    met = "within" if again["again"] <= RERUN_SECONDS else "**not within**"
    rows_ = [
        [f"{case['curves']:,}", *(f"{case[name]:.2f}" for name in ("plan", "list", "missing", "status"))]
        for case in result["listing"]
    ]
    return "\n".join(
        [
            f"The command on a finished sweep of {again['curves']:,} curves, {again['probes']:,} probes: "
            f"{again['first']:.1f} s with the export of the table, {again['again']:.1f} s after that, {met} "
            f"{RERUN_SECONDS:.0f} s.",
            "",
            report.table(["curves in the store", "expand, keys", "list", "find what is missing", "`--status`"], rows_),
            "",
            f"A cell with nothing to do takes {1000 * tasks['ours']:.1f} ms, a bare Ray task "
            f"{1000 * tasks['bare']:.1f} ms ({tasks['cells']} of each).",
            *_scaling(result["scaling"]),
        ]
    )


def _scaling(workers: Mapping[str, Any] | None) -> list[str]:
    if workers is None:
        return []
    enough = "at least" if workers["efficiency"] >= EFFICIENCY else "**less than**"
    return [
        "",
        f"{workers['backbones']} backbones: one worker {workers['one']:.0f} s, two workers {workers['two']:.0f} s, "
        f"two sweeps of half the grid side by side {workers['side']:.0f} s. Two workers reach "
        f"{workers['efficiency']:.0%} of what the two sweeps do, {enough} {EFFICIENCY:.0%}.",
    ]
