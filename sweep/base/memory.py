"""Memory that a process may take: the container's or the process's own limit, where that is less than the machine's."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil

_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")
_LIMITS = (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData"))  # of ``ulimit -v`` and ``-d``, and what counts there
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def host_memory(groups: Path = _GROUPS, own: Path = _OWN) -> tuple[int, int]:
    """Bytes that are free, and bytes that there are, on the machine, in the tightest of the process's groups, or by the
    limits of the process itself.

    Parameters
    ----------
    groups, own : where Linux shows control groups, and which the process is in.
    """
    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    for folder, names in _folders(groups, own):
        limit, used, cache = (_number(folder / names[0]), _number(folder / names[1]), _cached(folder, names[2]))
        if limit is not None and used is not None:
            free, total = min(free, max(limit - used + cache, 0)), min(total, limit)
    for limit, used in _own_limits():
        free, total = min(free, max(limit - used, 0)), min(total, limit)
    return free, total


def _own_limits() -> list[tuple[int, int]]:
    """Limits of this process, and bytes of each that are taken."""
    found = []
    for name, counted in _LIMITS:
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            found.append((limit, _status(counted)))
    return found


def _status(name: str) -> int:
    """A size of this process, bytes; 0 where the system does not show it."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _folders(groups: Path, own: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    """The process's memory group and those above it; version 2 has one tree, version 1 one for memory."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root, names = (groups / "memory", _V1) if "memory" in controllers.split(",") else (groups, _V2)
        if controllers and names is _V2:
            continue  # of another controller
        inner = root / path.lstrip("/")
        found += [(folder, names) for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return found


def _number(file: Path) -> int | None:
    """A number in a file; None where there is none, as for "max"."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _cached(folder: Path, name: str) -> int:
    """Bytes of files that a group holds and would give back."""
    try:
        rows = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
        return int(rows.get(name, 0))
    except (OSError, ValueError):
        return 0
