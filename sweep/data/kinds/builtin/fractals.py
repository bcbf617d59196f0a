"""Fractal images: a class is an iterated function system, as in FractalDB (Kataoka et al. 2020).

The class fixes a few contractive affine maps; the chaos game applies them at random, each as often as its
area factor (its determinant). An instance jitters the maps and draws a view (rotation, flip, scale, shift), colours and
background, so that neither colour nor any one pixel tells the class.

Legend: N images, M maps of a system, P points moved in parallel, T steps, S side in pixels.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from sweep.data.kinds.builtin import canvas
from sweep.data.kinds.builtin.generator import Generator, image_streams, stream
from sweep.data.options import Part

_MAX_MAPS = 6
_BURN_IN, _KEPT_STEPS = 14, 24
_TABLE = 256  # a random byte looks up the next map
_POINTS_PER_PIXEL = 1.2
_FILL = (0.12, 0.55)  # share of a 32 × 32 view that a class must reach: neither dust nor a blob
_JITTER = 0.045  # of each map entry, each side
_ROTATION = math.radians(18)  # each side
_NOISE = 0.06


@dataclass(frozen=True)
class _System:
    """Maps as rows (a, b, c, d, e, f): x' = ax + by + e, y' = cx + dy + f; and the byte → map table."""

    maps_M6: np.ndarray
    table: np.ndarray


def _draw_system(rng: np.random.Generator) -> _System:
    """Random rotations around random stretches below one: contractive whatever is drawn."""
    count = int(rng.integers(2, _MAX_MAPS + 1))
    angles = rng.uniform(-math.pi, math.pi, (count, 2))
    stretch = np.sort(rng.uniform(0.25, 0.85, (count, 2)), axis=1) * rng.choice([-1.0, 1.0], (count, 2))
    (ca, cb), (sa, sb) = np.cos(angles).T, np.sin(angles).T
    p, q = stretch.T
    linear = [
        ca * p * cb - sa * q * sb,
        -ca * p * sb - sa * q * cb,
        sa * p * cb + ca * q * sb,
        ca * q * cb - sa * p * sb,
    ]
    shift = rng.uniform(-1, 1, (2, count))
    area = np.abs(p * q) + 0.02
    edges = np.floor(np.cumsum(area / area.sum()) * _TABLE + 0.5).astype(int)
    table = np.searchsorted(edges, np.arange(_TABLE), side="right").clip(max=count - 1)
    maps = np.zeros((_MAX_MAPS, 6), dtype=np.float32)
    maps[:count] = np.stack([*linear, *shift], axis=1)
    return _System(maps, table.astype(np.int32))


@functools.lru_cache(maxsize=4096)
def _system(seed: int, label: int) -> _System:
    """The first system of the class's own stream whose attractor fills a sensible part of its box."""
    rng = stream("fractals", seed, "class", label)
    while True:
        system = _draw_system(rng)
        choices = rng.integers(0, _TABLE, (1, _BURN_IN + _KEPT_STEPS, 100), dtype=np.uint8)
        xy = _chaos_game(system.maps_M6[None], system.table[None], choices)
        counts = _histogram(_frame(xy), 32)
        if _FILL[0] <= np.count_nonzero(counts) / counts.size <= _FILL[1]:
            return system


def _chaos_game(maps_NM6: np.ndarray, table_NB: np.ndarray, choices_NTP: np.ndarray) -> np.ndarray:
    """Points of the attractors; float32, shape (2, T kept, N, P)."""
    n, steps, points = choices_NTP.shape
    coefficients = [np.ascontiguousarray(maps_NM6[:, :, k]).reshape(-1) for k in range(6)]
    flat_table = (table_NB + _MAX_MAPS * np.arange(n, dtype=np.int32)[:, None]).reshape(-1)
    row_N1 = _TABLE * np.arange(n, dtype=np.int32)[:, None]
    x = np.zeros((n, points), dtype=np.float32)
    y = np.zeros_like(x)
    kept = np.empty((2, steps - _BURN_IN, n, points), dtype=np.float32)
    for step in range(steps):
        which = flat_table[row_N1 + choices_NTP[:, step]]
        a, b, c, d, e, f = (values[which] for values in coefficients)
        x, y = a * x + b * y + e, c * x + d * y + f
        if step >= _BURN_IN:
            kept[0, step - _BURN_IN], kept[1, step - _BURN_IN] = x, y
    return kept


def _frame(xy: np.ndarray) -> np.ndarray:
    """Move and scale each image's points into the box [-1, 1]², aspect kept."""
    low, high = xy.min(axis=(1, 3), keepdims=True), xy.max(axis=(1, 3), keepdims=True)
    half = np.maximum((high - low).max(axis=0, keepdims=True) / 2, 1e-6)
    return (xy - (low + high) / 2) / half


def _histogram(xy: np.ndarray, size: int) -> np.ndarray:
    """Points per pixel, shape (N, S, S); points outside [-1, 1)² are not counted."""
    n = xy.shape[2]
    column, row = np.floor((xy + 1) * (size / 2)).astype(np.int32)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    pixel = (np.arange(n, dtype=np.int32)[:, None] * size + row) * size + column
    return np.bincount(pixel[inside], minlength=n * size * size).reshape(n, size, size)


def _view(xy: np.ndarray, draws_N5: np.ndarray) -> np.ndarray:
    """Rotate a little, mirror, scale to 70–95 % of the frame, shift within it."""
    u = draws_N5.T[:, None, :, None]
    angle = _ROTATION * (2 * u[0] - 1)
    cos, sin = np.cos(angle), np.sin(angle)
    flip = np.where(u[1] < 0.5, -1, 1)
    turned = np.stack([cos * flip * xy[0] - sin * xy[1], sin * flip * xy[0] + cos * xy[1]])
    scale = 0.7 + 0.25 * u[2]
    return _frame(turned) * scale + (1 - scale) * (2 * u[3:5] - 1)


def render(part: Part, classes_N: np.ndarray, indices_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Fractal images; uint8, shape (N, S, S, 3)."""
    systems = [_system(seed, label) for label in classes_N.tolist()]
    points = math.ceil(_POINTS_PER_PIXEL * size * size / _KEPT_STEPS)
    draws, jitter, choices, noise = [], [], [], []
    for rng in image_streams("fractals", seed, part, classes_N, indices_N):
        draws.append(rng.random(5 + 1 + canvas.DRAWS, dtype=np.float32))
        jitter.append(rng.random((_MAX_MAPS, 6), dtype=np.float32))
        choices.append(rng.integers(0, _TABLE, (_BURN_IN + _KEPT_STEPS, points), dtype=np.uint8))
        noise.append(rng.random((size, size, 1), dtype=np.float32))
    draws_NU = np.stack(draws).astype(np.float32)
    maps = np.stack([system.maps_M6 for system in systems])
    maps = maps + np.float32(_JITTER) * (2 * np.stack(jitter) - 1) * (maps != 0)
    table = np.stack([system.table for system in systems])
    xy = _view(_frame(_chaos_game(maps, table, np.stack(choices))), draws_NU[:, :5])
    density = _histogram(xy, size).astype(np.float32)
    alpha = 1 - np.exp(-density * (0.5 + draws_NU[:, 5, None, None]))
    speckle = _NOISE * 2 * (np.stack(noise) - 0.5)
    return canvas.paint(draws_NU[:, 6:], alpha, speckle, contrast=0.3)


FRACTALS = Generator(
    name="fractals",
    version=1,
    render=render,
    class_name=lambda label: f"system{label:04d}",
    classes=100,
    train_per_class=200,
    test_per_class=20,
)
