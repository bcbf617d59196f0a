"""Statistics of embeddings that plug-ins registered, beside those of :mod:`sweep.embed.statistics`.

Shapes: N images, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sweep import register
from sweep.base.errors import UserError
from sweep.base.seeds import derive_seed


def registered_statistics(
    names: Sequence[str], train: Sequence[Tensor], labels_N: Tensor, *, classes: int, seed: int
) -> list[dict[str, float | None]]:
    """Registered statistics of every layer's training embeddings.

    Parameters
    ----------
    names : which.
    train : one (N, D) tensor per layer, any float type.
    labels_N : int64 class ids in [0, classes).
    seed : of torch's random state while a plug-in runs, so that nothing else decides what it draws.

    Returns
    -------
    one mapping per layer from the statistic's name to its value; None for a layer that is not finite, and where the
    plug-in says so.

    Raises
    ------
    UserError
        If a plug-in raises, or gives something that is no number; named with the layer's place.
    """
    if not names:
        return [{} for _ in train]
    rows: list[dict[str, float | None]] = []
    for layer, emb_ND in enumerate(train):
        if not torch.isfinite(emb_ND).all():
            rows.append(dict.fromkeys(names))
            continue
        x_ND = emb_ND.to(labels_N.device).float()
        rows.append({name: _value(name, layer, x_ND, labels_N, classes, seed) for name in names})
    return rows


def _value(name: str, layer: int, emb_ND: Tensor, labels_N: Tensor, classes: int, seed: int) -> float | None:
    plugin = register.find_plugin("statistic", name)
    if plugin is None:
        raise UserError(f"statistic {name} is registered by no module of imports on this machine")
    with torch.random.fork_rng(devices=[emb_ND.device] if emb_ND.is_cuda else []):
        torch.manual_seed(derive_seed("statistic", seed, name, layer))
        try:
            value = plugin.make(emb_ND, labels_N, classes=classes)
            return None if value is None else float(value)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a user's code may raise anything
            problem = f"{type(error).__name__}: {error}"
            raise UserError(f"statistic {name} of {plugin.module}, probed layer {layer + 1}: {problem}") from error


def descriptions(names: Sequence[str]) -> Mapping[str, str]:
    """Meaning of each statistic's column: what its decorator says, else the first line of its docstring."""
    found = {name: register.find_plugin("statistic", name) for name in names}
    return {
        name: plugin.facts["description"] or (plugin.make.__doc__ or name).strip().splitlines()[0]
        for name, plugin in found.items()
        if plugin is not None
    }
