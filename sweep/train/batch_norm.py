"""Batch norm over the parts of a batch that several processes hold, on any device.

On CUDA it is torch's SyncBatchNorm, which knows no other device. Elsewhere one exchange of counts, means and sums of
squares in the forward pass and one of two sums in the backward pass do the same with any backend of torch.distributed.
Parts may differ in size.

Shapes: B this process's images, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class _WholeBatch(torch.autograd.Function):
    """Normalise by the moments of the whole batch; the loss is the sum of the processes' losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        """Output, then mean, biased variance and count of the whole batch, which take no gradient."""
        mean_C, variance_C, count = _moments(x)
        ctx.save_for_backward(x, weight, mean_C, torch.rsqrt(variance_C + eps), count)
        ctx.mark_non_differentiable(mean_C, variance_C, count)
        return F.batch_norm(x, mean_C, variance_C, weight, bias, False, 0.0, eps), mean_C, variance_C, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight and bias; those of the two parameters are of this process's part of the batch."""
        x, weight, mean_C, scale_C, count = ctx.saved_tensors
        gradient = gradients[0].float()
        normal = (x.float() - _shaped(mean_C, x)) * _shaped(scale_C, x)
        sums_2C = torch.stack([gradient.sum(_others(x)), (gradient * normal).sum(_others(x))])
        own_2C = sums_2C.clone()
        dist.all_reduce(sums_2C)
        means_2C = sums_2C / count
        inner = gradient - _shaped(means_2C[0], x) - normal * _shaped(means_2C[1], x)
        scale_C = scale_C if weight is None else scale_C * weight.float()
        of_weight, of_bias = (None, None) if weight is None else (own_2C[1], own_2C[0])  # averaged with the others
        return (inner * _shaped(scale_C, x)).to(x.dtype), of_weight, of_bias, None


def _others(x: Tensor) -> list[int]:
    return [dimension for dimension in range(x.dim()) if dimension != 1]


def _shaped(values_C: Tensor, x: Tensor) -> Tensor:
    return values_C.reshape(1, -1, *[1] * (x.dim() - 2))


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all processes, and how many numbers each is of."""
    numbers = x.float()
    variance_C, mean_C = torch.var_mean(numbers, _others(x), correction=0)
    own = torch.cat([mean_C, variance_C, mean_C.new_tensor([numbers.numel() / len(mean_C)])])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    means_RC, variances_RC, counts_R1 = torch.stack(gathered).split([len(mean_C), len(mean_C), 1], dim=1)
    count = counts_R1.sum()
    mean_C = (counts_R1 * means_RC).sum(0) / count
    spread_C = (counts_R1 * (variances_RC + (means_RC - mean_C) ** 2)).sum(0)
    return mean_C, spread_C / count, count


class _Synchronised:
    """Mixed into a batch norm class: while training, moments are those of the whole batch."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """As the class does, with the moments of all processes while training."""
        if not self.training:
            return super().forward(x)  # type: ignore[misc]
        out, mean_C, variance_C, count = _WholeBatch.apply(x, self.weight, self.bias, self.eps)
        if self.running_mean is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
                unbiased_C = variance_C * (count / (count - 1))
                self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), share)
        for further in ("drop", "act"):  # timm's batch norm with an activation
            if hasattr(self, further):
                out = getattr(self, further)(out)
        return out


_KNOWN: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Synchronised{kind.__name__}", (_Synchronised, kind), {})
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
}


def synchronised(model: nn.Module) -> nn.Module:
    """The model with batch norms that see the whole batch; parameters, buffers and their names stay as they are.

    Raises
    ------
    TypeError
        If the model has a batch norm of a kind that is not known here.
    """
    _refuse_unknown(model)
    if next(model.parameters()).is_cuda:
        return convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) in _KNOWN:
            module.__class__ = _KNOWN[type(module)]
    return model


def _refuse_unknown(model: nn.Module) -> None:
    for name, module in model.named_modules():
        known = type(module) in _KNOWN or isinstance(module, _Synchronised | nn.SyncBatchNorm)
        if isinstance(module, _BatchNorm) and not known:
            kind = type(module).__name__
            raise TypeError(f"{name} is a {kind}, which cannot be computed over several processes: data_parallel: 1")
