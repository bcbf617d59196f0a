"""Weights from a local file or from torchvision: read safely, renamed by a key map, matched against a network.

A match is reported whole: what was loaded, what the file lacks, what has another shape, what was not used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sweep.base.errors import UserError
from sweep.config import WeightsEntry

_SHOWN = 4
_WRAPPERS = ("state_dict", "model", "teacher")  # keys under which training scripts put the weights
_COUNTER = "num_batches_tracked"  # of batch norms; older files lack it and nothing but training reads it


@dataclass(frozen=True)
class Match:
    """How the tensors of a file fit a network, by name, each sorted.

    Attributes
    ----------
    loaded : in both, with the same shape.
    missing : the network needs them, the file has none.
    reshaped : in both, with different shapes, which are told.
    unused : in the file only.
    classifier : the network's classification head; probes do not need it, so it may be missing or of another shape.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]
    classifier: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether everything but the classifier is there."""
        return not self.missing and not self.reshaped

    def report(self) -> str:
        """The match in words, a line each for what is not simply loaded."""
        lines = [f"{len(self.loaded)} tensors match"]
        for names, what in (
            (self.missing, "missing in the file"),
            (self.reshaped, "of another shape"),
            (self.unused, "in the file but not used"),
        ):
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}")
        if prefix := self._prefix():
            lines.append(f"the names differ by a prefix; key_map: {{'^{re.escape(prefix)}': ''}} would drop it")
        return "\n".join(lines)

    def _prefix(self) -> str | None:
        """What stands before the network's own names in most of the unused ones."""
        missing = set(self.missing)
        ends = ((name, name[start:]) for name in self.unused for start in _starts(name))
        found = Counter(name.removesuffix(end) for name, end in ends if end in missing)
        prefix, times = found.most_common(1)[0] if found else (None, 0)
        return prefix if 2 * times > len(missing) else None


def _starts(name: str) -> list[int]:
    return [position + 1 for position, letter in enumerate(name) if letter == "."]


def load_weights(model: nn.Module, weights: WeightsEntry) -> Match:
    """Load weights into a network; everything but the classifier must match in name and shape.

    Raises
    ------
    UserError
        If they cannot be read, or do not fit; with the whole match.
    """
    state = read_weights(weights)
    found = match(model, state)
    if not found.fits:
        raise UserError(f"{weights.source} does not fit the model: {found.report()}")
    model.load_state_dict({name: state[name] for name in found.loaded}, strict=False)
    return found


def match(model: nn.Module, state: Mapping[str, Tensor]) -> Match:
    """Compare names and shapes of a network with those of a state dict; nothing is loaded."""
    own = model.state_dict()
    head = {name for name in own if name.startswith(_classifier_prefix(model))}
    same = {name for name in own.keys() & state.keys() if own[name].shape == state[name].shape}
    return Match(
        loaded=tuple(sorted(same)),
        missing=tuple(sorted(n for n in own.keys() - state.keys() - head if not n.endswith(_COUNTER))),
        reshaped=tuple(
            f"{name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
            for name in sorted((own.keys() & state.keys()) - same - head)
        ),
        unused=tuple(sorted(state.keys() - own.keys())),
        classifier=tuple(sorted(head)),
    )


def _classifier_prefix(model: nn.Module) -> str:
    """Start of the parameter names of the classification head."""
    config = getattr(model, "default_cfg", None) or {}
    named = config.get("classifier", "")
    if not named:
        children = dict(model.named_children())
        named = next((name for name in ("head", "fc", "classifier") if name in children), "head")
    return f"{named}." if isinstance(named, str) else "head."


def read_weights(weights: WeightsEntry) -> dict[str, Tensor]:
    """A state dict from a file or from torchvision, its names changed by the key map.

    Raises
    ------
    UserError
        If it cannot be read, or the key map gives two tensors one name.
    """
    state = _from_torchvision(weights.torchvision) if weights.torchvision else _from_file(Path(str(weights.path)))
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        new = name.removeprefix("module.")
        for pattern, replacement in weights.key_map.items():
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise UserError(f"{weights.source}: after key_map two tensors are called {new!r}, one of them was {name!r}")
        renamed[new] = value
    return renamed


def _from_file(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers and safetensors raise unrelated types for a damaged file
        raise UserError(f"{file} cannot be read as weights: {type(error).__name__}: {error}") from error
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} holds no state dict of tensors")
    return state


def torchvision_weights(name: str) -> Any:
    """An entry of torchvision's weight enumerations; UserError if there is none of that name."""
    from torchvision.models import get_weight

    try:
        return get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(
            f"torchvision has no weights {name!r} ({error}); an example: ResNet50_Weights.IMAGENET1K_V2"
        ) from None


def _from_torchvision(name: str) -> dict[str, Tensor]:
    weights = torchvision_weights(name)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # OSError is what urllib and ssl raise; a wrong hash or a damaged file is something else
        file = weights.url.rsplit("/", 1)[-1]
        advice = (
            f"is there a network? Or put {file} into $TORCH_HOME/hub/checkpoints"
            if isinstance(error, OSError)
            else f"the network is not to blame: remove {file} from $TORCH_HOME/hub/checkpoints and try again"
        )
        raise UserError(
            f"torchvision's {name} could not be loaded ({type(error).__name__}: {error}); {advice}"
        ) from error


def own_normalization(weights: WeightsEntry) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that an entry states, or that torchvision's weights were trained with; None if nobody says."""
    if weights.mean and weights.std:
        return weights.mean, weights.std
    if weights.torchvision:
        transforms = torchvision_weights(weights.torchvision).transforms()
        return tuple(transforms.mean), tuple(transforms.std)
    return None
