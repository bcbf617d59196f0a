"""Part of a study by name: some blocks of a config, or its small sizes.

Sizes are nested: ``size: 10`` of a block means that it belongs to the study of about ten backbones, and to the larger
ones. What is left of the config is a config; it has its own name, so that its plan stands beside that of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from sweep.base.errors import UserError
from sweep.config import SIZES, Block, Config, closest


def subset(config: Config, only: Sequence[str] = (), size: str | None = None) -> Config:
    """The config with the blocks of these names alone, and of these the ones of a size.

    Raises
    ------
    UserError
        If no block has such a name, or none of them belongs to the size.
    """
    named = list(dict.fromkeys(block.block for block in config.grid if block.block))
    for name in only:
        if name not in named:
            near = ", ".join(closest(name, named)) if named else "none of its blocks has a name (block: NAME)"
            raise UserError(f"--only {name}: {config.name} has no such block; {near}")
    blocks = tuple(b for b in config.grid if (not only or b.block in only) and (size is None or _within(b, size)))
    if not blocks:
        of = f" of {', '.join(only)}" if only else ""
        there = ", ".join(dict.fromkeys(str(b.size) for b in config.grid if not only or b.block in only))
        raise UserError(f"--size {size}: no block{of} of {config.name} belongs to that size; they have {there}")
    if blocks == config.grid:
        return config
    name = "-".join([config.name, *only, *([f"size{size}"] if size is not None and size != SIZES[-1] else [])])
    return config.model_copy(update={"grid": blocks, "name": name})


def _within(block: Block, size: str) -> bool:
    return SIZES.index(str(block.size)) <= SIZES.index(size)
