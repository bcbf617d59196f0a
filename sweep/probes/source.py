"""Where batches come from: embeddings of layers of equal width, as they are stored, read by index.

Shapes: N images, D width, L layers of one width, B batch, M images of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 8192  # rows converted to float64 at a time
_APART = 16  # numbers between rows on CPU: widths are powers of two, and rows that many bytes apart share cache lines


def rows_apart(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for embeddings of any numbers; on CPU some space between rows makes wide matmuls a fifth faster."""
    *rows, width = shape
    apart = _APART if device.type == "cpu" else 0
    return torch.empty(*rows, width + apart, dtype=dtype, device=device)[..., :width]


@dataclass(frozen=True)
class Rows:
    """Buffers for batches of one size.

    Attributes
    ----------
    index_LB : into the stack of all layers.
    stored_RD : embeddings as stored, by type: of all layers where they are stacked, else of one.
    x_LBD : embeddings as used; ``x_BD`` are its layers.
    """

    index_LB: Tensor
    stored_RD: Mapping[torch.dtype, Tensor]
    x_LBD: Tensor
    x_BD: Sequence[Tensor]


class Source:
    """Embeddings of some layers of one width, each in the type that it is stored in.

    On CPU they stay where they are; on a GPU those of one type are stacked, so that one operator gathers a batch of all
    layers.

    Parameters
    ----------
    embeddings : (N, D) of each layer.
    device : where the rows are wanted.
    dtype : of the rows.
    resident : whether the device is to hold all of them; else only :meth:`loaded` ones can be read by index.
    """

    def __init__(
        self, embeddings: Sequence[Tensor], device: torch.device, dtype: torch.dtype, *, resident: bool = True
    ) -> None:
        self._emb_ND, self._device, self._dtype, self._resident = list(embeddings), device, dtype, resident
        self.layers, (self.images, self.width) = len(embeddings), embeddings[0].shape
        self._types = {emb_ND.dtype for emb_ND in embeddings}
        self._stacked = device.type != "cpu" and len(self._types) == 1
        self._flat_RD: Tensor | None = None
        if resident and not self._stacked:
            self._emb_ND = [emb_ND.to(device) for emb_ND in embeddings]
        elif resident:
            stack_LND = torch.empty(self.layers, self.images, self.width, dtype=embeddings[0].dtype, device=device)
            for row_ND, emb_ND in zip(stack_LND, embeddings, strict=True):
                row_ND.copy_(emb_ND, non_blocking=True)
            self._emb_ND = list(stack_LND)
            self._flat_RD = stack_LND.flatten(0, 1)
            self._starts_L1 = torch.arange(self.layers, device=device).unsqueeze(1) * self.images

    def of(self, kept: Sequence[int]) -> Source:
        """A source of some of these layers, which shares their memory."""
        part = copy(self)
        part.layers, part._emb_ND = len(kept), [self._emb_ND[layer] for layer in kept]
        if self._flat_RD is not None:
            part._starts_L1 = self._starts_L1[list(kept)]
        return part

    @property
    def row_bytes(self) -> int:
        """Bytes of one image, all layers."""
        return self.width * sum(emb_ND.element_size() for emb_ND in self._emb_ND)

    def room(self, images: int) -> Tensor:
        """Room for (L, B, D) embeddings as they are used."""
        return rows_apart(self.layers, images, self.width, dtype=self._dtype, device=self._device)

    def buffers(self, batch: int) -> Rows:
        """For :meth:`gather`."""
        index_LB = torch.empty(self.layers, batch, dtype=torch.long, device=self._device)
        rows = self.layers * batch if self._stacked else batch
        stored_RD = {dtype: torch.empty(rows, self.width, dtype=dtype, device=self._device) for dtype in self._types}
        x_LBD = self.room(batch)
        return Rows(index_LB, stored_RD, x_LBD, list(x_LBD))

    def gather(self, images_B: Tensor, rows: Rows) -> Tensor:
        """(L, B, D) embeddings of these images, in ``rows``."""
        if self._flat_RD is None:
            for emb_ND, x_BD in zip(self._emb_ND, rows.x_BD, strict=True):
                stored_BD = rows.stored_RD[emb_ND.dtype]
                torch.index_select(emb_ND, 0, images_B, out=stored_BD)
                x_BD.copy_(stored_BD)
            return rows.x_LBD
        stored_RD = rows.stored_RD[self._flat_RD.dtype]
        torch.add(self._starts_L1, images_B, out=rows.index_LB)
        torch.index_select(self._flat_RD, 0, rows.index_LB.view(-1), out=stored_RD)
        return rows.x_LBD.copy_(stored_RD.view_as(rows.x_LBD))

    def part(self, images: slice | Tensor, room_LBD: Tensor) -> Tensor:
        """(L, B, D) embeddings of some images, for scoring: resident or not, in ``room_LBD`` of at least as many."""
        for emb_ND, room_BD in zip(self._emb_ND, room_LBD, strict=True):
            if isinstance(images, slice):
                row_BD = emb_ND[images]
            else:
                row_BD = emb_ND.index_select(0, images.to(emb_ND.device))
            room_BD[: len(row_BD)].copy_(row_BD)
        return room_LBD[:, : len(row_BD)]

    def loaded(self, images_M: Tensor) -> Source:
        """A source of these images alone, in this order, on the device."""
        part = [emb_ND.index_select(0, images_M.to(emb_ND.device)) for emb_ND in self._emb_ND]
        return Source(part, self._device, self._dtype)

    def standardisation(self, fit_N: Tensor) -> tuple[Tensor, Tensor]:
        """(L, 1, D) mean and 1/std of each feature over the images of a fit; a constant feature becomes zero."""
        images_N = fit_N.nonzero().squeeze(1)
        means, scales = [], []
        for emb_ND in self._emb_ND:
            chunks = images_N.to(emb_ND.device).split(_CHUNK)
            mean_D = torch.stack([emb_ND[part].double().sum(0) for part in chunks]).sum(0) / len(images_N)
            squares_D = torch.stack([(emb_ND[part].double() - mean_D).square().sum(0) for part in chunks]).sum(0)
            std_D = (squares_D / len(images_N)).sqrt()
            means.append(mean_D)
            scales.append(torch.where(std_D > 0, 1 / std_D, torch.zeros_like(std_D)))
        mean_L1D, scale_L1D = (torch.stack(rows).unsqueeze(1).to(self._device, self._dtype) for rows in (means, scales))
        return mean_L1D, scale_L1D
