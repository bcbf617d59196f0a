"""A training step: its operators one after the other, or on a GPU all at once as a CUDA graph.

A GPU works on a small batch for less time than Python takes to launch the operators of a step: an H100 trains a VGGm-11
at 32 px three times as fast by a graph (``tests.bench steps``).

Shapes: B batch, H and W pixels.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sweep.base.graph import Graphed
from sweep.train.mix import Mixed

log = logging.getLogger(__name__)

PAYS_AFTER = 200  # steps; measured: 29 for a VGGm-11 at 32 px, 146 for a ResNet-18 at 224 px

# uint8 (B, H, W, 3) images and (B,) targets on the device, and how they are mixed → their mean loss
Loss = Callable[[Tensor, Tensor, Mixed | None], Tensor]


class Steps:
    """The steps of one training run.

    Parameters
    ----------
    capture : whether steps are CUDA graphs, one for each size of batch.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, capture: bool) -> None:
        self._model, self._optimizer = model, optimizer
        self._capture, self._graphs = capture, dict[int, Graphed]()

    def at_rate(self, rate: float) -> None:
        """Set the learning rate of the steps from now on; a graph reads it where it was when it was captured."""
        for group in self._optimizer.param_groups:
            if not self._capture:
                group["lr"] = rate
            elif isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = torch.tensor(rate, device=group["params"][0].device)

    def __call__(
        self, loss: Loss, images_BHWC: Tensor, target_B: Tensor, *, mix: Mixed | None = None, weight: float = 1.0
    ) -> Tensor:
        """Take a step.

        Parameters
        ----------
        loss : of a batch, the same in every call. It is not kept: a run that it belongs to keeps its steps.
        mix, weight : how the batch is mixed with itself, and a factor of its loss; neither where steps are captured.

        Returns
        -------
        the loss before the step, without the factor; it is on the device, until the next step.
        """
        # the first step of all makes the optimizer's moments, which a graph must find
        if not self._capture or not self._optimizer.state:
            return self._taken(loss, images_BHWC, target_B, mix, weight)
        graph = self._graph(loss, images_BHWC, target_B)
        if graph is None:
            return self._taken(loss, images_BHWC, target_B)
        result = graph(images_BHWC, target_B)
        assert result is not None
        return result

    def _graph(self, loss: Loss, images_BHWC: Tensor, target_B: Tensor) -> Graphed | None:
        """Of this size of batch; None where there is no memory for it, and from then on."""
        size = len(target_B)
        if size not in self._graphs:
            beside = next(iter(self._graphs.values()), None)
            step, inputs = functools.partial(self._taken, loss), (images_BHWC, target_B)
            try:
                self._graphs[size] = Graphed(step, state=list(self._state()), inputs=inputs, beside=beside)
            except torch.OutOfMemoryError as error:
                log.info("steps are not captured: %s", error)
                self.release()
                return None
        return self._graphs[size]

    def release(self) -> None:
        """Give back the memory of graphs and gradients; steps from now on are not captured."""
        self._capture = False
        self._graphs.clear()
        self._optimizer.zero_grad(set_to_none=True)

    def _taken(
        self, loss_of: Loss, images_BHWC: Tensor, target_B: Tensor, mix: Mixed | None = None, weight: float = 1.0
    ) -> Tensor:
        for group in self._optimizer.param_groups:
            group["capturable"] = images_BHWC.is_cuda and torch.cuda.is_current_stream_capturing()
        loss = loss_of(images_BHWC, target_B, mix)
        self._optimizer.zero_grad(set_to_none=True)
        (loss * weight).backward()
        self._optimizer.step()
        return loss.detach()

    def _state(self) -> Iterator[Tensor]:
        """All that a step changes."""
        yield from self._model.parameters()
        yield from self._model.buffers()
        for moments in self._optimizer.state.values():
            yield from moments.values()
