"""Windows cut out and resized on a GPU by two small kernels of Triton's, one for each direction.

They add whole numbers, and so give the pixels of torch's kernel on the host bit for bit, as the matmuls of
:mod:`sweep.train.resample` do, but read each pixel where it lies: of photographs at 224 px the operands of the matmuls
alone are many times as many bytes.

Shapes: B images, H the tallest window, R resolution, C = 3 channels, L lengths, K taps of a pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_MOST = 1024  # numbers of a line that a program makes


@triton.jit(do_not_specialize=["images", "tall"])
def _columns(flat, numbers, first, weight, bits, taps, out, images, tall, side, room, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row of a window made as wide as the image, and mirrored where it is to be."""
    row = tl.program_id(0)
    image, y = row // tall, row % tall
    width = tl.load(numbers + 3 * images + image)
    if y < tl.load(numbers + 2 * images + image):
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        x, inside = at // 3, at < 3 * side
        x = tl.where(tl.load(numbers + 4 * images + image) > 0, side - 1 - x, x)
        line = (width - 1) * side + x
        source = tl.load(first + line, mask=inside, other=0)
        shift = tl.load(bits + width - 1)
        pixels = flat + tl.load(numbers + image) + y * tl.load(numbers + images + image) + at % 3
        total = tl.full([BLOCK], 0, tl.int32) + (1 << (shift - 1))
        for tap in range(tl.load(taps + width - 1)):
            share = tl.load(weight + line * room + tap, mask=inside, other=0)
            there = inside & (source + tap < width)
            total += share * tl.load(pixels + 3 * (source + tap), mask=there, other=0).to(tl.int32)
        value = tl.minimum(tl.maximum(total >> shift, 0), 255)
        tl.store(out + row.to(tl.int64) * 3 * side + at, value.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["images", "tall"])
def _rows(lines, numbers, first, weight, bits, taps, out, images, tall, side, room, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row of an image from those of its window."""
    row = tl.program_id(0)
    image, y = row // side, row % side
    height = tl.load(numbers + 2 * images + image)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < 3 * side
    line = (height - 1) * side + y
    source = tl.load(first + line)
    shift = tl.load(bits + height - 1)
    total = tl.full([BLOCK], 0, tl.int32) + (1 << (shift - 1))
    for tap in range(tl.load(taps + height - 1)):
        share = tl.load(weight + line * room + tap)
        there = inside & (source + tap < height)
        from_row = (image * tall + source + tap).to(tl.int64) * 3 * side
        total += share * tl.load(lines + from_row + at, mask=there, other=0).to(tl.int32)
    value = tl.minimum(tl.maximum(total >> shift, 0), 255)
    tl.store(out + row.to(tl.int64) * 3 * side + at, value.to(tl.uint8), mask=inside)


class Tables(NamedTuple):
    """What :func:`sweep.train.resample.weights_of` says of each length, int32 on a device, and how many taps it has."""

    first_LR: Tensor
    weight_LRK: Tensor
    bits_L: Tensor
    taps_L: Tensor


def cut(flat: Tensor, numbers_5B: Tensor, tables: Tables, *, tall: int) -> Tensor:
    """uint8 (B, R, R, 3) of windows in flat uint8 pixels.

    Parameters
    ----------
    numbers_5B : int64, contiguous: of each window its start in ``flat``, the bytes to its next row, height, width, and
        whether it is mirrored.
    tall : H.
    """
    images, (side, room) = numbers_5B.shape[1], tables.weight_LRK.shape[1:]
    block = min(triton.next_power_of_2(3 * side), _MOST)
    parts = triton.cdiv(3 * side, block)
    lines, found = (flat.new_empty(images, rows, side, 3) for rows in (tall, side))
    sizes = images, tall, side, room
    _columns[images * tall, parts](flat, numbers_5B, *tables, lines, *sizes, BLOCK=block)
    _rows[images * side, parts](lines, numbers_5B, *tables, found, *sizes, BLOCK=block)
    return found


def work(device: torch.device) -> bool:
    """Whether they do here: Triton wants a C compiler and Python's headers on the machine."""
    one = torch.ones(1, dtype=torch.int32, device=device)
    tables = Tables(one.view(1, 1) - 1, one.view(1, 1, 1) << 14, one * 14, one)
    numbers_51 = torch.tensor([[0], [3], [1], [1], [0]], device=device)
    flat = torch.tensor([7, 0, 255], dtype=torch.uint8, device=device)
    return torch.equal(cut(flat, numbers_51, tables, tall=1).flatten(), flat)
