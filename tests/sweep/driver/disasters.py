"""Kills of every kind of process, by several signals, at random moments of several sweeps that share a store.

    python -m tests.sweep.driver.disasters OUT 50 --config configs/demo.yaml --config mine.yaml [--seed 0]

Whatever was killed, the tables at the end are those of sweeps that nobody disturbed, row for row, and nothing is left
behind. Checkpoints are written after every epoch, so that what is killed in training goes on in the middle of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import yaml

from sweep.table.schema import RUN_COLUMNS

ROOT = Path(__file__).resolve().parents[3]
# what is hit → words of its command line; the driver is the process that was started
TARGETS = {
    "worker": ("ray::_run_task", "ray::IDLE"),
    "raylet": ("raylet/raylet",),
    "gcs": ("gcs_server",),
    "agent": (
        "ray::DashboardAgent",
        "ray::RuntimeEnvAgent",
        "dashboard/agent.py",
        "runtime_env/agent",
        "log_monitor.py",
    ),
}
SIGNALS = {
    "driver": (signal.SIGKILL, signal.SIGTERM, signal.SIGINT),
    "worker": (signal.SIGKILL, signal.SIGTERM),
    "raylet": (signal.SIGKILL,),
    "gcs": (signal.SIGKILL,),
    "agent": (signal.SIGKILL, signal.SIGTERM),
}
ENDS_SECONDS = 240.0  # a driver that has lost something ends within it, by itself or with all its work done
OFTEN = """
import sys
if "sweep.train.checkpoint" in sys.modules:  # in a worker: torch is loaded there
    from sweep.train.checkpoint import Checkpoints
    Checkpoints.__init__.__defaults__ = (0.0, None)
"""
# Ray's own patience with a lost head is a minute
PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5", "RAY_health_check_failure_threshold": "2"}


@dataclass(frozen=True)
class Hit:
    """One kill: what was hit, how, whether a worker was at work, and how the driver ended."""

    what: str
    signal: str
    at_work: bool
    checkpoints: int
    code: int
    seconds: float

    def __str__(self) -> str:
        work = "at work" if self.at_work else "before or after work"
        return (
            f"{self.what} {self.signal} {work}, {self.checkpoints} checkpoints there: "
            f"the driver ended with {self.code} after {self.seconds:.1f} s"
        )


class Harness:
    """Sweeps of some configs on one store, hit again and again.

    Parameters
    ----------
    home : an empty folder for the store, the undisturbed ones and logs.
    """

    def __init__(self, configs: Sequence[Path], home: Path, seed: int) -> None:
        self.configs, self.home, self.out = list(configs), home, home / "hit"
        self._random = random.Random(seed)
        self._wanted: set[str] = set()  # fragments of all configs
        (home / "plugins").mkdir(parents=True)
        (home / "plugins" / "often.py").write_text(OFTEN)

    def undisturbed(self) -> dict[str, list[dict]]:
        """Rows of every config when nothing happens, by its name."""
        found = {}
        for config in self.configs:
            place = self.home / "undisturbed" / config.stem
            self._finish(config, place)
            found[_name(config)] = _rows(place / "probes.parquet")
            self._wanted |= {path.name for path in (place / "fragments").glob("*.parquet")}
        return found

    def hit(self, what: str, number: signal.Signals, *, working: bool) -> Hit:
        """Start the sweep of a random config, hit one process of it at a random moment, wait for its end."""
        config, started = self._random.choice(self.configs), time.monotonic()
        self._leave_work()
        driver = self._start(config, self.out)
        try:
            self._wait(driver, working)
            at_work, there = _at_work(self.out, driver), len(list((self.out / "checkpoints").glob("*.pt")))
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                what, victim = self._victim(driver, what, at_work)
                victim.send_signal(number)
            code = driver.wait(timeout=ENDS_SECONDS)
        finally:
            if driver.poll() is None:
                driver.kill()
        return Hit(what, number.name, bool(at_work), there, code, time.monotonic() - started)

    def _wait(self, driver: subprocess.Popen, working: bool) -> None:
        """For a random moment: of a worker's work, or from the start on."""
        if working:
            self._until_at_work(driver)
            time.sleep(self._random.uniform(0.0, 1.0))
            self._until_at_work(driver)  # what was short has ended meanwhile
        else:
            time.sleep(self._random.uniform(0.5, 6.0))

    def _until_at_work(self, driver: subprocess.Popen) -> None:
        while driver.poll() is None and not _at_work(self.out, driver):
            time.sleep(0.05)

    def _leave_work(self) -> None:
        """Where nearly all is done, make a part of it missing again: there would be nothing to hit."""
        there = sorted((self.out / "fragments").glob("*.parquet"))
        if len(there) > len(self._wanted) // 2:
            for place in [*self._random.sample(there, len(there) // 2), *(self.out / "weights").glob("*")]:
                place.unlink()

    def _victim(
        self, driver: subprocess.Popen, what: str, at_work: Sequence[psutil.Process]
    ) -> tuple[str, psutil.Process]:
        """A process of that kind, of workers one at work if there is one; the driver itself if there is none yet."""
        own, kinds = psutil.Process(driver.pid), TARGETS.get(what, ())
        found = list(at_work) if what == "worker" else []
        for process in () if found else own.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline()) or process.name()
                if any(word in line for word in kinds):
                    found.append(process)
        return (what, self._random.choice(found)) if found else ("driver", own)

    def finish(self) -> None:
        """Let every config end undisturbed on what is left of the store."""
        for config in self.configs:
            self._finish(config, self.out, "--verify", "--retry-failed")

    def differences(self, undisturbed: dict[str, list[dict]]) -> list[str]:
        """What is not as it would be had nothing happened; empty if all is."""
        found = []
        for name, rows in undisturbed.items():
            own = self.out / (f"probes-{name}.parquet" if len(self.configs) > 1 else "probes.parquet")
            if _rows(own) != rows:
                found.append(f"the table of {name} is ANOTHER")
        left = [path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file()]
        litter = [  # half a file of a killed writer stays for a day: it might be alive on another machine
            name
            for name in left
            if name.startswith(("failures/", "checkpoints/", "quarantine/")) and "/.tmp-" not in name
        ]
        return found + [f"left behind: {name}" for name in litter]

    def _command(self, config: Path, out: Path, *more: str) -> list[str]:
        imports = [*(yaml.safe_load(config.read_text(encoding="utf-8")).get("imports") or []), "often"]
        words = [sys.executable, ROOT / "sweep" / "run.py", "--config", config, "--out", out]
        return [*map(str, words), "--set", f"imports=[{', '.join(imports)}]", *more]

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.home / "plugins"), os.environ.get("PYTHONPATH", "")])
        kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        return kept | PATIENCE | {"PYTHONPATH": path}

    def _start(self, config: Path, out: Path) -> subprocess.Popen:
        with open(self.home / "log.txt", "a", encoding="utf-8") as log:
            return subprocess.Popen(self._command(config, out), stdout=log, stderr=log, env=self._environment())

    def _finish(self, config: Path, out: Path, *more: str) -> None:
        command, environment = self._command(config, out, *more), self._environment()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{config.name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _name(config: Path) -> str:
    return str(yaml.safe_load(config.read_text(encoding="utf-8"))["name"])


def _rows(place: Path) -> list[dict]:
    return pq.read_table(place).drop_columns(list(RUN_COLUMNS)).to_pylist()


def _at_work(out: Path, driver: subprocess.Popen) -> list[psutil.Process]:
    """Workers of this driver that have said so; notes of killed ones stay for a while."""
    own: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        own = {process.pid: process for process in psutil.Process(driver.pid).children(recursive=True)}
    said = set()
    for note in (out / "running").glob("*.json"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # it is gone, or was never whole
            said.add(json.loads(note.read_bytes())["pid"])
    return [own[pid] for pid in sorted(said & own.keys())]


def plan(kills: int, seed: int, kinds: Sequence[str] = tuple(SIGNALS)) -> list[tuple[str, signal.Signals, bool]]:
    """What to hit, how, and whether work is waited for: every kind and signal before any comes again."""
    every = [(what, number) for what in kinds for number in SIGNALS[what]]
    chosen: list[tuple[str, signal.Signals, bool]] = []
    generator = random.Random(seed)
    while len(chosen) < kills:
        generator.shuffle(every)
        chosen += [(what, number, place % 3 != 2) for place, (what, number) in enumerate(every)]
    return chosen[:kills]


def main(argv: Sequence[str] | None = None) -> int:
    """Kill as often as asked; 0 if the tables are the same, 1 if not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="an empty folder")
    parser.add_argument("kills", type=int)
    parser.add_argument("--config", type=Path, action="append", required=True, help="may be repeated; names differ")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=tuple(SIGNALS), action="append", help="hit only this kind of process")
    given = parser.parse_args(argv)
    harness = Harness(given.config, given.out, given.seed)
    expected = harness.undisturbed()
    hits = []
    for what, number, working in plan(given.kills, given.seed, given.only or tuple(SIGNALS)):
        hits.append(harness.hit(what, number, working=working))
        print(f"{len(hits)}: {hits[-1]}", flush=True)
    harness.finish()
    wrong = harness.differences(expected)
    counts = Counter(f"{hit.what} {hit.signal}" for hit in hits)
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    working, resumed = sum(hit.at_work for hit in hits), sum(hit.checkpoints > 0 for hit in hits)
    print(f"{working} of {len(hits)} at work, {resumed} with a checkpoint to go on from")
    print("\n".join(wrong) or f"{len(hits)} kills of {len(given.config)} sweeps: the tables are the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
