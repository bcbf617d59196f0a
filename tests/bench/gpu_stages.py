"""What a GPU does besides probes: training, several trainings at once, extraction, decoding."""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from sweep.config import Recipe
from sweep.data.decode import decode_image
from sweep.data.shown import evaluation_view
from sweep.data.view import study_view
from sweep.models import facts
from sweep.train.beside import at_once
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import Labelled, pretrain

from . import embed, machine, paper, train
from .photos import SIZE, jpeg, photograph
from .report import table

PACKED = (1, 2, 4)
EXTRACTION = (
    embed.Case("vggm11", 32, 16_384, batches=(256, 1024)),
    embed.Case("resnet18", 224, 4_096, batches=(128, 256, 512)),
    embed.Case("vit_tiny_patch8", 224, 4_096, batches=(128, 256, 512)),
    embed.Case("resnet18", 224, 4_096, batches=(128, 256, 512), precision="tf32"),
)
SMALL = (embed.Case("vggm11", 32, 64, width=0.05, batches=(32, 64)),)


def run(
    *, small: bool, cases: Sequence[train.Case] | None = None, packing: Sequence[int] | None = None
) -> dict[str, Any]:
    """Measure; ``small`` shows on a CPU that it runs.

    Parameters
    ----------
    cases, packing : of training, and processes that train at a time, where not those of ``small``.

    Returns
    -------
    training : as of :func:`tests.bench.train.run`.
    packing : processes that train the first case's network on one device → images per second of all.
    extraction : as of :func:`tests.bench.embed.measure`, by case.
    decode : images per second of one core, ours and Pillow's decoding alone.
    operations : a second of ``training`` with ``on`` and of ``extraction``, by case.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = cases or (train.SMALL if small else train.ON_GPU)
    embedded = SMALL if small else EXTRACTION
    training = train.run(quick=small, cases=cases)
    together = {number: packed(cases[0], number) for number in packing or (PACKED[:2] if small else PACKED)}
    extraction = [embed.measure(case, device=device, repeats=1) for case in embedded]
    return {
        "training": training,
        "packing": together,
        "extraction": extraction,
        "decode": decoding(20 if small else 400),
        "operations": {
            "training": [
                _operations(case, found["images_s_on"], passes=3)
                for case, found in zip(cases, training["cases"], strict=True)
            ],
            "extraction": [
                _operations(case, 1e3 / found["extract_ms"], passes=1)
                for case, found in zip(embedded, extraction, strict=True)
            ],
        },
    }


def packed(case: train.Case, number: int) -> float:
    """Images per second of so many processes that train on one device at once, after an epoch to warm up."""
    return number * case.turns * case.images / at_once(functools.partial(_trains, case), number)


def _trains(case: train.Case, ready: Callable[[], None]) -> float:
    """Seconds of all epochs but the first; ``ready`` is called after that."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model, layout = train.model_of(case, device)
    nothing = Labelled(np.empty((0, case.resolution, case.resolution, 3), np.uint8), np.empty(0, np.int64))
    started = ended = 0.0

    def after(history: Sequence[Mapping[str, float]], total: int) -> None:
        nonlocal started, ended
        machine.synchronize(device)
        if len(history) == 1:
            ready()
            started = time.perf_counter()
        ended = time.perf_counter()

    pretrain(
        model,
        train.images(case, "off", workers=0),
        heldout=nothing,
        test=nothing,
        recipe=Recipe(
            epochs=case.turns + 1,
            warmup_epochs=0,
            batch_size=case.batch_size,
            checkpoint_on="last",
            precision=train.precision(device),
        ),
        key="bench",
        mean=train.MEAN,
        std=train.STD,
        device=device,
        checkpoints=Checkpoints(load=lambda: None, save=lambda _state: None),
        on_epoch=after,
        layout=layout,
    )
    return ended - started


def decoding(images: int) -> dict[str, float]:
    """Images per second of one core: a photograph's bytes to the view at 224 px, and Pillow's decoding alone."""
    content, view = jpeg(photograph(0)), study_view(224)

    def ours() -> None:
        for _ in range(images):
            image = decode_image(content)
            assert isinstance(image, Image.Image)
            np.asarray(evaluation_view(image, view))

    def pillow() -> None:
        for _ in range(images):
            Image.open(io.BytesIO(content)).load()

    seconds = machine.together({"ours": ours, "pillow": pillow}, repeats=3)
    return {name: images / each for name, each in seconds.items()}


def _operations(case: train.Case | embed.Case, images_s: float, *, passes: int) -> float:
    """Operations a second of a case's network; a step of training is three passes."""
    return passes * images_s * facts.forward_flops(case.architecture, resolution=case.resolution, width=case.width)


def rates(measured: Mapping[str, Any], probes: tuple[paper.Work, float]) -> paper.Rates:
    """Operations a second by kind of network: those of the case of the kind, or of the last case there is.

    Parameters
    ----------
    measured : what :func:`run` found.
    probes : work and seconds of one curve's.
    """
    by_kind = [
        dict(zip(paper.KINDS, (*of, *(of[-1:] * 3)), strict=False))
        for of in (measured["operations"][name] for name in ("training", "extraction"))
    ]
    return paper.Rates(*by_kind, probes)


def markdown(result: Mapping[str, Any]) -> str:
    """The stages one after the other."""
    extraction = [
        [case["name"], f"{1e3 / case['extract_ms']:,.0f}", f"{1e3 / case['bare_ms']:,.0f}", f"{case['ratio']:.3f}"]
        for case in result["extraction"]
    ]
    packing = [[str(number), f"{rate:,.0f}"] for number, rate in result["packing"].items()]
    decode = result["decode"]
    parts = [
        "Training:",
        train.markdown(result["training"]),
        "Several trainings of the first backbone at a time, each a process, augmentation off:",
        table(["trainings at a time", "images/s of all"], packing),
        "Extraction of all layers against the bare forward pass at its best batch size and layout:",
        table(["backbone", "images/s", "bare, images/s", "ratio"], extraction),
        f"Decoding a photograph of {SIZE[1]} × {SIZE[0]} px to the view at 224 px, one core: "
        f"{decode['ours']:,.0f} images/s; Pillow's decoding alone {decode['pillow']:,.0f}.",
    ]
    return "\n\n".join(parts)
