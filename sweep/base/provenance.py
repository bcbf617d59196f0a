"""Where results come from: the commit of the code and the versions of the libraries."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COMMIT_VARIABLE = "TUNNEL_SWEEP_COMMIT"  # for code that travels without its repository, such as a Ray job's
_LIBRARIES = ("torch", "torchvision", "timm", "ray", "numpy", "pyarrow", "pillow")


@functools.cache
def provenance() -> Mapping[str, str]:
    """Columns ``git_commit`` and ``versions`` of the table."""
    return {"git_commit": git_commit(), "versions": json.dumps(library_versions(), sort_keys=True)}


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Commit of the checkout the code runs from, '+dirty' if it is changed; else $TUNNEL_SWEEP_COMMIT or 'unknown'."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return os.environ.get(COMMIT_VARIABLE, "unknown")
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(COMMIT_VARIABLE, "unknown")
    return commit + ("+dirty" if dirty else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
