"""The main job by this code and by that of an earlier commit: what changes are worth to whoever runs a sweep.

    TUNNEL_SWEEP_DATA=/path/to/archives python -m tests.bench jobs

Both read the config files of that commit, and fit the probes that it fitted: AdamW's, chosen by held-out images. Every
run starts from nothing: no weights, no decoded images. The archives are needed for ``small-real.yaml`` alone. The floor
is what bare steps of training, extraction and probes take on all cores, with nothing before, between or after them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from . import report
from .jobs_floor import bare_training
from .storage import ROOT, TRAINED, write

BEFORE = "ad7d041"  # the last commit before augmentation in batches, feeders and decoding in processes
ITS_PROBES = ("probe.solver=adamw", "probe.folds=1")  # what this code must be told to fit the probes of that commit
ASKED = {"demo": 1.2, "small-real": 1.3}
STAGES = ("pretrain", "embed", "probe")
ROW = ["architecture", "id_dataset", "id_classes", "images_per_class", "augmentation", "seed", "dataset", "layer"]


@dataclass(frozen=True)
class Job:
    """A config file, what both codes are told besides, what only the later one is, and how often both run it."""

    config: Path
    settings: tuple[str, ...] = ()
    now: tuple[str, ...] = ()
    turns: int = 1


def study(code: Path) -> list[Job]:
    """The demo of an earlier code, and its small study where the archives are."""
    jobs = [Job(code / "configs" / "demo.yaml", now=ITS_PROBES, turns=3)]
    if data := os.environ.get("TUNNEL_SWEEP_DATA"):
        jobs.append(Job(code / "configs" / "small-real.yaml", settings=(f"data_root={data}",), now=ITS_PROBES))
    return jobs


def run(*, quick: bool, jobs: Sequence[Job] | None = None, commit: str = BEFORE) -> dict[str, Any]:
    """Run every job by both codes, one right after the other.

    Returns
    -------
    before : the commit that is compared with.
    jobs : one mapping per job, see :func:`compare`.
    targets : times of the whole command, before ÷ now, against what was asked.
    """
    with earlier(commit) as code, tempfile.TemporaryDirectory() as directory:
        if jobs is None:
            tiny = write(Path(directory), TRAINED, seeds=[0, 1], epochs=2, images=20)
            jobs = [Job(tiny)] if quick else study(code)
        measured = [compare(job, {"before": code, "after": ROOT}, Path(directory, "run")) for job in jobs]
    targets = [
        {"text": f"{job['name']}: before ÷ now", "bound": bound, "value": job["ratio"], "met": job["ratio"] >= bound}
        for job in measured
        if (bound := ASKED.get(job["name"]))
    ]
    return {"before": commit, "jobs": measured, "targets": targets}


@contextmanager
def earlier(commit: str) -> Iterator[Path]:
    """The files of a commit, in a directory of their own.

    Raises
    ------
    RuntimeError
        If this is no repository with that commit.
    """
    with tempfile.TemporaryDirectory() as directory:
        packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
        if packed.returncode:
            raise RuntimeError(
                f"no files of commit {commit}: {packed.stderr.decode().strip()}; fetch the whole history"
            )
        subprocess.run(["tar", "-x", "-C", directory], input=packed.stdout, check=True)
        yield Path(directory)


def compare(job: Job, codes: Mapping[str, Path], place: Path) -> dict[str, Any]:
    """One job by every code.

    Returns
    -------
    name : of the config.
    probes : how many rows the table has.
    before, after : seconds of the ``whole`` command and of the stages ``pretrain``, ``embed`` and ``probe`` summed over
        workers, of the turn in the middle; ``turns``, of the whole.
    ratio : of the whole.
    bare : seconds of bare training, summed over workers.
    floor : seconds of bare training, extraction and probes on all cores.
    shift : differences of top-1 between the two tables, in points; see :func:`shift`.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in codes}
    for _ in range(job.turns):
        for name, code in codes.items():
            found[name].append(once(job, code, place, told=job.now if name == "after" else ()))
    tables = {name: [turn.pop("table") for turn in turns][-1] for name, turns in found.items()}
    return {
        "name": job.config.stem,
        "probes": len(tables["after"]),
        **summary(found, bare_training(tables["after"])),
        "shift": shift(tables["before"], tables["after"]),
    }


def summary(found: Mapping[str, Sequence[Mapping[str, Any]]], bare: float) -> dict[str, Any]:
    """The middle turn of each code, and what the job takes at least; see :func:`compare`."""
    middle: dict[str, dict[str, Any]] = {}
    for name, turns in found.items():
        ordered = sorted(turns, key=lambda turn: turn["whole"])
        middle[name] = {**ordered[len(turns) // 2], "turns": [turn["whole"] for turn in turns]}
    after = middle["after"]
    return {
        **middle,
        "ratio": middle["before"]["whole"] / after["whole"],
        "bare": bare,
        "floor": (bare + after["embed"] + after["probe"]) / (os.cpu_count() or 1),
    }


def shift(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How far the top-1 of the same layer of the same backbone moved, by augmentation.

    Returns
    -------
    A mapping for each value of ``augmentation``: rows; ``middle`` and ``largest`` absolute difference, and the ``mean``
    signed one, in points.

    Raises
    ------
    RuntimeError
        If a row of one table is not in the other.
    """
    both = before.merge(after, on=ROW, how="outer", suffixes=("_before", "_after"), validate="1:1", indicator=True)
    if not (both["_merge"] == "both").all():
        raise RuntimeError(f"rows of one table alone: {both[both['_merge'] != 'both'][ROW].head().to_dict('records')}")
    points = (both.top1_after - both.top1_before) * 100
    return {
        str(name): {"rows": len(of), "middle": of.abs().median(), "largest": of.abs().max(), "mean": of.mean()}
        for name, of in points.groupby(both.augmentation)
    }


def once(job: Job, code: Path, place: Path, *, told: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds of the whole command and of its stages, from nothing, and its table."""
    shutil.rmtree(place, ignore_errors=True)
    settings = (*job.settings, *told, f"cache_dir={place / 'cache'}")
    started = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, str(code / "sweep" / "run.py"), "--config", str(job.config), "--out", str(place / "out")),
            *(part for setting in settings for part in ("--set", setting)),
        ],
        cwd=code,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{job.config} by {code} ended with status {done.returncode}: {done.stderr[-2000:]}")
    probes = pd.read_parquet(place / "out" / "probes.parquet")
    curves, backbones = (probes.drop_duplicates(key) for key in ("curve_key", "weights_key"))
    sums = [backbones.pretrain_seconds.sum(), curves.embed_seconds.sum(), curves.probe_seconds.sum()]
    return {"table": probes, "whole": seconds, **dict(zip(STAGES, sums, strict=True))}


def markdown(result: Mapping[str, Any]) -> str:
    """Both codes side by side, and how far their tables differ."""
    head = ["job", "probes", "before, s", "now, s", "ratio", "asked", "floor, s", "before ÷ floor"]
    head += [f"{stage}, s" for stage in STAGES] + ["bare steps, s"]
    rows = [
        [
            job["name"],
            f"{job['probes']:,}",
            *(", ".join(f"{seconds:.0f}" for seconds in job[name]["turns"]) for name in ("before", "after")),
            f"{job['ratio']:.2f}",
            f"{ASKED[job['name']]}" if job["name"] in ASKED else "–",
            f"{job['floor']:.0f}",
            f"{job['before']['whole'] / job['floor']:.2f}",
            *(f"{job['before'][stage]:.0f} → {job['after'][stage]:.0f}" for stage in STAGES),
            f"{job['bare']:.0f}",
        ]
        for job in result["jobs"]
    ]
    shifts = [
        [
            job["name"],
            name,
            f"{of['rows']:,}",
            *(f"{of[key]:.2f}" for key in ("middle", "largest")),
            f"{of['mean']:+.2f}",
        ]
        for job in result["jobs"]
        for name, of in job["shift"].items()
    ]
    moved = ["job", "augmentation", "rows", "median, points", "largest, points", "mean, signed"]
    return "\n\n".join(
        [
            f"The main job, from nothing, by the code of commit {result['before']} and by this, turn by turn: "
            "config files and probes (AdamW's) of that commit. Of several turns the middle ones are compared. Stages "
            "are summed over workers, bare steps of training too; the floor is these, extraction, probes on all cores.",
            report.table(head, rows),
            "The same rows of both tables, top-1 now − before. Crops and mixing are drawn anew since (keys of those "
            "weights changed with them).",
            report.table(moved, shifts),
        ]
    )
