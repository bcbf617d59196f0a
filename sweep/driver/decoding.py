"""Images decoded before the cells run: one task on each node, which takes no GPU and all the node's cores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweep.base.errors import UserError
from sweep.cell import CellTask, profiled
from sweep.config import Resources
from sweep.driver.tasks import POLL_SECONDS, Signals
from sweep.study import PlannedCell

WORTH_A_STAGE = 5_000  # images: fewer are decoded by the first cell that asks before another process would have begun


def decode_first(
    cells: Sequence[PlannedCell], images: int, resources: Resources, *, task: CellTask, show: Callable[[], None]
) -> None:
    """Decode what cells will ask for, on every node that may run them; nodes that come later do it when asked.

    Parameters
    ----------
    images : how many there are to decode, at most.
    task : as for any of the cells.
    show : called once in a while.

    Raises
    ------
    InterruptedSweepError
        On SIGINT or SIGTERM; chunks that were decoded are kept.
    UserError
        If a disk has no room for them.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if images < WORTH_A_STAGE:
        return
    signals, remote = Signals(), ray.remote(num_cpus=1, num_gpus=0, max_retries=2)(_decode_there)
    nodes = nodes_of_cells(ray.nodes(), gpu=float(resources.gpus) > 0)

    def all_nodes(parts: int) -> None:
        """Start on every node, with everything or with a part each, and wait."""
        running = []
        for number, (node, cpus) in enumerate(nodes):
            there = remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            running.append(there.remote(replace(task, cpus=cpus), tuple(cells), (number % parts, parts)))
        while running:
            signals.check()
            ended, running = ray.wait(running, num_returns=1, timeout=POLL_SECONDS)
            for reference in ended:
                for problem in _problems(reference):
                    print(f"not decoded beforehand: {problem}", file=sys.stderr)
            show()

    if task.share_decoded and len(nodes) > 1:
        all_nodes(len(nodes))  # every set by one node
    all_nodes(1)


def _problems(reference: Any) -> list[str]:
    """What a node could not decode; UserError if that is for its disk."""
    import ray

    try:
        problems: list[str] = ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise cause from error
        return [f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"]
    return problems


def nodes_of_cells(nodes: Sequence[Mapping[str, Any]], *, gpu: bool) -> list[tuple[str, int]]:
    """Nodes that may run cells, as ``ray.nodes()`` names them, with their CPUs."""
    found = [(node["NodeID"], node["Resources"]) for node in nodes if node["Alive"]]
    return [
        (name, int(has["CPU"])) for name, has in found if has.get("CPU", 0) >= 1 and (has.get("GPU", 0) > 0 or not gpu)
    ]


def _decode_there(task: CellTask, cells: Sequence[PlannedCell], part: tuple[int, int]) -> list[str]:
    """Body of the task on a node."""
    with profiled(task, "decoding beforehand"):
        from sweep.cell import decode

        return decode(task, cells, part=part)
