"""After any mix of kills, dead nodes, zombies and competing drivers the table is that of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from ray.cluster_utils import Cluster

from tests.sweep.driver.test_end_to_end import FOUR_BACKBONES, ROOT, TWO_CURVES, command, rows, run

pytestmark = pytest.mark.slow
CURVES = 8
KILLS = 10


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The config's file and the rows of its table when nothing happens; images are decoded once for all tests."""
    home = tmp_path_factory.mktemp("undisturbed")
    file = home / "tiny.yaml"
    file.write_text(FOUR_BACKBONES + f"cache_dir: {home / 'cache'}\n")
    run(file, home / "out")
    return file, rows(home / "out")


def start(file, out, *more, **options):
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command(file, out, *more), **options)


def fragments(out):
    return list((out / "fragments").glob("*.parquet"))


def wait_for(happened, process, seconds=120):
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)


def check_whole(out, expected):
    """The table is the undisturbed one, each curve stands once, and no litter or stale record is left."""
    assert rows(out) == expected
    assert len(fragments(out)) == CURVES
    left = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    assert not [path for path in left if path.startswith(("failures/", "checkpoints/"))]


def at_work(out, since):
    """Whether a worker has said so after that moment; notes of killed ones stay for a while."""
    try:
        return any(note.stat().st_mtime > since for note in (out / "running").glob("*.json"))
    except FileNotFoundError:  # it is gone in the meantime
        return False


def kill_again_and_again(file, out, kills, rng):
    """Start the sweep and SIGKILL its driver at a random moment, so often; then let it end."""
    for number in range(1, kills + 1):
        started, seconds = time.time(), rng.uniform(0.5, 8.0)
        driver = start(file, out, stderr=subprocess.DEVNULL)
        while number % 3 == 0 and driver.poll() is None and not at_work(out, started):
            time.sleep(0.05)  # many moments are those of Ray's start, with nothing to lose: some come later for sure
        try:
            driver.wait(timeout=seconds / 8 if number % 3 == 0 else seconds)
        except subprocess.TimeoutExpired:
            driver.send_signal(signal.SIGKILL)
        seconds = time.time() - started
        ended = "killed" if driver.wait() == -signal.SIGKILL else "ended by itself"
        print(f"{number}: {ended} after {seconds:.1f} s, {len(fragments(out))} curves done", flush=True)
    return run(file, out)


def test_killed_at_random_moments(undisturbed, tmp_path):
    file, expected = undisturbed
    seed = random.SystemRandom().randrange(10**6)
    print("seed of the moments:", seed)  # shown if it fails
    kill_again_and_again(file, tmp_path / "out", KILLS, random.Random(seed))
    check_whole(tmp_path / "out", expected)


def test_two_drivers_on_one_output(undisturbed, tmp_path):
    file, expected = undisturbed
    out = tmp_path / "out"
    drivers = [start(file, out) for _ in range(2)]
    for driver in drivers:
        _, errors = driver.communicate(timeout=240)
        assert driver.returncode == 0, errors
    check_whole(out, expected)


def test_a_node_dies_in_the_middle_of_a_curve(undisturbed, tmp_path, monkeypatch):
    file, expected = undisturbed
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    out = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        driver = start(file, out, env=dict(os.environ) | {"RAY_ADDRESS": cluster.address})
        wait_for(lambda: len(list((out / "running").glob("*.json"))) == 2 and fragments(out), driver)
        cluster.remove_node(nodes[0], allow_graceful=False)  # SIGKILL to its raylet; its worker becomes a zombie
        _, errors = driver.communicate(timeout=240)
        assert driver.returncode == 0, errors
    finally:
        cluster.shutdown()
    check_whole(out, expected)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_and_a_read_only_disk_are_said_and_outlived(tmp_path, small_disk):
    file, out = tmp_path / "tiny.yaml", small_disk / "out"
    file.write_text(TWO_CURVES + f"cache_dir: {tmp_path / 'cache'}\nresources: {{retries: 0}}\n")
    (small_disk / "ballast").write_bytes(b"x" * 900_000)
    full = run(file, out, code=1)
    assert "No space left on device" in full.stdout + full.stderr
    assert "Traceback" not in full.stdout + full.stderr
    assert not list(out.rglob(".tmp-*"))
    (small_disk / "ballast").unlink()
    assert "2 of 2 curves" in run(file, out, "--verify").stdout
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "(0 computed now" in run(file, out).stdout  # nothing to write
    refused = run(file, small_disk / "other", code=1)
    assert "Read-only file system" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_command_for_more_kills(undisturbed, tmp_path):
    """Every kind of process, several signals and configs: here a worker, once, in the middle of training."""
    file, _ = undisturbed
    harness = [sys.executable, "-m", "tests.sweep.driver.disasters"]
    command = [*harness, tmp_path, "1", "--config", file, "--only", "worker"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert "1 of 1 at work" in done.stdout, done.stdout + done.stderr
    assert done.stdout.endswith("1 kills of 1 sweeps: the tables are the same\n"), done.stdout + done.stderr
