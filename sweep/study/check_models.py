"""What a config says of architectures and their layers against what there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sweep.base.errors import UserError
from sweep.config import LAYERS, Config, KeyPath, Problem
from sweep.models import facts
from sweep.study.grid import layers_said


def check_architectures(path: KeyPath, names: Iterable[str]) -> Iterator[Problem]:
    """Names that are none, and networks that cannot be described."""
    for position, name in enumerate(names):
        try:
            facts.architecture(name)
        except KeyError:
            yield Problem(
                (*path, position),
                name,
                "no such architecture (nor a timm model, nor vggm{depth} from 6 on, nor mlp{depth}x{width})",
                facts.names(),
            )
        except UserError as error:  # a registered one that cannot be described
            yield Problem((*path, position), name, str(error))


def check_default_layers(config: Config, path: KeyPath, names: Iterable[str]) -> Iterator[Problem]:
    """Networks whose layers a config must name, because the axes of their default ones cannot be told apart."""
    for position, name in enumerate(names):
        refused = facts.architecture(name).refused
        if refused and layers_said(config, name) is None:
            yield Problem((*path, position), name, f"say under layers which layers of it are probed: {refused}")


def check_layers(config: Config) -> Iterator[Problem]:
    """What is said of layers: a kind that has a name, or a regular expression, for all or by architecture."""
    by_name = {None: config.layers} if isinstance(config.layers, str) else config.layers
    for name, said in by_name.items():
        at: KeyPath = ("layers",) if name is None else ("layers", name)
        if name is not None:
            yield from check_architectures(at, (name,))
        try:
            re.compile(said)
        except re.error as error:
            yield Problem(at, said, f"neither a kind of layers nor a regular expression: {error}", LAYERS)
