"""Batches on the device that works on them: the next is read and copied while this one is used.

The way of timm's ``PrefetchLoader``: constants are made once, one side stream lasts as long as the feeder (a new one
for each epoch would leave the blocks of every earlier one in the allocator's cache), and nothing waits for the device.

Shapes: B batch, H and W pixels.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

_AHEAD = 2  # batches in pinned memory besides the one under way
_Made: TypeAlias = "queue.Queue[Tensor | BaseException | None]"  # None: there are no more


class Feeder:
    """Brings uint8 batches to a device and makes a network's input of them.

    Parameters
    ----------
    mean, std : of the three channels in [0, 1], what the weights were, or are, trained with.
    layout : memory format of the input.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], *, device: torch.device, layout: torch.memory_format
    ) -> None:
        self.device, self.layout = device, layout
        self._mean_3, self._std_3 = (torch.tensor(each, device=device) for each in (mean, std))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def normalized(self, images_BHWC: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) images on the device as standardised float (B, 3, H, W), in the layout."""
        shape = images_BHWC.shape
        mean_W3, std_W3 = (each.repeat(shape[2]) for each in (self._mean_3, self._std_3))
        rows_BHW3 = images_BHWC.reshape(*shape[:2], -1).float() / 255  # rows: loops over three channels are slow
        images = rows_BHW3.sub_(mean_W3).div_(std_W3).view(shape).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.layout)

    def on_device(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches, uint8 on the host, one after the other on the device."""
        if self._stream is None:
            yield from batches
            return
        here = torch.cuda.current_stream(self.device)
        ready: Tensor | None = None
        for batch in read_ahead(batches, Tensor.pin_memory):
            with torch.cuda.stream(self._stream):
                copied = batch.to(self.device, non_blocking=True)
            if ready is not None:
                yield ready
            here.wait_stream(self._stream)
            copied.record_stream(here)  # or its memory might be given out anew while it is still read
            ready = copied
        if ready is not None:
            yield ready


def resident(values: np.ndarray, device: torch.device) -> Tensor:
    """Numbers on the device, where they stay; what is under way there need not end first."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def taken(images_NHWC: np.ndarray, places: slice | np.ndarray, *, pinned: bool) -> Tensor:
    """Copies of some images; pinned, they go to a device as they are, without being copied again."""
    part_BHWC = images_NHWC[places]
    room = torch.empty(part_BHWC.shape, dtype=torch.uint8, pin_memory=pinned)
    np.copyto(room.numpy(), part_BHWC)
    return room


def read_ahead(batches: Iterable[Tensor], prepare: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """The batches, read and prepared by a thread a little ahead; what it raises is raised here."""
    made: _Made = queue.Queue(_AHEAD)
    stop = threading.Event()

    def read() -> None:
        """Fill the queue until there are no more, or nobody wants them."""
        try:
            for batch in batches:
                if not _offered(made, prepare(batch), stop):
                    return
            _offered(made, None, stop)
        except BaseException as error:
            _offered(made, error, stop)

    thread = threading.Thread(target=read, name="feeder", daemon=True)
    thread.start()
    try:
        while (batch := made.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stop.set()
        thread.join()


def _offered(made: _Made, item: Tensor | BaseException | None, stop: threading.Event) -> bool:
    """Put an item where there is room; False if nobody wants it any more."""
    while not stop.is_set():
        try:
            made.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
