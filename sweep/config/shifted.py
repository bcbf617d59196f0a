"""Probe datasets with the classes of the ID dataset, as a config asks for them in its lists of probe datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from sweep.config.values import Model


class Shifted(Model):
    """A probe dataset with the classes of the ID dataset: probes are fitted on ID images and tested on this one."""

    labels_of: Literal["id"]
    fit: Literal["id"]
    corruption: Literal["gaussian_noise", "gaussian_blur", "contrast", "brightness", "pixelate", "jpeg"] | None = None
    severity: Annotated[int, Field(strict=True, ge=1, le=5)] = 3  # of the corruption of the ID test images


def shifted_apart(raw: Any) -> Any:
    """Entries ``{name: …, labels_of: id, fit: id}`` of lists of probe datasets become names, and say the rest apart."""
    if not isinstance(raw, Mapping):
        return raw
    said = dict(raw.get("shifted") or {})
    blocks = raw.get("grid")

    def named(part: Any) -> Any:
        """The part with names alone."""
        probed = part.get("probe_datasets") if isinstance(part, Mapping) else None
        if not isinstance(probed, list | tuple) or not any(isinstance(entry, Mapping) for entry in probed):
            return part
        names = []
        for entry in probed:
            if isinstance(entry, Mapping):
                rest = {key: value for key, value in entry.items() if key != "name"}
                entry = entry.get("name")
                if isinstance(entry, str) and said.setdefault(entry, rest) != rest:
                    raise ValueError(f"{entry} stands in probe_datasets in two ways")
            names.append(entry)
        return {**part, "probe_datasets": names}

    raw = named(raw)
    if isinstance(blocks, list | tuple):
        raw = {**raw, "grid": [named(block) for block in blocks]}
    return {**raw, "shifted": said} if said else raw
