"""Named weights into a network: renamed by a key map, converted as timm does, matched in the open.

A match is reported whole: what was loaded, what the file lacks, what has another shape, what was not used.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from sweep.base.errors import UserError
from sweep.models.checkpoint_file import Checkpoint, read_checkpoint
from sweep.models.key_map import Proposal, propose
from sweep.models.source import WeightsSource
from sweep.models.torchvision_weights import torchvision_state

_SHOWN = 4
_COUNTER = "num_batches_tracked"  # of batch norms; older files lack it and nothing but training reads it
# what timm's files call the function that converts a published state dict
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained", "checkpoint_filter_fn_classifier")
_THREE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("to_q", "to_k", "to_v"))
_ONE = "qkv"

State = dict[str, Tensor]


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
    notes : what was done to the file's tensors beforehand, and what else the file holds.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]
    classifier: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether everything but the classifier is there."""
        return not self.missing and not self.reshaped

    def report(self, *, every_name: bool = False) -> str:
        """The match in words, a line each for what is not simply loaded; of many names the first, or all of them."""
        lines = [f"{len(self.loaded)} tensors match", *self.notes]
        for names, what in (
            (self.missing, "missing in the file"),
            (self.reshaped, "of another shape"),
            (self.unused, "in the file but not used"),
        ):
            if names and every_name:
                lines += [f"{len(names)} {what}:", *(f"    {name}" for name in names)]
            elif names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}")
        if prefix := self.prefix():
            lines.append(f"the names differ by a prefix; key_map: {{'^{re.escape(prefix)}': ''}} would drop it")
        return "\n".join(lines)

    def prefix(self) -> str | None:
        """What stands before the network's own names in most of the unused ones."""
        missing = set(self.missing)
        ends = ((name, name[start:]) for name in self.unused for start in _starts(name))
        found = Counter(name.removesuffix(end) for name, end in ends if end in missing)
        prefix, times = found.most_common(1)[0] if found else (None, 0)
        return prefix if 2 * times > len(missing) else None


def _starts(name: str) -> list[int]:
    return [position + 1 for position, letter in enumerate(name) if letter == "."]


@dataclass(frozen=True)
class Fitted:
    """Tensors as they suit a network, and how well they do."""

    state: State
    match: Match


def load_weights(model: nn.Module, source: WeightsSource, architecture: str, head: Collection[str]) -> Match:
    """Load weights into a network; everything but the classifier must match in name and shape.

    Parameters
    ----------
    head : names of the network's classifier, see :func:`sweep.models.build.classifier_names`.

    Raises
    ------
    UserError
        If they cannot be read, or do not fit; with the whole match.
    """
    found = fit_weights(model, source, architecture, head)
    if not found.match.fits:
        reason = "; ".join(found.match.report().splitlines())  # one line: it stands whole in lists of failures
        raise UserError(f"{source} does not fit the model: {reason}")
    model.load_state_dict({name: found.state[name] for name in found.match.loaded}, strict=False)
    return found.match


def fit_weights(model: nn.Module, source: WeightsSource, architecture: str, head: Collection[str]) -> Fitted:
    """Weights in the first form that suits a network: as they are, as timm converts them, with joined projections.

    If none does, as they are.
    """
    checkpoint = read_source(source)
    notes = _place_notes(checkpoint)
    plain = renamed(checkpoint.state, source)
    first: Fitted | None = None
    for state, said in _forms(model, architecture, plain, lambda: renamed(joined(checkpoint.state), source)):
        found = Fitted(state, replace(match(model, state, head), notes=(*notes, *said)))
        if found.match.fits:
            return found
        first = first or found
    assert first is not None
    return first


def _place_notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    if not checkpoint.others:
        return ()
    held = ", ".join(checkpoint.others)
    return (f"the file's {checkpoint.place or 'own tensors'} was taken; it also holds {held} (key: chooses)",)


def _forms(
    model: nn.Module, architecture: str, plain: State, together: Callable[[], State]
) -> Iterator[tuple[State, tuple[str, ...]]]:
    """A file's tensors in the forms that networks want, each with what was done."""
    yield plain, ()
    yield from _converted(model, architecture, plain, ())
    if any(_ONE in name.split(".") for name in model.state_dict()):
        state = together()
        if state.keys() != plain.keys():
            said = ("query, key and value were joined, as the network has them",)
            yield state, said
            yield from _converted(model, architecture, state, said)


def _converted(
    model: nn.Module, architecture: str, state: State, said: tuple[str, ...]
) -> Iterator[tuple[State, tuple[str, ...]]]:
    """A state dict as timm's own function for published checkpoints of this architecture makes it."""
    for convert in _timm_filters(architecture):
        try:
            found = convert(dict(state), model)
        except Exception as error:  # written for the checkpoints that timm knows, it may fail on any other
            yield state, (*said, f"timm's own conversion does not apply ({type(error).__name__}: {error})")
            continue
        tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        resized = [
            f"{name} {tuple(state[name].shape)} → {tuple(value.shape)}"
            for name, value in tensors.items()
            if name in state and state[name].shape != value.shape
        ]
        how = f"resampled by timm's own function: {', '.join(resized)}" if resized else "renamed by timm's own function"
        yield tensors, (*said, how)


def _timm_filters(architecture: str) -> Iterator[Callable[[State, nn.Module], Mapping[str, Any]]]:
    """Timm's conversions for an architecture: as its file has them, and with the switch that one family needs."""
    if not timm.is_model(architecture):
        return
    module = sys.modules[timm.model_entrypoint(architecture).__module__]
    for function in (getattr(module, name) for name in _FILTERS if hasattr(module, name)):
        takes = inspect.signature(function).parameters
        yield function if len(takes) > 1 else functools.partial(_without_model, function)
        if "adapt_layer_scale" in takes:
            yield functools.partial(function, adapt_layer_scale=True)


def _without_model(function: Callable[[State], Mapping[str, Any]], state: State, model: nn.Module) -> Mapping[str, Any]:
    """A conversion that does not look at the network."""
    del model
    return function(state)


def proposed(model: nn.Module, source: WeightsSource, head: Collection[str]) -> Proposal | None:
    """A key map under which the tensors of a source would fit a network, beside the key map it has."""
    checkpoint = read_source(source)
    needed = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if name not in head and not name.endswith(_COUNTER)
    }
    for state in (checkpoint.state, joined(checkpoint.state)):
        there = {n: tuple(v.shape) for n, v in renamed(state, source).items() if not n.endswith(_COUNTER)}
        if (found := propose(needed, there)) is not None:
            return found
    return None


def joined(state: State) -> State:
    """Query, key and value projections of one attention as one tensor, as most of timm's networks have them."""
    found: State = {}
    for name, value in state.items():
        parts = name.split(".")
        three = next((three for three in _THREE if set(three) & set(parts)), None)
        if three is None:
            found[name] = value
            continue
        place = next(position for position, part in enumerate(parts) if part in three)
        names = [".".join((*parts[:place], each, *parts[place + 1 :])) for each in three]
        if not all(each in state and state[each].shape[1:] == value.shape[1:] for each in names):
            found[name] = value
        elif name == names[0]:
            found[".".join((*parts[:place], _ONE, *parts[place + 1 :]))] = torch.cat([state[each] for each in names])
    return found


def match(model: nn.Module, state: Mapping[str, Tensor], head: Collection[str]) -> Match:
    """Compare names and shapes of a network with those of a state dict; nothing is loaded."""
    own = model.state_dict()
    same = {name for name in own.keys() & state.keys() if own[name].shape == state[name].shape}
    return Match(
        loaded=tuple(sorted(same)),
        missing=tuple(sorted(n for n in own.keys() - state.keys() - set(head) if not n.endswith(_COUNTER))),
        reshaped=tuple(
            f"{name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
            for name in sorted((own.keys() & state.keys()) - same - set(head))
        ),
        unused=tuple(sorted(state.keys() - own.keys())),
        classifier=tuple(sorted(head)),
    )


def read_source(source: WeightsSource) -> Checkpoint:
    """The tensors of a file or of torchvision, by the names that they have there.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    if source.kind == "torchvision":
        return Checkpoint(torchvision_state(source.name))
    return read_checkpoint(Path(source.name), source.key)


def renamed(state: State, source: WeightsSource) -> State:
    """Tensors under the names that the key map gives them.

    Raises
    ------
    UserError
        If it gives two tensors one name.
    """
    found: State = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in source.key_map:
            new = re.sub(pattern, replacement, new)
        if new in found:
            raise UserError(f"{source}: after key_map two tensors are called {new!r}, one of them was {name!r}")
        found[new] = value
    return found
