"""Nodes whose devices fail: a cell goes elsewhere, and a node that only fails gets no more work."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from sweep.base.errors import DeviceError
from sweep.config import Resources
from sweep.driver.cluster import room

MOST_FAILURES = 3  # backbones in a row that fail on a node by its device, and none succeeds


class NoNodeLeftError(Exception):
    """Every node that could do the work has been taken out."""


@contextmanager
def located() -> Iterator[None]:
    """Body of a task: a device that fails in it says on which node."""
    try:
        yield
    except DeviceError as error:
        error.node = node_id()
        raise


def node_id() -> str:
    """The node that this task runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


class Nodes:
    """What became of the work that each node was given, and which of them get more.

    Parameters
    ----------
    resources : of a task, with ``auto`` resolved.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._failed: dict[str, dict[str, None]] = {}  # node → backbones that failed there since one succeeded
        self.out: dict[str, str] = {}  # nodes without work → what was said of each

    def failed(self, error: DeviceError, backbone: str) -> None:
        """Note a backbone that failed by the device of a node; at the third in a row the node is taken out."""
        if error.node is None:
            return
        row = self._failed.setdefault(error.node, {})
        row[backbone] = None
        if len(row) >= MOST_FAILURES and error.node not in self.out:
            said = f"{_name(error.node)}: {len(row)} backbones in a row failed by its device ({error})"
            self.out[error.node] = said
            print(f"{said}; it gets no more work", file=sys.stderr)

    def succeeded(self, node: str | None) -> None:
        """Note a success: a node that was taken out, with one broken device of several, is asked again."""
        if node is not None:
            self._failed.pop(node, None)
            self.out.pop(node, None)

    @property
    def are_gone(self) -> bool:
        """Whether no node is left that could do the work, and none is to come."""
        return bool(self.out) and not self._resources.wait_for_nodes and not room(self._resources, without=self.out)

    def options(self, avoid: Collection[str]) -> dict[str, object]:
        """Ray's options of a task: not on nodes that are taken out, nor on those to avoid if others are left."""
        unwanted = {*self.out, *avoid}
        if not self._resources.wait_for_nodes and not room(self._resources, without=unwanted):
            unwanted = {*self.out}
        return {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(unwanted))})"}} if unwanted else {}


def _name(node: str) -> str:
    """Host and address of a node, for people."""
    import ray

    known = next((each for each in ray.nodes() if each["NodeID"] == node), None)
    return f"node {known['NodeManagerHostname']} ({known['NodeManagerAddress']})" if known else f"node {node[:8]}"
