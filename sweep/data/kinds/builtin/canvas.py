"""Colours and backgrounds shared by the generators: nothing here may depend on the class.

Legend: N images, S side in pixels, U draws of an image.
"""

import numpy as np

DRAWS = 19  # uniform draws that `paint` uses per image


def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the pixels in [-1, 1]: x and y, float32, shapes (1, S) and (S, 1)."""
    axis = (2.0 * (np.arange(size, dtype=np.float32) + 0.5) / size) - 1.0
    return axis[None, :], axis[:, None]


def _gradient(draws_N3: np.ndarray, first_N3: np.ndarray, second_N3: np.ndarray, size: int) -> np.ndarray:
    """A linear blend of two colours along a random direction; float32 (N, S, S, 3)."""
    x, y = pixel_grid(size)
    angle = 2 * np.pi * draws_N3[:, 0, None, None]
    along = np.cos(angle) * x + np.sin(angle) * y
    t = np.clip(0.5 + along * (0.2 + 0.5 * draws_N3[:, 1, None, None]), 0, 1)[..., None]
    return first_N3[:, None, None] * (1 - t) + second_N3[:, None, None] * t


def paint(draws_NU: np.ndarray, alpha_NSS: np.ndarray, noise_NSSx: np.ndarray, *, contrast: float) -> np.ndarray:
    """Blend a shape onto a background, both in random colour gradients, and add noise.

    Parameters
    ----------
    draws_NU
        float32 in [0, 1), U = ``DRAWS``.
    alpha_NSS
        Opacity of the shape in [0, 1].
    noise_NSSx
        Additive noise in units of the full range, last axis 1 (grey) or 3 (coloured).
    contrast
        Least distance of the two brightness levels, whichever of them is brighter.

    Returns
    -------
    np.ndarray
        uint8, shape (N, S, S, 3).
    """
    size = alpha_NSS.shape[1]
    u = draws_NU.astype(np.float32)
    gap = contrast + (0.8 - contrast) * u[:, 0, None]
    low = 0.1 + (0.8 - gap) * u[:, 1, None]
    swap = u[:, 2, None] < 0.5
    back, front = np.where(swap, low, low + gap), np.where(swap, low + gap, low)
    tint_N43 = 0.35 * (u[:, 3:15].reshape(-1, 4, 3) - 0.5)
    tint_N43 -= tint_N43.mean(axis=2, keepdims=True)  # colour varies, brightness contrast stays
    ground = _gradient(u[:, 15:17], back + tint_N43[:, 0], back + tint_N43[:, 1], size)
    shape = _gradient(u[:, 17:19], front + tint_N43[:, 2], front + tint_N43[:, 3], size)
    image = ground + alpha_NSS[..., None] * (shape - ground) + noise_NSSx
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
