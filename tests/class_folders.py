"""A tree of class folders: small images whose classes differ in colour and grain."""

import numpy as np
from PIL import Image


def write_classes(root, *, classes=3, train=12, test=6, side=40, parts=("train", "test"), mode="RGB"):
    """PNG files below ``root/part/class``, or ``root/class`` with ``parts=()``; returns the root."""
    rng = np.random.default_rng(0)
    for part, count in zip(parts or ("",), (train, test), strict=False):
        for label in range(classes):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.normal(size=(side // (label + 1) + 1,) * 2 + (1,)).repeat(label + 1, 0).repeat(label + 1, 1)
                pixels = 110 + 25 * label * np.array([1, 0, -1]) + 40 * noise[:side, :side]
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(folder / f"{number:03d}.png")
    return root
