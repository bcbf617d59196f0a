"""Files to views in the cache, by 1 and 2 processes, against what Pillow takes for the same and for decoding alone.

Files are hard links to a few distinct JPEG in a real folder: it is read as any other, and takes no room.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sweep.data.dataset import Dataset
from sweep.data.decode import decode_image
from sweep.data.decoded import Decoding
from sweep.data.images import evaluation_images
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from sweep.data.shown import evaluation_view
from sweep.data.view import study_view

from . import machine
from .photos import SIZE, jpeg, photograph
from .report import table

_DISTINCT, _BARE = 48, 480  # files that differ, and how many are decoded to time a loop without a cache
RESOLUTIONS, PROCESSES, DRAFTED = (224, 32), (1, 2), (32, 64, 128)


def run(*, quick: bool, images: int | None = None, resolutions: Sequence[int] = RESOLUTIONS) -> dict[str, Any]:
    """Measure.

    Returns
    -------
    images, bytes : how many files, and the size of one on average.
    cases : by resolution: ``resolution``; images/s of the cache by number of processes (``ours``); of a loop of Pillow
        alone in one process (``loop``); ``ratio`` of our time in one process to it; ``speed_up`` of two processes.
    drafts : by resolution, what JPEG's own downscaling (``draft``, to twice the size or more, or to once) would bring:
        images/s of a loop with it, and how far grey values are from those without: ``mean`` and ``largest`` difference.
    decoders : images/s of decoding alone in one process, by decoder, and whether its pixels are Pillow's.
    """
    images = images or (600 if quick else 20_000)
    contents = [jpeg(photograph(seed)) for seed in range(_DISTINCT)]
    with tempfile.TemporaryDirectory(prefix="bench-decode-") as directory:
        dataset = folder(Path(directory), contents, images)
        cases = [_measured(dataset, contents, resolution, Path(directory)) for resolution in resolutions]
    sizes = [len(content) for content in contents]
    return {
        "images": images,
        "bytes": sum(sizes) / len(sizes),
        "cases": cases,
        "drafts": [drafted(contents, resolution, least) for resolution in DRAFTED for least in (2, 1)],
        "decoders": decoders(contents),
    }


def folder(directory: Path, contents: Sequence[bytes], images: int) -> Dataset:
    """So many files in two classes, opened."""
    sources = []
    for number, content in enumerate(contents):
        sources.append(directory / f"distinct-{number}.jpg")
        sources[-1].write_bytes(content)
    for part, count in (("train", images), ("test", 2)):
        for label in ("a", "b"):
            (directory / "set" / part / label).mkdir(parents=True)
        for number in range(count):
            own = directory / "set" / part / "ab"[number % 2] / f"{number:06d}.jpg"
            os.link(sources[number % len(sources)], own)
    options = DatasetOptions("folder", path=str(directory / "set"))
    return open_dataset("photographs", options, cache_dir=directory / "listings")


def _measured(dataset: Dataset, contents: Sequence[bytes], resolution: int, directory: Path) -> dict[str, Any]:
    rates, digests = {}, set()
    for processes in PROCESSES:
        seconds, digest = decoded(dataset, resolution, processes, directory / "cache")
        rates[str(processes)], digests = len(dataset.train) / seconds, digests | {digest}
    assert len(digests) == 1, "pixels depend on the number of processes"
    bare = loop(contents, resolution)
    return {
        "resolution": resolution,
        "ours": rates,
        "loop": bare,
        "ratio": bare / rates["1"],
        "speed_up": rates["2"] / rates["1"],
    }


def decoded(dataset: Dataset, resolution: int, processes: int, cache_dir: Path) -> tuple[float, str]:
    """Seconds of decoding the training part into an empty cache, and a digest of its pixels."""
    indices_N = np.arange(len(dataset.train))
    started = time.perf_counter()
    images = evaluation_images(
        dataset, "train", indices_N, view=study_view(resolution), cache_dir=cache_dir, how=Decoding(processes)
    )
    seconds = time.perf_counter() - started
    digest = hashlib.sha256(memoryview(images.images_NHWC).cast("B")).hexdigest()
    shutil.rmtree(cache_dir)
    return seconds, digest


def loop(contents: Sequence[bytes], resolution: int) -> float:
    """Images per second of Pillow alone: decoded and shown, one after the other, kept nowhere."""
    view = study_view(resolution)
    started = time.perf_counter()
    for number in range(_BARE):
        with Image.open(io.BytesIO(contents[number % len(contents)])) as image:
            np.asarray(evaluation_view(image.convert("RGB"), view))
    return _BARE / (time.perf_counter() - started)


def drafted(contents: Sequence[bytes], resolution: int, least: int) -> dict[str, Any]:
    """Downscaling among a JPEG's frequencies to no less than so many times the resized image, then as always."""
    view = study_view(resolution)

    def seen(content: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(content)) as image:
            image.draft(None, (least * view.side, least * view.side))
            return np.asarray(evaluation_view(image.convert("RGB"), view))

    started = time.perf_counter()
    drafts = [seen(contents[number % len(contents)]) for number in range(_BARE)]
    rate = _BARE / (time.perf_counter() - started)
    full = [np.asarray(evaluation_view(Image.fromarray(_pillow(content)), view)) for content in contents]
    apart = [np.abs(one.astype(int) - other.astype(int)) for one, other in zip(drafts, full, strict=False)]
    mean, largest = float(np.mean(apart)), max(int(each.max()) for each in apart)
    return {"resolution": resolution, "least": least, "images_s": rate, "mean": mean, "largest": largest}


def decoders(contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """Decoding alone, by what is installed here: images/s, and whether every pixel is Pillow's."""
    reference = [_pillow(content) for content in contents]
    found = {"Pillow": _pillow, "torchvision": _torchvision(), "simplejpeg": _simplejpeg()}
    there = {name: decode for name, decode in found.items() if decode is not None}

    def all_of(decode: Callable[[bytes], np.ndarray]) -> Callable[[], None]:
        def once() -> None:
            for number in range(_BARE):
                decode(contents[number % len(contents)])

        return once

    seconds = machine.together({name: all_of(decode) for name, decode in there.items()}, repeats=3)
    return [
        {
            "name": name,
            "images_s": _BARE / seconds[name],
            "same": all(np.array_equal(decode(c), r) for c, r in zip(contents, reference, strict=True)),
        }
        for name, decode in there.items()
    ]


def _pillow(content: bytes) -> np.ndarray:
    image = decode_image(content)
    assert isinstance(image, Image.Image)
    return np.asarray(image)


def _torchvision() -> Callable[[bytes], np.ndarray] | None:
    """libjpeg-turbo by torchvision, as long as it has it: newer versions say that they will leave it to another."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None

    def decoded(content: bytes) -> np.ndarray:
        raw = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with warnings.catch_warnings(action="ignore"):
            pixels: torch.Tensor = decode_jpeg(raw, ImageReadMode.RGB)
        return pixels.permute(1, 2, 0).contiguous().numpy()

    return decoded


def _simplejpeg() -> Callable[[bytes], np.ndarray] | None:
    """libjpeg-turbo without Pillow around it, if it is installed: ``pip install simplejpeg``."""
    try:
        library = importlib.import_module("simplejpeg")
    except ImportError:
        return None
    return lambda content: library.decode_jpeg(content, "RGB")


def markdown(result: Mapping[str, Any]) -> str:
    """A row for each resolution, and one for each decoder."""
    rows = [
        [
            f"{case['resolution']} px",
            *(f"{case['ours'][str(processes)]:,.0f}" for processes in PROCESSES),
            f"{case['speed_up']:.2f}",
            f"{case['loop']:,.0f}",
            f"{case['ratio']:.2f}",
        ]
        for case in result["cases"]
    ]
    drafts = [
        [
            f"{each['resolution']} px",
            f"{each['least']} ×",
            f"{each['images_s']:,.0f}",
            f"{each['mean']:.2f}",
            str(each["largest"]),
        ]
        for each in result["drafts"]
    ]
    others = [
        [each["name"], f"{each['images_s']:,.0f}", "yes" if each["same"] else "no"] for each in result["decoders"]
    ]
    height, width = SIZE
    return "\n".join(
        [
            f"{result['images']:,} JPEG files of {width} × {height} px, {result['bytes'] / 1000:.0f} kB on average, to "
            "evaluation views in the cache, written and flushed; images/s. The loop is Pillow's decoding and resizing "
            "in one process, nothing read or written; ratio: our time in one process ÷ its.",
            "",
            table(["view", "1 process", "2 processes", "speed-up", "Pillow's loop", "ratio"], rows),
            "",
            "JPEG's own downscaling (`draft`) before the resize, which the product does not use: other grey values.",
            "",
            table(["view", "at least", "images/s", "mean difference", "largest"], drafts),
            "",
            "Decoding alone to full size, one process:",
            "",
            table(["decoder", "images/s", "pixels are Pillow's"], others),
        ]
    )
