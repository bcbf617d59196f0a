"""What a descent has learned of the curvature: L-BFGS in a given metric, in its compact form.

The compact form (Byrd, Nocedal and Schnabel 1994) reads the remembered steps twice per iteration, however many they
are. Its triangular matrix is kept as its inverse, to which a new step adds a column: nothing is solved or sorted, and a
step lies where the oldest was. A change of the penalty changes what is remembered in closed form, so that the next
penalty starts with what the last one learned.

Shapes: L layers, C classes, F coordinates, P = C · F, M places for steps, the last for steps that are not remembered.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sweep.probes.inverse import Inverse
from sweep.probes.small import Small, library, small

STEPS = 16


class Memory:
    """The last steps of each layer, and how its gradient changed along them.

    Parameters
    ----------
    like_LCF : a gradient.
    inverse : of the metric; it changes, see :meth:`rebase`.
    """

    def __init__(self, like_LCF: Tensor, inverse: Inverse) -> None:
        (layers, classes, numbers), places, device = like_LCF.shape, STEPS + 1, like_LCF.device
        self._inverse, self._shape = inverse, like_LCF.shape
        # steps, then changes of the gradient times the inverse: one matmul for both
        self._both_LXP = like_LCF.new_zeros(layers, 2 * places, classes * numbers)
        self._steps_LMP, self._turned_LMP = self._both_LXP[:, :places], self._both_LXP[:, places:]
        self._changes_LMP = torch.zeros_like(self._turned_LMP)
        small_LMM = like_LCF.new_zeros(layers, places, places, dtype=torch.float64)
        self._back_LMM, self._norms_LMM = small(small_LMM), small(small_LMM.clone())  # see _learn
        self._product_LM = small(small_LMM[:, 0].clone())
        self._scale_L = small(small_LMM.new_ones(layers))
        self._count_L = small(torch.zeros(layers, dtype=torch.int64, device=device))
        self._first_L = small(torch.arange(layers, device=device))

    def advance(
        self, taken_L: Small, step_LCF: Tensor, change_LCF: Tensor, turned_LCF: Tensor, after: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Remember the steps of some layers, each in place of its oldest, and give the next direction of all.

        Parameters
        ----------
        taken_L : layers that took a step; of the others nothing changes.
        change_LCF, turned_LCF : of the gradient along the step, and this times the inverse.
        after : the gradient there, and this times the inverse.
        """
        at_L = library(taken_L).where(taken_L, self._count_L % STEPS, STEPS)
        self._count_L += taken_L
        self._put(self._both_LXP, at_L, step_LCF)
        self._put(self._both_LXP, at_L + STEPS + 1, turned_LCF)
        self._put(self._changes_LMP, at_L, change_LCF)
        pair_L2P = torch.stack([change_LCF.flatten(1), after[0].flatten(1)], 1)
        # two rows at once: a single one would be rounded otherwise where there are other layers
        dots_L2X = small(torch.bmm(pair_L2P, self._both_LXP.transpose(1, 2)).double())
        self._learn(taken_L, at_L, dots_L2X[:, 0, : STEPS + 1], dots_L2X[:, 0, STEPS + 1 :])
        return self._direction(dots_L2X[:, 1, : STEPS + 1], dots_L2X[:, 1, STEPS + 1 :], after[1])

    def _put(self, stack_LXP: Tensor, at_L: Small, rows_LCF: Tensor) -> None:
        rows_L = torch.as_tensor(self._first_L * stack_LXP.shape[1] + at_L)
        stack_LXP.view(-1, stack_LXP.shape[2]).index_copy_(0, rows_L, rows_LCF.flatten(1))

    def _learn(self, taken_L: Small, at_L: Small, along_LM: Small, norms_LM: Small) -> None:
        """Of the newest step: products of all steps, and of all turned changes, with the change of the gradient.

        R holds products of older steps with newer changes; ``_back_LMM`` is its inverse, nought for what is no step
        (all that is uphill), ``_norms_LMM`` the changes' products in the inverse's metric.
        """
        where, layer_L = library(taken_L).where, self._first_L
        product_L, norm_L = along_LM[layer_L, at_L], norms_LM[layer_L, at_L]
        good_L = taken_L & (product_L > 0)
        part_L = where(good_L, 1 / product_L, 0.0)
        along_LM[layer_L, at_L] = 0
        self._back_LMM[layer_L, at_L] = 0
        column_LM = (self._back_LMM @ along_LM[..., None])[..., 0] * -part_L[:, None]
        column_LM[layer_L, at_L] = part_L
        self._back_LMM[layer_L, :, at_L] = column_LM
        self._norms_LMM[layer_L, at_L] = norms_LM
        self._norms_LMM[layer_L, :, at_L] = norms_LM
        self._product_LM[layer_L, at_L] = where(good_L, product_L, 0.0)
        self._scale_L = where(good_L & (norm_L > 0), product_L / norm_L, self._scale_L)

    def rebase(self, more_L: Tensor) -> None:
        """Penalties have grown by so much, and the inverse has changed: as if all steps had been made under these."""
        layers, places, _ = self._changes_LMP.shape
        shape = (layers, places, *self._shape[1:])
        more_LMCF = more_L.float().view(-1, 1, 1, 1) * self._inverse.penalised_L1F.unsqueeze(1)
        self._changes_LMP += (self._steps_LMP.reshape(shape) * more_LMCF).flatten(2)
        self._turned_LMP.copy_(self._inverse(self._changes_LMP.view(shape)).flatten(2))
        products_LXM = torch.bmm(self._both_LXP, self._changes_LMP.transpose(1, 2)).double()
        products_LMM, norms_LMM = products_LXM.split(places, 1)
        count_L, before_LM = torch.as_tensor(self._count_L), torch.as_tensor(self._product_LM)
        places_M = torch.arange(places, device=count_L.device)
        diagonal_LM = products_LMM.diagonal(dim1=1, dim2=2)
        good_LM = (diagonal_LM > 0) & (places_M < STEPS) & (before_LM > 0)
        product_LM = torch.where(good_LM, diagonal_LM, 0)
        age_LM = (places_M - count_L.unsqueeze(1)) % STEPS  # the oldest is 0
        pair_LMM = good_LM.unsqueeze(1) & good_LM.unsqueeze(2)
        older_LMM = age_LM.unsqueeze(2) <= age_LM.unsqueeze(1)
        blank_LMM = torch.diag_embed((~good_LM).double())
        triangle_LMM = torch.where(pair_LMM & older_LMM, products_LMM, 0) + blank_LMM
        newest_L1 = ((count_L - 1) % STEPS).unsqueeze(1)
        norm_L1 = norms_LMM.diagonal(dim1=1, dim2=2).gather(1, newest_L1)
        product_L1 = product_LM.gather(1, newest_L1)
        better_L = ((product_L1 > 0) & (norm_L1 > 0)).squeeze(1)
        scale_L = torch.where(better_L, (product_L1 / norm_L1).squeeze(1), torch.as_tensor(self._scale_L))
        self._back_LMM = small(torch.linalg.inv_ex(triangle_LMM).inverse * pair_LMM)
        self._norms_LMM, self._product_LM, self._scale_L = small(norms_LMM.clone()), small(product_LM), small(scale_L)

    def descent(self, gradient_LCF: Tensor, turned_LCF: Tensor) -> Tensor:
        """Minus the gradient, times the inverse Hessian as the metric and the remembered steps show it.

        Parameters
        ----------
        turned_LCF : the gradient times the metric's inverse.
        """
        gradient_L2P = gradient_LCF.flatten(1).unsqueeze(1).expand(-1, 2, -1)
        dots_L2X = small(torch.bmm(gradient_L2P, self._both_LXP.transpose(1, 2)).double())
        return self._direction(dots_L2X[:, 0, : STEPS + 1], dots_L2X[:, 0, STEPS + 1 :], turned_LCF)

    def _direction(self, along_LM: Small, across_LM: Small, turned_LCF: Tensor) -> Tensor:
        """Byrd et al., eq. 3.1, from the gradient's products with the steps and with the turned changes."""
        scale_L1 = self._scale_L[:, None]
        u_LM = (self._back_LMM @ along_LM[..., None])[..., 0]
        inner_LM = self._product_LM * u_LM + scale_L1 * ((self._norms_LMM @ u_LM[..., None])[..., 0] - across_LM)
        on_steps_LM = (inner_LM[:, None] @ self._back_LMM)[:, 0]
        on_both_LX = torch.as_tensor(library(u_LM).concatenate([on_steps_LM, -scale_L1 * u_LM], 1)).float()
        down_L1P = (turned_LCF.flatten(1) * torch.as_tensor(-scale_L1).float()).unsqueeze(1)
        return down_L1P.baddbmm_(on_both_LX.unsqueeze(1), self._both_LXP, alpha=-1).view(self._shape)
