"""What an instrument looks at: a curve's layers, embedded, and what else there is of its backbone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sweep.base.store import Store
from sweep.cell.kept import fitted_again
from sweep.cell.rows import Embedded
from sweep.cell.task import CellTask
from sweep.data import Images
from sweep.probes import LinearProbe, energies, nearness
from sweep.study import Planned

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """A curve under an instrument.

    Attributes
    ----------
    device : that does the work.
    reference : the backbone's ID images, where they are asked for.
    """

    task: CellTask
    planned: Planned
    images: Images
    embedded: Embedded
    store: Store
    device: torch.device
    reference: Reference | None = None

    @property
    def train_labels_N(self) -> Tensor:
        """On the device."""
        return torch.from_numpy(self.images.train_labels_N).to(self.device)

    @property
    def test_labels_N(self) -> Tensor:
        """On the device."""
        return torch.from_numpy(self.images.test_labels_N).to(self.device)

    @property
    def heldout_N(self) -> Tensor:
        """Which training images are held out, on the device."""
        return torch.from_numpy(self.images.heldout_N).to(self.device)

    def layers(self) -> Iterator[tuple[int, bool]]:
        """Each layer's place from 0, and whether all of its embeddings are finite."""
        for at, (train_ND, test_ND) in enumerate(zip(self.embedded.train, self.embedded.test, strict=True)):
            yield at, bool(torch.isfinite(train_ND).all() and torch.isfinite(test_ND).all())

    def row(self, reading: str, at: int, value: float | None, **more: Any) -> Row:
        """A number of one layer."""
        named = {"layer": at + 1, "layer_name": self.embedded.layers[at].label}
        return {"reading": reading, **named, "value": value, **more}

    def linear(self, at: int) -> LinearProbe | None:
        """The layer's chosen linear probe, fitted again; None of a plug-in's solver, or one without numbers."""
        return fitted_again(self.task, self.planned.curve, self.images, self.embedded, at, self.device).linear


class Reference:
    """The ID images of a backbone, embedded once for all curves that are held against them; what is asked is kept.

    Parameters
    ----------
    bench : of the backbone's ID curve.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._linear = functools.cache(bench.linear)
        self._own_energies = functools.cache(self._energies_of_own)
        self._own_nearness = functools.cache(lambda at: self._near(at, bench.embedded.test[at]))
        self._finite = dict(bench.layers())

    def is_finite(self, at: int) -> bool:
        """Whether a layer's embeddings of ID images all are."""
        return self._finite[at]

    def by_energy(self, at: int, emb_MD: Tensor) -> tuple[Tensor, Tensor] | None:
        """Scores of ID test images and of others by the layer's ID probe, high for ID; None without such a probe."""
        probe = self._linear(at)
        if probe is None:
            return None
        return self._own_energies(at), energies(probe, emb_MD, self._bench.device)

    def by_neighbours(self, at: int, emb_MD: Tensor) -> tuple[Tensor, Tensor]:
        """The same by how near the ID training images are."""
        return self._own_nearness(at), self._near(at, emb_MD)

    def _energies_of_own(self, at: int) -> Tensor:
        probe = self._linear(at)
        assert probe is not None
        return energies(probe, self._bench.embedded.test[at], self._bench.device)

    def _near(self, at: int, emb_MD: Tensor) -> Tensor:
        return nearness(self._bench.embedded.train[at], emb_MD, self._bench.device)

    def on(self, device: torch.device) -> Reference:
        """The same on another device."""
        return self if device == self._bench.device else Reference(replace(self._bench, device=device))
