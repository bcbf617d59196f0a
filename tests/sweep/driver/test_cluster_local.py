"""The recipe for one machine, for real: token authentication, `ray start --head`, `ray job submit`, a table."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict

import grpc
import psutil
import pyarrow.parquet as pq
import pytest

from tests.cluster_readme import PATH, ROOT, one
from tests.local_head import free_ports

pytestmark = pytest.mark.slow

ONE_CURVE = """
name: tiny
grid: [{architecture: vggm11, id_dataset: fractals, resolution: 32, width: 0.0625}]
datasets: {fractals: {classes: 3, train_per_class: 12, test_per_class: 6}}
recipe: {epochs: 2, warmup_epochs: 1, batch_size: 16}
probe: {solver: adamw, epochs: 3, batch_size: 32}
"""
EVERYWHERE = {"0.0.0.0", "::"}


def replaced(text, **changes):
    """A command of the README with other values, each of which it must have."""
    for old, new in changes.items():
        assert old in text, f"{old} is not in: {text}"
        text = text.replace(old, new)
    return text


def bash(command, environment, **options):
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def environment(tmp_path):
    """A user who has never run Ray, in a shell where token authentication is on."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    home = tmp_path / "home"
    home.mkdir()
    return clean | PATH | {"HOME": str(home), "RAY_AUTH_MODE": "token", "TUNNEL_SWEEP_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def head(tmp_path, environment):
    """Ray started as the README says, on ports and in a directory of its own; yields the process and its ports."""
    (tmp_path / "home" / ".ray").mkdir()
    (tmp_path / "home" / ".ray" / "auth_token").write_text("f" * 64)  # as ray.init leaves it: everyone may read it
    assert bash(one("One machine", "(umask"), environment).returncode == 0
    gcs, dashboard, agent, client, metrics = free_ports(5)
    directory = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # socket paths must be short
    command = one("One machine", "ray start") + (
        f" --port={gcs} --dashboard-port={dashboard} --dashboard-agent-listen-port={agent}"
        f" --ray-client-server-port={client} --metrics-export-port={metrics}"
        f" --temp-dir={directory} --num-cpus=2 --block"
    )
    with open(tmp_path / "ray.log", "w") as log:
        node = subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=log, stderr=log, cwd=ROOT, env=environment)
        try:
            deadline = time.monotonic() + 150
            while "will now block" not in (tmp_path / "ray.log").read_text():
                assert node.poll() is None, (tmp_path / "ray.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield node, gcs, dashboard, agent, client, metrics
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(timeout=150)
            bash(f"rm -rf {directory}", environment)


def status(port, path, token=None):
    """HTTP status of a request to localhost."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def client_refuses(port, token):
    """Whether the server of Ray's client wants another token."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/ray.rpc.RayletDriver/ClusterInfo")
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            ask(b"", timeout=30, metadata=metadata)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False


def listening(node):
    """Addresses by port of everything that a node's processes listen on."""
    found = defaultdict(set)
    for process in [node, *node.children(recursive=True)]:
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found[connection.laddr.port].add(connection.laddr.ip)
    return found


def test_recipe_for_one_machine(head, environment, tmp_path):
    node, gcs, dashboard, agent, client, metrics = head
    token_file = tmp_path / "home" / ".ray" / "auth_token"
    assert token_file.stat().st_mode & 0o777 == 0o600
    token = token_file.read_text().strip()

    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    config.write_text(ONE_CURVE)
    address = f"http://127.0.0.1:{dashboard}"
    submit = replaced(
        one("One machine", "ray job submit"),
        **{"http://127.0.0.1:8265": address, "configs/demo.yaml": str(config), "$PWD/results/demo": str(out)},
    )

    # without the token: nothing, by whatever door
    stranger = environment | {"HOME": str(tmp_path)}
    for mode in ("token", "disabled"):
        refused = bash(submit, stranger | {"RAY_AUTH_MODE": mode}, timeout=100)
        assert refused.returncode != 0
        assert "AuthenticationError" in refused.stderr
    assert status(dashboard, "/api/jobs/") == 401
    assert status(dashboard, "/api/jobs/", "0" * 64) == 403
    assert status(dashboard, "/api/jobs/", token) == 200
    assert status(agent, "/api/job_agent/jobs/0") == 401
    code = f"from ray._raylet import GcsClient; print(len(GcsClient('127.0.0.1:{gcs}').get_all_node_info()))"
    for given, answer in (("0" * 64, "InvalidAuthToken"), (token, "\n1\n")):
        done = bash(f'{sys.executable} -c "{code}"', stranger | {"RAY_AUTH_TOKEN": given}, timeout=100)
        assert answer in "\n" + done.stdout + done.stderr
    assert not out.exists()

    # with it: the whole sweep
    done = bash(submit, environment, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 curves are in the table (1 computed now" in done.stdout
    assert token not in done.stdout + done.stderr
    table = pq.read_table(out / "probes.parquet")
    assert table.num_rows == 10
    commit = bash("git rev-parse HEAD", environment).stdout.strip()
    assert set(table["git_commit"].to_pylist()) == {commit}

    # the README's table of ports
    ports = listening(psutil.Process(node.pid))
    assert ports[dashboard] == {"127.0.0.1"}
    assert ports[gcs] <= EVERYWHERE
    for one_address in (agent, client):
        assert ports[one_address]
        assert ports[one_address].isdisjoint(EVERYWHERE)
    assert client_refuses(client, None)
    assert client_refuses(client, "0" * 64)
    assert not client_refuses(client, token)
    assert ports[metrics] <= EVERYWHERE
    assert status(metrics, "/metrics") == 200  # figures are for all: the one port without the token
