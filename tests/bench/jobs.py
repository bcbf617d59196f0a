"""The main job by this code and by that of an earlier commit: what changes are worth to whoever runs a sweep.

    TUNNEL_SWEEP_DATA=/path/to/archives python -m tests.bench jobs

Every run starts from nothing: no weights, no decoded images. The archives are needed for ``small-real.yaml`` alone.
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
from .storage import ROOT, TRAINED, write

BEFORE = "7d0994e"  # the last commit before the probe engine
STAGES = ("pretrain", "embed", "probe")


@dataclass(frozen=True)
class Job:
    """A config file, and what it is told besides."""

    config: Path
    settings: tuple[str, ...] = ()


def study() -> list[Job]:
    """The demo, and the small study where its archives are."""
    jobs = [Job(ROOT / "configs" / "demo.yaml")]
    if data := os.environ.get("TUNNEL_SWEEP_DATA"):
        jobs.append(Job(ROOT / "configs" / "small-real.yaml", settings=(f"data_root={data}",)))
    return jobs


def run(*, quick: bool, jobs: Sequence[Job] | None = None, commit: str = BEFORE) -> dict[str, Any]:
    """Run every job by both codes, one right after the other.

    Returns
    -------
    before : the commit that is compared with.
    jobs : one mapping per job: name; probes, how many rows the table has; before and after, each with the seconds of
        the ``whole`` command and of the stages ``pretrain``, ``embed`` and ``probe`` summed over workers; ratio, of
        the whole.
    """
    with earlier(commit) as code, tempfile.TemporaryDirectory() as directory:
        if jobs is None:
            tiny = write(Path(directory), TRAINED, seeds=[0, 1], epochs=2, images=20)
            jobs = [Job(tiny)] if quick else study()
        measured = [compare(job, {"before": code, "after": ROOT}, Path(directory, "run")) for job in jobs]
    return {"before": commit, "jobs": measured}


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
    """One job by every code."""
    found = {name: once(job, code, place) for name, code in codes.items()}
    probes = {name: int(found[name].pop("probes")) for name in codes}
    if len(set(probes.values())) != 1:
        raise RuntimeError(f"{job.config.stem}: not the same probes: {probes}")
    ratio = found["before"]["whole"] / found["after"]["whole"]
    return {"name": job.config.stem, "probes": probes["after"], **found, "ratio": ratio}


def once(job: Job, code: Path, place: Path) -> dict[str, float]:
    """Seconds of the whole command and of its stages, from nothing."""
    shutil.rmtree(place, ignore_errors=True)
    settings = [part for setting in (*job.settings, f"cache_dir={place / 'cache'}") for part in ("--set", setting)]
    command = [sys.executable, code / "sweep" / "run.py", "--config", job.config, "--out", place / "out", *settings]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    started = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=code,
        env=environment | {"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{job.config} by {code} ended with status {done.returncode}: {done.stderr[-2000:]}")
    probes = pd.read_parquet(place / "out" / "probes.parquet")
    curves, backbones = (probes.drop_duplicates(key) for key in ("curve_key", "weights_key"))
    sums = [backbones.pretrain_seconds.sum(), curves.embed_seconds.sum(), curves.probe_seconds.sum()]
    return {"probes": len(probes), "whole": seconds, **dict(zip(STAGES, sums, strict=True))}


def markdown(result: Mapping[str, Any]) -> str:
    """Both codes side by side."""
    head = ["job", "probes", "before, s", "now, s", "ratio", *(f"{stage}, s" for stage in STAGES)]
    rows = [
        [
            job["name"],
            f"{job['probes']:,}",
            *(f"{job[name]['whole']:.0f}" for name in ("before", "after")),
            f"{job['ratio']:.2f}",
            *(f"{job['before'][stage]:.0f} → {job['after'][stage]:.0f}" for stage in STAGES),
        ]
        for job in result["jobs"]
    ]
    return (
        f"The main job, from nothing, by the code of commit {result['before']} (before the probe engine) and by this, "
        f"one right after the other. Stages are summed over workers.\n\n{report.table(head, rows)}"
    )
