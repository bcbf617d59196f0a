"""A head node of Ray of a test's own, on ports that nothing else on the machine takes meanwhile."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

_PORTS = range(20_000, 32_000)  # above those of Ray's workers, below those that the system gives to connections


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on.

    A port that the system hands out for `bind(0)` may go to any connection between here and its use, of which Ray
    makes hundreds while it starts: these are from a range that the system does not hand out.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == number:
            return found
    raise RuntimeError(f"no {number} free ports in {_PORTS}")


def ray_environment() -> dict[str, str]:
    """Token authentication said outright: Ray would decide by what earlier runs left in the home directory. Workers
    share the processor on equal terms with the other tests (tests/conftest.py).
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    at_once = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}  # Ray Train leaves an actor that a node would wait for
    at_once["RAY_worker_niceness"] = "0"
    return environment | at_once | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def ask(address: str, path: str, method: str = "GET") -> dict:
    """Ask the job API, as `ray job stop` and `ray job status` do, without the seconds that their start takes."""
    request = urllib.request.Request(f"{address}/api/{path}", method=method)
    request.add_header("Authorization", f"Bearer {ray_environment()['RAY_AUTH_TOKEN']}")
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def _answers(node: subprocess.Popen, address: str) -> bool:
    """Whether the head that was started is up: it, and not whatever else may listen there, says its version."""
    until = time.monotonic() + 90
    while node.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
            return "ray_version" in ask(address, "version")
        time.sleep(0.3)
    return False


@contextlib.contextmanager
def local_head(directory: Path, *, tries: int = 3):
    """`ray start --head` with two CPUs; gives its address and that of its job API. Tried again on other ports.

    Its files lie in a place of its own, of a short name, as sockets need it: a job is told the address that stands in
    ``ray_current_cluster`` there, and in the common place that is whichever Ray of this machine started last.
    """
    binary, log = Path(sys.executable).with_name("ray"), directory / "ray.log"
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as own:
        yield from _head(binary, log, own, tries)


def _head(binary: Path, log: Path, own: str, tries: int):
    for _ in range(tries):
        port, dashboard, agent, client, metrics = free_ports(5)
        ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        ports += [f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"]
        words = [binary, "start", "--head", *ports, "--num-cpus=2", f"--temp-dir={own}", "--block"]
        with open(log, "a") as stream:
            node = subprocess.Popen(words, stdout=stream, stderr=stream, env=ray_environment())
        try:
            if _answers(node, address := f"http://127.0.0.1:{dashboard}"):
                yield f"127.0.0.1:{port}", address
                return
        finally:
            node.terminate()
            node.wait(timeout=150)
    raise RuntimeError(f"no head came up in {tries} tries:\n{log.read_text()}")
