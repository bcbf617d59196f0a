"""A checkpoint of any usual kind as tensors by name: unwrapped, joined, and nothing in it is run.

Pickles are read by ``torch.load(weights_only=True)``; beside tensors only classes of a short list are made, none of
which does anything when it is made.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import importlib
import pathlib
import re
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from sweep.base.errors import UserError
from sweep.models.source import shards

# where training scripts put weights, the first that is there is taken: averaged ones first, as timm does
_PLACES = (
    *("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "model_state_dict", "net", "network"),
    *("module", "backbone", "encoder", "trunk", "ema", "ema_state_dict", "ema_model", "ema_model_state_dict"),
    *("model_state", "student", "classy_state_dict", "base_model"),
)
_DEPTH = 6  # of dictionaries in dictionaries
_NEGLIGIBLE = 0.01  # of the numbers of the largest place: centres of losses, tables of a schedule
_WRAPPERS = ("module.", "_orig_mod.")  # of distributed training and torch.compile
_POINTER = b"version https://git-lfs"
_PARTS = re.compile(r"-\d{5}-of-\d{5}(?=\.)")


def _harmless() -> list[Any]:
    """Classes and functions that checkpoints hold beside tensors, under the names that old and new releases write."""
    multiarray = importlib.import_module("numpy._core.multiarray")
    numbers = [np.dtype(kind) for kind in ["?", "b", "h", "i", "l", "q", "B", "H", "I", "L", "Q", "e", "f", "d"]]
    return [
        argparse.Namespace,
        types.SimpleNamespace,
        collections.defaultdict,
        *(bool, int, float, str, list, dict, set, tuple),
        pathlib.PosixPath,
        pathlib.PurePosixPath,
        (pathlib.PosixPath, "pathlib._local.PosixPath"),
        codecs.encode,
        np.dtype,
        np.ndarray,
        *(type(number) for number in numbers),
        *((getattr(multiarray, name), f"numpy.core.multiarray.{name}") for name in ("scalar", "_reconstruct")),
        *((getattr(multiarray, name), f"numpy._core.multiarray.{name}") for name in ("scalar", "_reconstruct")),
    ]


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a file.

    Attributes
    ----------
    state : tensors by name, without the prefixes of wrappers.
    place : keys of the dictionaries that they lay in, joined by dots; empty for the file's own.
    others : other places in the file that hold weights.
    """

    state: dict[str, Tensor]
    place: str = ""
    others: tuple[str, ...] = ()


def read_checkpoint(file: Path, key: str | None = None) -> Checkpoint:
    """The weights in a checkpoint file, or in all parts that an index names.

    Parameters
    ----------
    key : place of the weights, keys joined by dots; None looks for them.

    Raises
    ------
    UserError
        If it cannot be read, holds none, or holds several and nobody says which.
    """
    content = _joined(file) if shards(file) else _read(file)
    found = _within(content, key, file)
    if found is None:
        held = f" under {key}" if key else ""
        raise UserError(f"{file} holds no state dict of tensors{held}{_keys_of(content)}{_part_hint(file)}")
    return Checkpoint({_unwrapped(name): value for name, value in found.state.items()}, found.place, found.others)


def _joined(index: Path) -> dict[str, Any]:
    """All parts of a checkpoint as one."""
    content: dict[str, Any] = {}
    for part in shards(index):
        content |= _read(part)
    return content


def _part_hint(file: Path) -> str:
    return f"; it is one part of several: name their index ({_PARTS.sub('', file.name)}.index.json)" * bool(
        _PARTS.search(file.name)
    )


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _read(file: Path) -> Any:
    """What a file holds, by what it is, not by its ending."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(64)
    except OSError as error:
        raise UserError(f"{file} cannot be read as weights: {error.strerror or error}") from error
    if head.startswith(_POINTER):
        raise UserError(f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` where it was cloned")
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{file} is a web page, not weights: the download gave a page, perhaps one that asks to log in")
    try:
        header = int.from_bytes(head[:8], "little")  # of safetensors: the length of the JSON that follows
        if file.suffix == ".safetensors" or (head[8:9] == b"{" and header < file.stat().st_size):
            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is read, or refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers and safetensors raise unrelated types for a damaged file
        raise UserError(f"{file} cannot be read as weights: {_reason(error, file)}") from error


def _reason(error: Exception, file: Path) -> str:
    """Why a file was refused; for a class that is not read, how to do without it."""
    refused = re.search(r"(?:GLOBAL|class|global) ([\w.]+)", str(error))
    if refused is None or "weights_only" not in str(error):
        said = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error)  # without torch's advice
        return f"{type(error).__name__}: {said.splitlines()[0] if said else 'it is empty'}"
    return (
        f"it holds {refused[1]}, which is no tensor; making one could run code of the file. If you trust it, "
        f"convert it where that class is installed: python -c \"import torch; c = torch.load('{file.name}', "
        "map_location='cpu', weights_only=False); torch.save(c['state_dict'], 'plain.pt')\" (or c['model'], or "
        "c.state_dict(), wherever the weights are), and name plain.pt"
    )


def _keys_of(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f": it is a {type(content).__name__}"
    names = [str(name) for name in content]
    return f"; its keys are {', '.join(names[:12])}{' …' if len(names) > 12 else ''}" if names else ": it is empty"


def _within(content: Any, key: str | None, file: Path) -> Checkpoint | None:
    """Weights at a place that was named, or wherever they are."""
    inner, path = content, tuple(key.split(".")) if key else ()
    for part in path:
        if not isinstance(inner, Mapping) or part not in inner:
            raise UserError(f"{file} has no {key}: {part} is not there{_keys_of(inner)}")
        inner = inner[part]
    return _chosen(inner, path, (), file)


def _chosen(content: Any, path: tuple[str, ...], others: tuple[str, ...], file: Path) -> Checkpoint | None:
    """The weights in a dictionary, or in one of its dictionaries.

    Parameters
    ----------
    path, others : where it lies, and other places with weights that were passed by.
    """
    if not isinstance(content, Mapping) or len(path) > _DEPTH:
        return None
    sizes = {name: size for name, inner in content.items() if isinstance(name, str) and (size := _numbers(inner))}
    own = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    inner = {name: size for name, size in sizes.items() if name not in own}
    if own and sum(sizes[name] for name in own if name in sizes) >= max(inner.values(), default=0):
        return Checkpoint(own, ".".join(path), others)
    worth = [name for name, size in inner.items() if size >= _NEGLIGIBLE * max(inner.values())]
    if not worth:
        _refuse_numbered(content, file)
        return None
    known = [name for name in _PLACES if name in worth]
    if not known and len(worth) > 1:
        places = ", ".join(".".join((*path, name)) for name in worth)
        raise UserError(f"{file} holds weights at several places: {places}; say which with key:")
    taken = (known or worth)[0]
    passed = tuple(".".join((*path, name)) for name in worth if name != taken)
    return _chosen(content[taken], (*path, taken), others + passed, file)


def _refuse_numbered(content: Mapping[Any, Any], file: Path) -> None:
    """UserError if tensors lie under numbers, as in a list of parameters."""
    numbered = [str(name) for name, inner in content.items() if not isinstance(name, str) and isinstance(inner, Tensor)]
    if numbered:
        shown = ", ".join(numbered[:3]) + (" …" if len(numbered) > 3 else "")
        raise UserError(
            f"{file} holds tensors under {shown}, which are no names of parameters: "
            "save model.state_dict(), whose keys say which tensor is which"
        )


def _numbers(content: Any, depth: int = 0) -> int:
    """Numbers in the tensors of nested dictionaries whose keys are words; an optimizer's are numbered."""
    if isinstance(content, Tensor):
        return content.numel()
    if not isinstance(content, Mapping) or depth > _DEPTH or not all(isinstance(name, str) for name in content):
        return 0
    return sum(_numbers(inner, depth + 1) for inner in content.values())
