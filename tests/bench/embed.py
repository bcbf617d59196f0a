"""Extraction of all layers against the bare forward pass of the same full-width model on ready-made input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sweep.base.arithmetic import arithmetic
from sweep.config import ExtractionPrecision
from sweep.embed.extract import batch_size, embed
from sweep.models import Feeder
from sweep.models.build import build_backbone
from sweep.models.layers import probed_layers

from . import machine
from .report import table

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_REPEATS = 3
TARGET = {"cpu": 1.10, "cuda": 1.15}


@dataclass(frozen=True)
class Case:
    """A full-width backbone and how many images it is given."""

    architecture: str
    resolution: int
    images: int
    width: float = 1.0
    batches: tuple[int, ...] = (16, 32, 64, 128, 256)  # sizes tried for the bare pass
    precision: ExtractionPrecision = "float32"

    @property
    def name(self) -> str:
        """Backbone, resolution, and precision where that is not all bits of float32."""
        precision = "" if self.precision == "float32" else f"-{self.precision}"
        return f"{self.architecture}-{self.resolution}px{precision}"


STUDY = [
    Case("vggm17", 32, 512),
    Case("vggm11_dagger", 32, 256, batches=(32, 64, 128)),
    Case("resnet34", 64, 512),
    Case("vit_tiny_plus_patch8", 64, 512),
    Case("resnet18", 224, 64, batches=(4, 8, 16, 32, 64)),
    Case("vit_tiny_patch8", 224, 32, batches=(4, 8, 16, 32)),
]
QUICK = [Case("vggm11", 32, 128, batches=(64, 128)), Case("resnet18", 64, 64, batches=(32, 64))]


def run(*, quick: bool, cases: Sequence[Case] | None = None) -> dict[str, Any]:
    """Measure all cases on the GPU if there is one, else on CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = cases if cases is not None else QUICK if quick else STUDY
    measured = [measure(case, device=device, repeats=2 if quick else _REPEATS) for case in cases]
    worst = max(case["ratio"] for case in measured)
    bound = TARGET[device.type]
    target = {"text": f"extraction ÷ bare forward pass, {device.type}", "bound": bound, "value": worst}
    return {"cases": measured, "targets": [target | {"met": worst <= bound}]}


def measure(case: Case, *, device: torch.device, repeats: int) -> dict[str, Any]:
    """One backbone.

    Returns
    -------
    layers, batch : probed layers, and images of one pass of the extraction.
    extract_ms : extraction of all layers per image, from uint8 images to float16 embeddings in host memory.
    bare_ms : the forward pass alone per image, float input ready on the device, at its best batch size and layout,
        in turns with the extraction.
    bare_by_batch_ms : for each batch size, the better of both layouts.
    bare_layout, bare_batch : "channels last" or "channels first", and images of one pass, of the best.
    ratio : of extraction to the bare pass, the median over turns.
    ratio_same_batch : extract_ms over the bare pass with the extraction's own batches.
    """
    model = build_backbone(case.architecture, classes=100, resolution=case.resolution, width=case.width)
    model = model.eval().to(device)
    layers = probed_layers(model, resolution=case.resolution)
    shape = (case.images, case.resolution, case.resolution, 3)
    images_NHWC = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    feeder = Feeder(MEAN, STD, device=device, layout=torch.channels_last)
    ready_NCHW = feeder.normalized(torch.from_numpy(images_NHWC).to(device))
    own = batch_size(layers, case.resolution, device)
    sizes = sorted({min(size, case.images) for size in (*case.batches, own)})
    runs: dict[str, Callable[[], object]] = {}
    for layout, memory in (("first", torch.contiguous_format), ("last", torch.channels_last)):
        bare, bare_NCHW = deepcopy(model).to(memory_format=memory), ready_NCHW.contiguous(memory_format=memory)
        runs |= {f"{layout} {size}": _bare(bare, bare_NCHW, size, device, case.precision) for size in sizes}
    runs[f"last {sizes[-1]}"]()
    seconds = machine.together(runs, repeats=repeats)
    best = min(seconds, key=lambda name: seconds[name])
    # the best of many noisy times is too good: extraction meets the best bare pass in a race of two
    extracting = partial(embed, model, layers, images_NHWC, mean=MEAN, std=STD, device=device, precision=case.precision)
    extracting()
    extract, bare, ratio = machine.race(extracting, runs[best], turns=4 * repeats)
    by_size = {size: min(seconds[f"{layout} {size}"] for layout in ("first", "last")) for size in sizes}
    return {
        "name": case.name,
        "layers": len(layers),
        "batch": own,
        "extract_ms": 1e3 * extract / case.images,
        "bare_ms": 1e3 * bare / case.images,
        "bare_by_batch_ms": {str(size): 1e3 * value / case.images for size, value in by_size.items()},
        "bare_layout": f"channels {best.split()[0]}",
        "bare_batch": int(best.split()[1]),
        "ratio": ratio,
        "ratio_same_batch": extract / by_size[min(own, case.images)],
    }


def _bare(
    model: nn.Module, ready_NCHW: Tensor, size: int, device: torch.device, precision: ExtractionPrecision
) -> Callable[[], None]:
    @torch.inference_mode()
    def forward() -> None:
        with arithmetic(device, precision):
            for batch_BCHW in ready_NCHW.split(size):
                model(batch_BCHW)
        machine.synchronize(device)

    return forward


def markdown(result: dict[str, Any]) -> str:
    """Tables of ratios, and of the bare pass by batch size, which the extraction's batch rule follows."""
    (target,) = result["targets"]
    rows = [
        [
            case["name"],
            str(case["layers"]),
            str(case["batch"]),
            f"{case['extract_ms']:.2f}",
            f"{case['bare_ms']:.2f}",
            f"{case['ratio']:.3f}",
            f"{case['ratio_same_batch']:.3f}",
        ]
        for case in result["cases"]
    ]
    sizes = sorted({int(size) for case in result["cases"] for size in case["bare_by_batch_ms"]})
    by_size = [
        [case["name"], *(_milliseconds(case["bare_by_batch_ms"].get(str(size))) for size in sizes)]
        for case in result["cases"]
    ]
    return "\n".join(
        [
            "From uint8 images in host memory to float16 embeddings of every layer in host memory, against the bare "
            "forward pass on float input that is ready on the device, at whichever batch size and memory layout is "
            f"best for it. Asked: ≤ {target['bound']:.2f}; worst case {target['value']:.3f}, "
            f"{'reached' if target['met'] else 'missed'}.",
            "",
            table(["backbone", "layers", "batch", "ms/image", "bare ms", "ratio", "same batch"], rows),
            "",
            "The bare pass by batch size, ms per image:",
            "",
            table(["backbone", *map(str, sizes)], by_size),
        ]
    )


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
