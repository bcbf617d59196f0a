"""What a task asks for against what the cluster has, now or later."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray

from sweep import register
from sweep.base import streams
from sweep.base.errors import UserError
from sweep.config.problem import ConfigError
from sweep.config.schema import Resources
from sweep.driver import cluster
from sweep.driver.cluster import _no_ray, connect, resolve
from sweep.driver.sweep import _with_resources, prepare, task_of
from sweep.study.check import read_config

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
name: t
grid: [{architecture: vggm11, id_dataset: fractals}]
resources: {wait_for_nodes: true}
"""


def node(cpus, gpus=0, alive=True):
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


HEAD = {"Alive": True, "Resources": {}}  # num-cpus 0: it runs nothing


@pytest.mark.parametrize(
    ("nodes", "gpus", "in_flight"),
    [
        ([node(2)], 0, 4),
        ([node(8, 2), node(8, 1)], 1, 6),
        ([HEAD, node(8, 2)], 1, 4),
        ([node(4), node(8, 2, alive=False)], 0, 8),
    ],
)
def test_auto_takes_what_is_there(nodes, gpus, in_flight):
    resolved = resolve(Resources(), nodes)
    assert resolved.gpus == gpus
    assert resolved.max_in_flight == in_flight


def test_a_share_of_a_gpu_makes_more_slots():
    assert resolve(Resources(gpus=0.5), [node(8, 2)]).max_in_flight == 8
    assert resolve(Resources(gpus=0.5, cpus=4), [node(8, 2)]).max_in_flight == 4


@pytest.mark.parametrize(
    ("nodes", "asked", "cpus", "workers", "threads"),
    [
        ([node(16)], {}, 1, 0, 1),  # without GPUs a task per core
        ([HEAD, node(64), node(16, 4), node(12, 2)], {}, 4, 3, 1),  # beside a GPU what the scarcest node has for each
        ([node(16, 4)], {"gpus": 0.5, "threads": "auto"}, 2, 1, 2),
        ([node(16, 4)], {"gpus": 2.0}, 8, 7, 1),
        ([node(2, 4)], {}, 1, 0, 1),
        ([node(16, 4)], {"cpus": 3, "threads": "auto"}, 3, 2, 3),
        ([node(16, 4)], {"cpus": 3, "threads": 2, "loader_workers": 0}, 3, 0, 2),
        ([node(16, 4)], {"gpus": 1.0, "wait_for_nodes": True}, 1, 0, 1),
    ],
)
def test_cpus_of_a_task_are_its_share_of_the_node(nodes, asked, cpus, workers, threads):
    resolved = resolve(Resources(**asked), nodes)
    assert (resolved.cpus, resolved.loader_workers, resolved.threads) == (cpus, workers, threads)


def test_threads_are_settled_once_for_a_sweep(tmp_path):
    """On CPU they decide the order of sums: a later run on other nodes keeps to those of the first."""
    file = tmp_path / "c.yaml"
    file.write_text("name: t\ngrid: [{architecture: vggm11, id_dataset: fractals}]\nresources: {threads: auto}\n")
    config, found = read_config(file), []
    for cpus in (3, 8):
        sweep = prepare(config, str(tmp_path / "out"))
        resources = resolve(config.resources, [node(8, 8 // cpus)])
        settled = _with_resources(sweep, resources)
        found.append((resources.threads, task_of(settled, sweep.cells[0], gpu=True).threads))
    assert found == [(4, 4), (8, 4)]
    fixed = prepare(read_config(file, ["resources.threads=2"]), str(tmp_path / "out"))
    assert task_of(fixed, fixed.cells[0], gpu=False).threads == 2


@pytest.mark.parametrize("wanted", [Resources(gpus=1.0, cpus=1), Resources(cpus=4)])
def test_what_no_node_has_is_refused_unless_nodes_are_still_to_come(wanted):
    with pytest.raises(UserError, match=r"no node of this cluster has that many .*wait_for_nodes: true"):
        resolve(wanted, [node(2)])
    resolved = resolve(wanted.model_copy(update={"wait_for_nodes": True, "gpus": 1.0}), [node(2)])
    assert resolved.gpus == 1
    assert resolved.cpus == wanted.cpus


def test_cpus_and_gpu_must_be_on_one_node():
    with pytest.raises(UserError, match="has both at once"):
        resolve(Resources(cpus=8, gpus=1.0), [node(16), node(2, 1)])


def test_an_empty_cluster_is_shown_enough_tasks_to_grow_for():
    waiting = Resources(gpus=1.0, wait_for_nodes=True)
    assert resolve(waiting, [HEAD]).max_in_flight >= 100
    # nodes that happen to be there already do not keep it small
    assert resolve(waiting, [HEAD, node(8, 1)]) == resolve(waiting, [HEAD])
    assert resolve(waiting.model_copy(update={"max_in_flight": 7}), [HEAD]).max_in_flight == 7


def test_waiting_needs_a_number_of_gpus(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG)
    with pytest.raises(ConfigError) as error:
        read_config(file)
    for part in ["c.yaml", "resources.gpus = auto", "wait_for_nodes", "valid: 0, 0.5, 1"]:
        assert part in str(error.value)
    assert read_config(file, ["resources.gpus=1"]).resources.wait_for_nodes
    with pytest.raises(ConfigError, match=r"resources\.wait_for_nodes = perhaps"):
        read_config(file, ["resources.gpus=1", "resources.wait_for_nodes=perhaps"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("local", "Ray did not start on this machine: it timed out\nin node.py; nothing is lost"),
        ("auto", "no Ray cluster at RAY_ADDRESS=auto: it timed out\nin node.py; is it up"),
        ("127.0.0.1:9", r"no Ray cluster at RAY_ADDRESS=127.0.0.1:9: .*Connection refused; is it up"),
        ("ray://127.0.0.1:9", r"no Ray cluster at RAY_ADDRESS=ray://127.0.0.1:9: .*Connection refused; is it up"),
        ("garbage", r"no Ray cluster at RAY_ADDRESS=garbage: that is no address of a cluster; HOST:PORT of the head"),
        ("ray://garbage", r"that is no address of a cluster; HOST:PORT"),
        ("http://127.0.0.1:8265", r"that is no address of a cluster; HOST:PORT"),
    ],
)
def test_a_ray_that_does_not_come_up_is_said(monkeypatch, address, expected):
    def late(*_arguments, **_options):
        raise Exception("it timed out\nin node.py")

    monkeypatch.setattr(ray, "init", late)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=expected), connect(Resources()):
        pass


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("Version mismatch: The cluster has:\n    Ray: 2.52.0\nThis process:\n    Ray: 2.60.0", "same versions"),
        ("AF_UNIX path length cannot exceed 107 bytes", "RAY_TMPDIR to a short path"),
        ("[Errno 30] Read-only file system: '/root/.ray'", "HOME and RAY_TMPDIR"),
        ("Package size (700 MiB) exceeds the maximum size", "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0"),
    ],
)  # fmt: skip
def test_advice_fits_the_cause_and_the_whole_cause_is_shown(error, advice):
    said = _no_ray("local", RuntimeError(error))
    assert error in said
    assert advice in said


def test_sigterm_while_ray_starts_is_an_interruption(monkeypatch):
    def started(*_arguments, **_options):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", started)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), connect(Resources()):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_waits_for_the_end_of_an_import():
    begun = []

    def imported():
        with streams.deferred():
            signal.raise_signal(signal.SIGINT)
            begun.append("and ended")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            imported()
    finally:
        signal.signal(signal.SIGINT, before)
    assert begun == ["and ended"]


def test_an_empty_address_is_none(monkeypatch):
    seen = []
    monkeypatch.setattr(ray, "init", lambda address, **_options: seen.append(address) or 1 / 0)
    monkeypatch.setenv("RAY_ADDRESS", "")
    with pytest.raises(UserError, match="did not start on this machine"), connect(Resources()):
        pass
    assert seen == ["local"]


@pytest.fixture
def no_ray():
    """A port where something listens that is no Ray: it takes connections and says nothing, or speaks HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
def test_a_port_that_is_no_ray_is_said_within_seconds(monkeypatch, no_ray, answer, scheme):
    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = no_ray.accept()
                connection.sendall(answer)
                held.append(connection)

    held = []
    threading.Thread(target=serve, daemon=True).start()
    monkeypatch.setattr(cluster, "_KNOCK_SECONDS", 2.0)
    monkeypatch.setattr(ray, "init", lambda *_arguments, **_options: 1 / 0)  # never called
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{no_ray.getsockname()[1]}")
    with (
        pytest.raises(UserError, match=r"it does not answer as Ray does|is not the head of a Ray"),
        connect(Resources()),
    ):
        pass
    for connection in held:
        connection.close()


def test_foreign_code_that_hangs_ends_with_words_and_exit_code_2():
    code = (
        "from sweep.base.patience import watched; import time\nwith watched('the moon', 0.2, 'look up'): time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "waiting for the moon …\nthe moon: not there after 0.2 s; look up\n")


def test_the_import_of_a_plugin_that_hangs_is_ended(tmp_path, monkeypatch):
    (tmp_path / "slow_plugin.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(register, "IMPORT_SECONDS", 0.2)
    with pytest.raises(
        UserError, match=r"TimeoutError: the import of slow_plugin: not done after 0.2 s .*slow_plugin.py, line 2"
    ):
        register.load(["slow_plugin"], str(tmp_path))
