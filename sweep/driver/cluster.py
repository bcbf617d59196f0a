"""The Ray cluster of a run: connecting to it, and what it can give."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sweep.base import streams
from sweep.base.errors import UserError
from sweep.base.patience import SAY_SECONDS, watched
from sweep.base.processor import processor
from sweep.base.spans import span
from sweep.config import AUTO, Resources

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by `ray job submit`
_KNOCK_SECONDS = 10.0
_START_SECONDS = 300.0  # for Ray, and then for its first worker
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_ACCELERATOR = "accelerator_type:"  # of what Ray says a node has
_LINES = 12  # of an error that are shown
_ADVICE = (  # words of an error → what helps
    ("is no address", "HOST:PORT of the head (6379 as a rule), ray://HOST:10001 of a Ray Client, or auto"),
    ("(?i)version mismatch", "the same versions of Ray and Python are needed here and there"),
    ("(?i)AF_UNIX path|socket path.* too long|path length", "set RAY_TMPDIR to a short path: sockets lie below it"),
    ("(?i)read-only|permission denied|not permitted", "set HOME and RAY_TMPDIR to directories that can be written"),
    (
        "(?i)exceeds the maximum size|package size",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 keeps `uv run` from sending the folder",
    ),
    ("(?i)no space left", "free space below /tmp/ray, or set RAY_TMPDIR"),
)
_WAITING_IN_FLIGHT = 256  # an autoscaler starts nodes for the tasks it sees, up to a maximum of its own


class Packed(NamedTuple):
    """So many of a sweep's backbones best share a GPU of this name, as was measured."""

    together: int
    device: str
    backbones: int


@contextmanager
def connect(resources: Resources, packed: Packed | None = None) -> Iterator[Resources]:
    """A connection to the cluster of RAY_ADDRESS, or a local one; yields resources with ``auto`` resolved.

    Parameters
    ----------
    packed : what was measured of backbones that share a GPU.
    """
    if not os.environ.get("RAY_ADDRESS", "unset"):
        del os.environ["RAY_ADDRESS"]  # an empty one is none, for Ray too
    with streams.deferred():
        import ray

    os.environ.setdefault("RAY_task_oom_retries", str(resources.retries))  # Ray's own default is for ever
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # a stream of ours shows colours as numbers
    environment = {}
    if not os.environ.get(JOB_VARIABLE):  # a job's workers find the code in its working directory
        root = str(Path(__file__).resolve().parents[2])
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}}
    address = os.environ.get("RAY_ADDRESS") or "local"  # without one, Ray waits for ever for a head that died here
    what = "Ray to start on this machine" if address == "local" else f"Ray at RAY_ADDRESS={address}"
    interrupted = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        advice = "is it up, and does this machine reach its nodes?"
        with span("starting Ray"), watched(what, _START_SECONDS, advice):
            ray.init(
                address,
                logging_level="ERROR",
                log_to_driver=False,
                include_dashboard=False if address == "local" else None,
                runtime_env=environment,
            )
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        ray.shutdown()
        raise KeyboardInterrupt("SIGTERM") from None  # Ray's own handler ends the program without a word
    except Exception as error:  # Ray raises a plain Exception where its processes did not come up in time
        raise UserError(_no_ray(address, error)) from error
    finally:
        _put_back(interrupted)  # Ray has taken it
    try:
        _first_worker(resources)
        yield resolve(resources, ray.nodes(), packed)
    finally:
        ray.shutdown()


def _put_back(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """Fail within seconds where nobody listens, or something else than Ray does: Ray would try for minutes."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    known = port.isdigit() if scheme in ("", "ray") else scheme not in ("http", "https")
    if not known and address not in ("auto", "local"):
        raise ConnectionError("that is no address of a cluster")
    if not port.isdigit() or scheme not in ("", "ray"):
        return
    socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "", "false"):
        return  # it talks to those only that have a certificate
    import grpc

    # a server for Ray Clients is one of gRPC that does not know the question
    others = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL]
    others += [] if scheme else [grpc.StatusCode.UNIMPLEMENTED]
    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_ALIVE)(b"", timeout=_KNOCK_SECONDS)
        except grpc.RpcError as error:
            if error.code() in others:
                raise ConnectionError("what listens there is not the head of a Ray cluster") from None
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ConnectionError(f"it does not answer as Ray does within {_KNOCK_SECONDS:.0f} s") from None


def _alive() -> None:
    """What the first worker is asked to do: it has found this module."""


def _first_worker(resources: Resources) -> None:
    """UserError if no process for tasks comes up, where nodes are there: everything would wait for ever."""
    import ray

    if resources.wait_for_nodes:
        return
    first = ray.remote(num_cpus=0, max_retries=0)(_alive).remote()
    if ray.wait([first], timeout=SAY_SECONDS)[0]:
        return
    print("waiting for the first worker of Ray …", file=sys.stderr, flush=True)
    if not ray.wait([first], timeout=_START_SECONDS)[0]:
        raise UserError(
            f"Ray is up, but no worker of it has started within {_START_SECONDS:.0f} s: the logs of its nodes say why "
            "(/tmp/ray/session_latest/logs/raylet.out, or below RAY_TMPDIR); workers need a shell on PATH, and memory"
        )


def _no_ray(address: str, error: Exception) -> str:
    """Why there is no Ray, in all its words, and what helps against it."""
    said = "\n".join((str(error).strip() or type(error).__name__).splitlines()[:_LINES])
    advice = next((advice for words, advice in _ADVICE if re.search(words, said)), None)
    if address == "local":
        advice = advice or "nothing is lost: run again, on a machine less busy"
        return f"Ray did not start on this machine: {said}; {advice}"
    return (
        f"no Ray cluster at RAY_ADDRESS={address}: {said}; {advice or 'is it up, and its token in this environment?'}"
    )


def resolve(resources: Resources, nodes: Sequence[Mapping[str, Any]], packed: Packed | None = None) -> Resources:
    """Replace ``auto`` by what the cluster has; refuse what no node can give, since it would wait for ever.

    With ``wait_for_nodes`` the nodes of now say nothing: the request stands as it is, and so many tasks are in
    flight that an autoscaler sees what to grow for.

    Parameters
    ----------
    nodes : as ``ray.nodes()`` lists them.
    packed : what was measured of backbones that share a GPU; None: each has one.

    Raises
    ------
    UserError
        If no node has what a task asks for, and the config does not say that nodes are still to come.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = resources.gpus
    if gpus == "auto":
        gpus = 1 / _sharing(alive, packed) if any(node.get("GPU", 0) >= 1 for node in alive) else 0.0
    resources = with_cpus(resources, [] if resources.wait_for_nodes else alive, float(gpus))
    if resources.wait_for_nodes:
        in_flight = _WAITING_IN_FLIGHT if resources.max_in_flight == "auto" else resources.max_in_flight
        return resources.model_copy(update={"gpus": gpus, "max_in_flight": in_flight})
    for name, wanted in (("CPU", int(resources.cpus)), ("GPU", gpus)):
        most = max((node.get(name, 0) for node in alive), default=0)
        if wanted > most:
            raise UserError(
                f"resources.{name.lower()}s = {wanted:g}: no node of this cluster has that many (the largest has "
                f"{most:g}); the tasks would wait for ever. If such nodes are still to come (an autoscaler, a "
                "queue), say resources.wait_for_nodes: true"
            )
    places = _places(alive, int(resources.cpus), gpus)
    if not places:
        raise UserError(
            f"resources.cpus = {resources.cpus}, resources.gpus = {gpus:g}: no node of this cluster has both at "
            "once; the tasks would wait for ever"
        )
    in_flight = 2 * places if resources.max_in_flight == "auto" else resources.max_in_flight
    return resources.model_copy(update={"gpus": gpus, "max_in_flight": in_flight})


def _sharing(nodes: Sequence[Mapping[str, float]], packed: Packed | None) -> int:
    """How many backbones share a GPU: as was measured, if of these GPUs, but no more than keep all of them busy."""
    marks = {
        key.partition(":")[2].removeprefix("NVIDIA-") for node in nodes for key in node if key.startswith(_ACCELERATOR)
    }
    if packed is None or not marks or not all(part in packed.device for mark in marks for part in mark.split("-")):
        return 1
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    return max(1, min(packed.together, packed.backbones // gpus))


def with_cpus(resources: Resources, nodes: Sequence[Mapping[str, float]], gpus: float) -> Resources:
    """Replace ``auto`` of CPUs, threads and loader workers.

    Beside a GPU a task takes its share of the CPUs, of the node that has the fewest for each; without GPUs one, so that
    a node is filled by a task per core, which wastes less than threads do.

    Parameters
    ----------
    nodes : what each has; none where they are still to come, or nobody asked: one CPU then.
    gpus : of a task.
    """
    cpus, workers, threads = resources.cpus, resources.loader_workers, resources.threads
    if cpus == AUTO:
        shares = [int(gpus * node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= max(gpus, 1)]
        cpus = max(1, min(shares, default=1)) if gpus else 1
    workers = int(cpus) - 1 if workers == AUTO else workers
    return resources.model_copy(
        update={"cpus": cpus, "loader_workers": workers, "threads": cpus if threads == AUTO else threads}
    )


def _places(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """How many tasks of that size the nodes can run at once."""
    return sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) / gpus if gpus else float("inf"))) for node in nodes
    )


def room(resources: Resources, *, without: Container[str] = ()) -> int:
    """How many tasks the connected cluster has room for, as it is now.

    Parameters
    ----------
    resources : with ``auto`` resolved.
    without : nodes that do not count, by their ids.
    """
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in without]
    return _places(alive, int(resources.cpus), float(resources.gpus))


def processors(resources: Resources) -> list[str]:
    """What the processors are called that do the work, or a part of it; none where that is not known.

    GPUs by Ray's name for them, CPUs by this machine's where it is the only one.

    Parameters
    ----------
    resources : with ``auto`` resolved.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    if float(resources.gpus) > 0:
        marks = {key.partition(":")[2] for node in alive for key in node["Resources"] if key.startswith(_ACCELERATOR)}
        return sorted(mark.removeprefix("NVIDIA-") for mark in marks)
    return [processor()] if len(alive) == 1 and not os.environ.get("RAY_ADDRESS") else []


def tasks_of_a_node(resources: Resources) -> int:
    """The most tasks that run on one node at once; those of nodes that are still to come are not known."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((_places([node], int(resources.cpus), float(resources.gpus)) for node in alive), default=1)
    return max(1, min(most, int(resources.max_in_flight)))


def places(resources: Resources, *, without: Container[str] = ()) -> int:
    """How many tasks can run at once: those there is room for, at most ``max_in_flight``; at least 1."""
    return max(1, min(room(resources, without=without), int(resources.max_in_flight)))


def refuse_too_many(processes: int, resources: Resources, found: int) -> None:
    """Refuse a training run of more processes than the cluster has room for: it would wait for ever.

    Parameters
    ----------
    processes : the most that train one backbone together.
    resources : with ``auto`` resolved.
    found : what :func:`room` says.
    """
    if processes > found and processes > 1 and not resources.wait_for_nodes:
        each = f"{resources.cpus} CPUs" + (" and a GPU" if resources.gpus else "")
        raise UserError(
            f"recipe.data_parallel = {processes}: this cluster has room for {found} such processes ({each} each); "
            "they would wait for ever. If such nodes are still to come (an autoscaler, a queue), say "
            "resources.wait_for_nodes: true"
        )
