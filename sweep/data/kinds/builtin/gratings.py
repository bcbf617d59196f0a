"""Gratings and plaids: a class = orientation × spatial frequency (× one or two gratings).

Phase, contrast, colour, noise and a little orientation and frequency vary within a class.

Legend: N images, S side in pixels, U draws of an image.
"""

import numpy as np

from sweep.data.kinds.builtin import canvas
from sweep.data.kinds.builtin.generator import Generator, image_streams
from sweep.data.options import Part

_ORIENTATIONS = 8
_CYCLES = (3.0, 4.5, 6.75)  # per image side
_GRATINGS = _ORIENTATIONS * len(_CYCLES)  # classes below are gratings, those from here on are plaids
_ANGLE_JITTER = 0.3  # of the distance between neighbouring orientations, each side
_CYCLES_JITTER = 0.1  # of the frequency, each side
_NOISE = 0.25
_OWN_DRAWS = 7


def _wave(angle_N: np.ndarray, cycles_N: np.ndarray, phase_N: np.ndarray, size: int) -> np.ndarray:
    """Sinusoids between -1 and 1; shape (N, S, S)."""
    x, y = canvas.pixel_grid(size)
    angle, cycles, phase = (values[:, None, None] for values in (angle_N, cycles_N, phase_N))
    return np.sin(np.pi * cycles * (np.cos(angle) * x + np.sin(angle) * y) + 2 * np.pi * phase)


def render(part: Part, classes_N: np.ndarray, indices_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Grating images; uint8, shape (N, S, S, 3)."""
    draws, noise = [], []
    for rng in image_streams("gratings", seed, part, classes_N, indices_N):
        draws.append(rng.random(_OWN_DRAWS + canvas.DRAWS, dtype=np.float32))
        noise.append(rng.random((size, size, 1), dtype=np.float32))
    u = np.stack(draws)
    jitter = 2 * u[:, :4] - 1
    is_plaid = classes_N >= _GRATINGS
    orientation, frequency = (classes_N % _GRATINGS) % _ORIENTATIONS, (classes_N % _GRATINGS) // _ORIENTATIONS
    step = np.where(is_plaid, np.pi / 2, np.pi) / _ORIENTATIONS  # a plaid looks the same after 90°
    angle = (orientation + _ANGLE_JITTER * jitter[:, 0]) * step
    cycles = np.array(_CYCLES)[frequency] * (1 + _CYCLES_JITTER * jitter[:, 1])
    first = _wave(angle, cycles, u[:, 4], size)
    second = _wave(angle + np.pi / 2, cycles, u[:, 5], size)
    wave = np.where(is_plaid[:, None, None], (first + second) / 2, first)
    amplitude = 0.3 + 0.7 * u[:, 6, None, None]
    alpha = 0.5 + 0.5 * amplitude * wave
    grain = 2 * _NOISE * (np.stack(noise) - 0.5)
    return canvas.paint(u[:, _OWN_DRAWS:], alpha.astype(np.float32), grain, contrast=0.3)


def _class_name(label: int) -> str:
    kind = "plaid" if label >= _GRATINGS else "grating"
    frequency, orientation = divmod(label % _GRATINGS, _ORIENTATIONS)
    degrees = orientation * (90 if kind == "plaid" else 180) / _ORIENTATIONS
    return f"{kind}_{degrees:05.1f}deg_{_CYCLES[frequency]:.2f}cycles"


GRATINGS = Generator(
    name="gratings",
    version=1,
    render=render,
    class_name=_class_name,
    classes=_GRATINGS,
    train_per_class=30,
    test_per_class=20,
    max_classes=2 * _GRATINGS,
)
