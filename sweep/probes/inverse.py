"""What the Hessian of a probe's loss is about, and its inverse: the metric of a descent.

At first it is the second moments of the coordinates times the mean of p (1 − p), the same for every class. Where that
takes long it gets a block for each class: the second moments of the images that are uncertain between it and others,
which is what a class feels that has learned most of its images.

Shapes: L layers, G of them that have blocks, N images, C classes, F coordinates, K known directions, M most uncertain
images of a class, or gradients of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sweep.probes.coordinates import Metric
from sweep.probes.softmax import Softmax, Value

_BLOCK_NUMBERS = 1 << 23  # in the blocks of a layer, at most
_IMAGES_PER_NUMBER = 4  # N / F from which on blocks pay; and M · F / N: what making them may cost
_RIDGE = 1e-4  # added to scaled blocks, whose diagonal is about 1: float32


class Inverse:
    """The inverse Hessian of some layers, in turn for several penalties."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._variance_L1F = torch.stack([metric.variance_F for metric in metrics]).unsqueeze(1)
        self.penalised_L1F = torch.stack([metric.penalised_F for metric in metrics]).unsqueeze(1)
        self._known_LFK = torch.stack([metric.known_FK for metric in metrics])
        self._known_L1K = torch.stack([metric.known_K for metric in metrics]).unsqueeze(1)
        self._blocks_GCFF: Tensor | None = None
        self._of: slice | list[int] = slice(None)  # layers of the blocks

    def set(self, images: Softmax, value: Value, penalty_L: Tensor) -> None:
        """For a penalty (L,), at a point; without blocks."""
        curvature_L11, penalty_L11 = (each.float().view(-1, 1, 1) for each in (value.curvature_L, penalty_L))
        curvature_L11 = curvature_L11.clamp_min(1e-8)
        self._penalty_L1F = penalty_L11 * self.penalised_L1F
        self._rest_L1F = 1 / (curvature_L11 * self._variance_L1F + self._penalty_L1F + 1e-30)
        known_L1K = 1 / (curvature_L11 * self._known_L1K + penalty_L11)
        self._more_L1K = known_L1K - self._rest_L1F[..., :1]
        self._blocks_GCFF = None

    def refinement_passes(self, images: Softmax) -> int:
        """What blocks cost: C · F³ for them at a fourth of a matmul's speed, 4 N · C · F for a pass over the images."""
        return round(self._variance_L1F.shape[2] ** 2 / images.n)

    def refine(self, images: Softmax, theta_LCF: Tensor, going: Sequence[int] | None) -> bool:
        """Use blocks for some layers, None for all, until the next penalty; whether they pay."""
        _, classes, numbers = theta_LCF.shape
        pays = classes * numbers**2 <= _BLOCK_NUMBERS and images.n >= _IMAGES_PER_NUMBER * numbers
        if not pays or self._known_LFK.shape[2]:
            return False
        self._of = slice(None) if going is None else list(going)
        self._blocks_GCFF = self._blocks(images, theta_LCF)
        return True

    def _blocks(self, images: Softmax, theta_LCF: Tensor) -> Tensor:
        """Inverses of the blocks, scaled on both sides by the root of the inverse of the diagonal, (G, C, F, F)."""
        most = max(32, _IMAGES_PER_NUMBER * images.n // theta_LCF.shape[2])
        root_L1F = self._rest_L1F.sqrt()
        blocks = []
        for layer in range(len(theta_LCF))[self._of] if isinstance(self._of, slice) else self._of:
            theta_CF, z_NF, root_1F = theta_LCF[layer], images.z_LNF[layer], root_L1F[layer]
            p_CN = torch.softmax(theta_CF @ z_NF.T, 0)
            spread_CN = p_CN.mul_(1 - p_CN)
            top_CM, at_CM = spread_CN.topk(min(most, images.n), 1, sorted=False)
            rest_C1 = (spread_CN.sum(1) - top_CM.sum(1)).clamp_min(0).unsqueeze(1) / images.n
            z_CMF = z_NF[at_CM] * root_1F
            block_CFF = torch.bmm((z_CMF * (top_CM / images.n).unsqueeze(2)).transpose(1, 2), z_CMF)
            diagonal_CF = (rest_C1 * self._variance_L1F[layer] + self._penalty_L1F[layer]) * root_1F.square() + _RIDGE
            block_CFF.diagonal(dim1=1, dim2=2).add_(diagonal_CF)
            blocks.append(torch.cholesky_inverse(torch.linalg.cholesky(block_CFF)))
        return torch.stack(blocks)

    def __call__(self, gradients_LMCF: Tensor) -> Tensor:
        """Times some gradients of each layer."""
        steps_LMCF = gradients_LMCF * self._rest_L1F.unsqueeze(1)
        if self._blocks_GCFF is not None:
            root_G11F = self._rest_L1F[self._of].sqrt().unsqueeze(1)
            scaled_GCFM = (gradients_LMCF[self._of] * root_G11F).permute(0, 2, 3, 1)
            steps_LMCF[self._of] = torch.matmul(self._blocks_GCFF, scaled_GCFM).permute(0, 3, 1, 2) * root_G11F
        elif self._known_LFK.shape[2]:
            along_LPK = torch.bmm(gradients_LMCF.flatten(1, 2), self._known_LFK).mul_(self._more_L1K)
            steps_LMCF.flatten(1, 2).baddbmm_(along_LPK, self._known_LFK.transpose(1, 2))
        return steps_LMCF
