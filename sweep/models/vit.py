"""ViT-T and ViT-T+ of [H24] A.2: patch 8, fixed 2-D sin-cos positions, no class token, mean of the tokens."""

from __future__ import annotations

from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


class SinCosViT(VisionTransformer):
    """timm's vision transformer with a fixed 2-D sin-cos position embedding.

    Parameters
    ----------
    resolution : input side, px; a multiple of 8.
    width : token width; a multiple of 12 (3 heads, 4 parts of the embedding).
    depth : blocks.
    classes : outputs of the head.
    """

    def __init__(self, *, resolution: int, width: int, depth: int, classes: int) -> None:
        super().__init__(
            img_size=resolution,
            patch_size=8,
            embed_dim=width,
            depth=depth,
            num_heads=3,
            num_classes=classes,
            class_token=False,
            global_pool="avg",
            pos_embed="none",
        )
        positions_ND = build_sincos2d_pos_embed(list(self.patch_embed.grid_size), dim=width)
        self.register_buffer("positions_ND", positions_ND, persistent=False)

    def _pos_embed(self, x: Tensor) -> Tensor:
        return super()._pos_embed(x) + self.positions_ND
