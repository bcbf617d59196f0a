"""Randomness by counting: what an image is given depends on a seed and its position, not on who asked before.

SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195): number n of its stream is a hash of seed + n γ.

Shapes: B images, D draws of each.
"""

from __future__ import annotations

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST = np.uint64(31)
_DROPPED = np.uint64(11)  # a float64 has 53 bits


def draws(seed: int, positions_B: np.ndarray, each: int) -> np.ndarray:
    """float64 (B, D) in [0, 1): image p has the numbers p D to p D + D - 1 of the seed's stream."""
    at_BD = positions_B.astype(np.uint64)[:, None] * np.uint64(each) + np.arange(1, each + 1, dtype=np.uint64)
    return (_mixed(np.uint64(seed) + at_BD * _GAMMA) >> _DROPPED) * 2.0**-53


def _mixed(state: np.ndarray) -> np.ndarray:
    """The generator's finaliser; arithmetic modulo 2⁶⁴."""
    for shift, factor in _ROUNDS:
        state = (state ^ (state >> shift)) * factor
    return state ^ (state >> _LAST)
