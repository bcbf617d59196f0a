"""What a GPU does besides probes: training, several trainings at once, extraction, decoding; and hours of the study."""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from PIL import Image

from sweep.config import Recipe
from sweep.data.decode import decode_image
from sweep.data.images import evaluation_view
from sweep.models import facts
from sweep.study import costs
from sweep.study.check import read_config
from sweep.study.grid import expand
from sweep.study.resolve import sizes
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import Labelled, pretrain

from . import embed, machine, train
from .report import table

AUTHORS_HOURS = 1_161.0  # on four RTX A5000, [H24] App. A.4: all training and probing of the study
PACKED = (1, 2, 4)
EXTRACTION = (
    embed.Case("vggm11", 32, 16_384, batches=(256, 1024)),
    embed.Case("resnet18", 224, 4_096, batches=(128, 256, 512)),
    embed.Case("vit_tiny_patch8", 224, 4_096, batches=(128, 256, 512)),
)
SMALL = (embed.Case("vggm11", 32, 64, width=0.05, batches=(32, 64)),)
_PHOTO = (375, 500)  # pixels of a typical photograph of ImageNet


def run(*, small: bool, cases: Sequence[train.Case] | None = None) -> dict[str, Any]:
    """Measure; ``small`` shows on a CPU that it runs.

    Returns
    -------
    training : as of :func:`tests.bench.train.run`.
    packing : processes that train VGGm-11 at 32 px on one device → images per second of all.
    extraction : as of :func:`tests.bench.embed.measure`, by case.
    decode : images per second of one core, ours and Pillow's decoding alone.
    hours : GPU-hours of training by part of ``paper.yaml``, from the rates of the cases; None where small.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = cases or (train.QUICK if small else train.ON_GPU)
    training = train.run(quick=small, cases=cases)
    packing = {number: packed(cases[0], number) for number in (PACKED[:2] if small else PACKED)}
    extraction = [embed.measure(case, device=device, repeats=1) for case in (SMALL if small else EXTRACTION)]
    hours = None if small else training_hours(training["cases"], cases)
    return {
        "training": training,
        "packing": packing,
        "extraction": extraction,
        "decode": decoding(20 if small else 400),
        "hours": hours,
    }


def packed(case: train.Case, number: int) -> float:
    """Images per second of so many processes that train on one device at once, after an epoch to warm up."""
    context = mp.get_context("spawn")
    barrier, seconds = context.Barrier(number), context.Queue()
    workers = [context.Process(target=_trains, args=(case, barrier, seconds)) for _ in range(number)]
    for worker in workers:
        worker.start()
    longest = max(seconds.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()
    return number * case.turns * case.images / longest


def _trains(case: train.Case, barrier: Barrier, seconds: Any) -> None:
    """Train beside others; all wait for each other after the first epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model, layout = train.model_of(case, device)
    nothing = Labelled(np.empty((0, case.resolution, case.resolution, 3), np.uint8), np.empty(0, np.int64))
    started = 0.0

    def after(history: Sequence[Mapping[str, float]], total: int) -> None:
        nonlocal started
        machine.synchronize(device)
        if len(history) == 1:
            barrier.wait(timeout=300)
            started = time.perf_counter()
        elif len(history) == total:
            seconds.put(time.perf_counter() - started)

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


def decoding(images: int) -> dict[str, float]:
    """Images per second of one core: a photograph's bytes to the view at 224 px, and Pillow's decoding alone."""
    height, width = _PHOTO
    noise = np.random.default_rng(0).normal(size=(height // 8, width // 8, 3)) * 60 + 128
    smooth = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    smooth.save(buffer, "JPEG", quality=90)
    content = buffer.getvalue()

    def ours() -> None:
        for _ in range(images):
            image = decode_image(content)
            assert isinstance(image, Image.Image)
            np.asarray(evaluation_view(image, 224))

    def pillow() -> None:
        for _ in range(images):
            Image.open(io.BytesIO(content)).load()

    seconds = machine.together({"ours": ours, "pillow": pillow}, repeats=3)
    return {name: images / each for name, each in seconds.items()}


def training_hours(measured: Sequence[Mapping[str, Any]], cases: Sequence[train.Case]) -> dict[str, float]:
    """Hours of training of each part of the study at the measured rates: arithmetic over what one GPU achieved.

    A network goes at the rate of the case of its kind: ViT, CNN at most 64 px, CNN above. Several at a time are not
    counted.
    """
    rates = [
        3 * facts.forward_flops(case.architecture, resolution=case.resolution, width=case.width) * found["images_s_on"]
        for case, found in zip(cases, measured, strict=True)
    ]
    small_cnn, large_cnn, vit = rates
    config = read_config(train.machine.ROOT / "configs" / "paper.yaml")
    grid = expand(config, lambda name: sizes(config, name))
    hours: dict[str, float] = defaultdict(float)
    for cell in grid.cells:
        backbone = cell.backbone
        if backbone.recipe is None:
            continue
        is_vit = backbone.architecture.startswith("vit")
        rate = vit if is_vit else small_cnn if backbone.resolution <= 64 else large_cnn
        part = f"{backbone.id_dataset}, {backbone.resolution} px"
        hours[part] += costs.training_flops(config, backbone) / rate / 3600
    return dict(hours)


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
        f"Decoding a photograph of {_PHOTO[1]} × {_PHOTO[0]} px to the view at 224 px, one core: "
        f"{decode['ours']:,.0f} images/s; Pillow's decoding alone {decode['pillow']:,.0f}.",
    ]
    if result["hours"]:
        whole = sum(result["hours"].values())
        hours = [[name, f"{value:.1f}"] for name, value in sorted(result["hours"].items())]
        parts += [
            "GPU-hours of ID training of `configs/paper.yaml` at these rates (`on`, one at a time; ViT, CNN up "
            f"to 64 px and CNN above by the case of its kind): {whole:.0f}; the authors report {AUTHORS_HOURS:,.0f} "
            "hours on four RTX A5000 for everything.",
            table(["part", "GPU-hours"], [*hours, ["all", f"{whole:.1f}"]]),
        ]
    return "\n\n".join(parts)
