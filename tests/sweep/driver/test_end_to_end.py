"""The main job for real: a Ray cluster, generated images, a Parquet table; killed, resumed, submitted as a job."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sweep.base.store import Store
from sweep.table.schema import RUN_COLUMNS
from sweep.table.verify import verify_fragments
from tests.local_head import ask, local_head, ray_environment

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow

TWO_CURVES = """
name: tiny
grid:
  - architecture: vggm11
    id_dataset: fractals
    id_classes: 3
    images_per_class: 12
    resolution: 32
    width: 0.0625
    augmentation: on
probe_datasets: [glyphs]
datasets:
  fractals: {classes: 4, train_per_class: 12, test_per_class: 6}
  glyphs: {classes: 5, train_per_class: 6, test_per_class: 4}
recipe: {epochs: 2, warmup_epochs: 1, batch_size: 16}
probe: {solver: adamw, epochs: 3, batch_size: 32}
"""
FOUR_BACKBONES = TWO_CURVES.replace("augmentation: on", "augmentation: [off, on]\n    seed: [0, 1]")


@pytest.fixture
def config(tmp_path):
    def write(text):
        file = tmp_path / "tiny.yaml"
        file.write_text(text + f"cache_dir: {tmp_path_cache(tmp_path)}\n")
        return file

    return write


def tmp_path_cache(tmp_path):
    return tmp_path / "cache"


def command(config, out, *more):
    return [sys.executable, str(ROOT / "sweep" / "run.py"), "--config", str(config), "--out", str(out), *more]


def run(config, out, *more, code=0, **options):
    done = subprocess.run(command(config, out, *more), capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def rows(out):
    table = pq.read_table(out / "probes.parquet").drop_columns(list(RUN_COLUMNS))
    return table.to_pylist()


@pytest.fixture
def dead_head():
    """A shell where a head node of Ray died without tidying up: the note of its address is still there."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # paths of sockets must be short
        note = Path(directory) / "ray" / "ray_current_cluster"
        note.parent.mkdir()
        note.write_text("127.0.0.1:9")
        yield {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"RAY_TMPDIR": directory}


def test_two_curves_and_a_rerun_that_does_nothing(config, tmp_path, dead_head):
    file, out = config(TWO_CURVES), tmp_path / "out"
    done = run(file, out, "--profile", cwd=tmp_path, env=dead_head, timeout=120)  # from another directory
    assert_profiled(out, done.stdout)
    assert "2 of 2 curves are in the table (2 computed now" in done.stdout
    table = rows(out)
    assert [row["dataset"] for row in table] == ["fractals"] * 10 + ["glyphs"] * 10
    assert [row["layer"] for row in table] == list(range(1, 11)) * 2
    assert all(row["problem"] is None for row in table)
    assert all(0 <= row["top1"] <= row["top5"] <= 1 for row in table)
    assert all(row["top1_best"] >= max(row["top1"], row["top1_last"]) for row in table)
    assert {row["n_train"] for row in table} == {36, 30}
    assert {row["n_heldout"] for row in table} == {3, 5}  # at least one per class
    assert {row["is_penultimate"] for row in table if row["layer"] == 10} == {True}
    for row in table:
        bits = np.unpackbits(np.frombuffer(row["correct"], np.uint8), count=row["n_test"])
        assert bits.mean() == pytest.approx(row["top1"])
    assert not (out / "running").exists() or not list((out / "running").iterdir())
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
    processor = sum(os.times()[2:4])  # of children: the clock on the wall is other tests' too
    again = run(file, out)
    assert sum(os.times()[2:4]) - processor < 5
    assert "(0 computed now" in again.stdout
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()} == before


def assert_profiled(out, said):
    """The timeline against the seconds that the table has of the same stages."""
    (file,) = (out / "profile").glob("*.json")
    assert file.with_suffix(".txt").read_text() in said
    slices = [event for event in json.loads(file.read_text())["traceEvents"] if event["ph"] == "X"]

    def seconds(*stages, of=None):
        return sum(each["dur"] for each in slices if each["name"] in stages and of in (None, each["args"]["of"])) / 1e6

    rows = pq.read_table(out / "probes.parquet").to_pylist()
    for dataset in ("fractals", "glyphs"):
        row = next(row for row in rows if row["dataset"] == dataset)
        assert seconds("embedding", of=dataset) == pytest.approx(row["embed_seconds"], abs=0.1)
        assert seconds("probes", of=dataset) == pytest.approx(row["probe_seconds"], abs=0.1)
    assert seconds("training", "scores while training") == pytest.approx(rows[0]["pretrain_seconds"], abs=0.1)
    tasks = [each for each in slices if each["name"] == "rest of the task"]
    driver = {each["tid"] for each in slices if each["name"] == "waiting for tasks"}
    for each in slices:
        within = (
            task["ts"] - 10_000 <= each["ts"] and each["ts"] + each["dur"] <= task["ts"] + task["dur"] + 10_000
            for task in tasks
            if task["tid"] == each["tid"]
        )
        assert any(within) != (each["tid"] in driver)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A config of four backbones, and the rows of its table when nothing happens and one worker does all."""
    home = tmp_path_factory.mktemp("four")
    file = home / "tiny.yaml"
    file.write_text(FOUR_BACKBONES + f"cache_dir: {home / 'cache'}\n")
    run(file, home / "one", "--set", "resources.max_in_flight=1")
    return file, rows(home / "one")


def test_table_depends_on_neither_workers_nor_a_killed_driver(four, tmp_path):
    file, expected = four
    run(file, tmp_path / "two", "--set", "resources.max_in_flight=2")
    assert rows(tmp_path / "two") == expected

    out = tmp_path / "killed"
    driver = subprocess.Popen(command(file, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fragments = out / "fragments"
    while not (fragments.is_dir() and len(list(fragments.glob("*.parquet"))) >= 3):
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(5)  # workers of a dead driver end by themselves
    elsewhere(next(fragments.glob("*.parquet")))
    kept = {f: f.stat().st_mtime_ns for f in fragments.glob("*.parquet")}
    assert len(kept) >= 3
    done = run(file, out)
    at_start = done.stderr.index("1 were computed on NVIDIA H100: 1, this run is on")
    assert at_start < done.stderr.index("computed on 2 kinds of processor")  # which is said of the finished table
    assert f"({8 - len(kept)} computed now" in done.stdout
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    assert rows(out) == expected


def elsewhere(fragment):
    """As if this curve had been computed by a GPU, before its store came here."""
    table = pq.read_table(fragment)
    place, field = table.schema.get_field_index("device"), table.schema.field("device")
    device = pa.array(["NVIDIA H100"] * len(table), field.type)
    pq.write_table(table.set_column(place, field, device), fragment, write_page_checksum=True)


def test_sigterm_keeps_what_is_done_and_says_so(four, tmp_path):
    file, out = four[0], tmp_path / "out"
    driver = subprocess.Popen(command(file, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("fragments/*.parquet")):
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=150)
    assert driver.returncode == 130
    assert "curves are kept" in errors
    assert "Traceback" not in errors
    assert not verify_fragments(Store(str(out))).quarantined  # what is listed is whole


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of a cluster of this module's own, and that of its jobs."""
    with local_head(tmp_path_factory.mktemp("head")) as addresses:
        yield addresses


def folder(root, *, broken):
    """An ImageFolder of two classes, ten training and ten test images each, some of them truncated."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("dark", "light"):
            directory = root / split / label
            directory.mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(0, 100, (40, 50, 3), dtype=np.uint8) + (label == "light") * 120
                file = directory / f"{number}.png"
                Image.fromarray(pixels).save(file)
                if split == "train" and label == "dark" and number < broken:
                    file.write_bytes(file.read_bytes()[:200])


def test_a_failing_dataset_is_recorded_and_the_others_go_on(config, head, tmp_path):
    folder(tmp_path / "mine", broken=5)
    text = TWO_CURVES.replace("[glyphs]", "[mine, glyphs]").replace("datasets:\n", "datasets:\n  mine: {path: mine}\n")
    out, file, there = tmp_path / "out", config(text), ray_environment() | {"RAY_ADDRESS": head[0]}
    done = run(file, out, code=1, env=there)
    assert "2 of 3 curves are in the table" in done.stdout
    assert "on mine, stage data" in done.stdout
    records = [pq.read_table(f).to_pylist()[0] for f in out.glob("failures/*/*.parquet")]
    assert [record["dataset"] for record in records] == ["mine"]
    assert "train/dark/0.png" in records[0]["message"]
    again = run(file, out, code=1, env=there)
    assert "1 would fail again as they are (1 failed in an earlier run" in again.stdout
    assert len(list(out.glob("failures/*/*.parquet"))) == 1
    run(file, out, "--retry-failed", code=1, env=there)
    assert len(list(out.glob("failures/*/*.parquet"))) == 2
    for file_ in (tmp_path / "mine").rglob("*.png"):
        file_.unlink()
    for directory in sorted((tmp_path / "mine").rglob("*"), reverse=True):
        directory.rmdir()
    (tmp_path / "mine").rmdir()
    folder(tmp_path / "mine", broken=0)
    done = run(file, out, env=there)
    assert "3 of 3 curves are in the table (1 computed now" in done.stdout
    about = json.loads(pq.read_schema(out / "probes.parquet").metadata[b"tunnel_sweep"])
    assert about["failed_curves"] == []  # mended data is other data: the old record belongs to no planned curve


def submit(address, *entrypoint, options=()):
    binary = Path(sys.executable).with_name("ray")
    words = [binary, "job", "submit", "--address", address, "--working-dir", ".", *options, "--", sys.executable]
    command = [*words, *map(str, entrypoint)]
    for _ in range(30):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=ray_environment())
        if "No available agent" not in done.stderr:  # the head answers before its agent is up
            break
        time.sleep(1)
    return done


def waited_for(happened, process=None, seconds=120, about=lambda: None):
    until = time.monotonic() + seconds
    while not (found := happened()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < until, (f"not within {seconds} s", about())
        time.sleep(0.05)
    return found


def test_a_job_is_stopped_half_way_and_submitted_again(four, head, tmp_path):
    (file, expected), (_, address), out = four, head, tmp_path / "job"
    sweep = ("sweep/run.py", "--config", file, "--out", out)
    slowly = (*sweep, "--set", "resources.max_in_flight=1")  # that there is something left to stop
    started = submit(address, *slowly, options=("--no-wait", "--submission-id", "first"))
    assert started.returncode == 0, started.stdout + started.stderr

    def half_way():
        job = ask(address, "jobs/first")
        assert job["status"] in {"PENDING", "RUNNING"}, (job, ask(address, "jobs/first/logs"))
        return len(list(out.glob("fragments/*.parquet"))) >= 2

    waited_for(half_way, seconds=200, about=lambda: (ask(address, "jobs/first"), ask(address, "jobs/first/logs")))
    assert ask(address, "jobs/first/stop", "POST")["stopped"]
    waited_for(lambda: ask(address, "jobs/first")["status"] == "STOPPED")
    kept = len(list(out.glob("fragments/*.parquet")))
    assert 2 <= kept < 8
    assert not verify_fragments(Store(str(out))).quarantined  # what is listed is whole
    again = submit(address, *sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"({8 - kept} computed now" in again.stdout
    assert rows(out) == expected


def test_a_job_that_fails_says_so_by_its_exit_code(four, head):
    relative = submit(head[1], "sweep/run.py", "--config", four[0], "--out", "results/job")
    assert relative.returncode != 0
    assert "inside a Ray job" in relative.stdout + relative.stderr


def test_a_sweep_outlives_one_of_two_processes_that_train_together(config, head, tmp_path):
    recipe = "recipe: {epochs: 2, warmup_epochs: 1, batch_size: 16}"
    assert recipe in TWO_CURVES
    together = "recipe: {epochs: 25, warmup_epochs: 1, batch_size: 16, data_parallel: 2}"
    file, out = config(TWO_CURVES.replace(recipe, together)), tmp_path / "out"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(file, out), env=ray_environment() | {"RAY_ADDRESS": head[0]}, **pipes) as driver:
        note = waited_for(lambda: next((out / "running").glob("*.json"), None), driver)
        os.kill(json.loads(note.read_text())["pid"], signal.SIGKILL)
        waited_for(lambda: len(list(out.glob("failures/*/*.parquet"))) == 2, driver)
        records = [pq.read_table(f).to_pylist()[0] for f in out.glob("failures/*/*.parquet")]
        printed, errors = driver.communicate(timeout=240)
    assert driver.returncode == 0, errors
    assert "2 of 2 curves are in the table (2 computed now" in printed
    assert "probes: " in printed
    assert [(record["stage"], record["transient"]) for record in records] == [("worker", True)] * 2
    left = {path.relative_to(out).parts[0] for path in out.rglob("*") if path.is_file()}
    assert left == {"fragments", "weights", "plans", "exports", "probes.parquet"}
    assert {(row["data_parallel"], row["problem"]) for row in rows(out)} == {(2, None)}
    (about,) = out.glob("weights/*.json")
    assert [entry["epoch"] for entry in json.loads(about.read_text())["history"]] == list(range(1, 26))
