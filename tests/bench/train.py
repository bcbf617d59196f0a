"""ID training: the product's epoch against bare steps of the same network on a batch that is ready on the device.

Bare is what the libraries take for forward, backward and a fused AdamW step in the same layout and precision. What the
product adds is cutting and augmenting images, bringing them to the device, and keeping an epoch's weights.

Shapes: N images, B batch, H and W pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from sweep.config import Recipe
from sweep.data import TrainImages
from sweep.models import Feeder, build_backbone, memory_layout, probed_layers
from sweep.train.augment import policy
from sweep.train.batches import CroppedImages, PlainImages
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import ImageSource, Labelled, pretrain

from . import machine
from .report import table

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 100
_DISTINCT = 256  # images kept in memory; an epoch of more uses each several times
ASKED = {"cpu": {"off": 1.05, "on": 1.10, "strong": 1.25}, "cuda": {"off": 1.05, "on": 1.10, "strong": 1.15}}


@dataclass(frozen=True)
class Case:
    """A backbone in training.

    Attributes
    ----------
    images : of an epoch.
    source : (height, width) of the images that crops are cut from.
    turns : epochs that are timed, after one that is not; more where one takes half a second, in which clocks change.
    """

    architecture: str
    resolution: int
    images: int
    source: tuple[int, int]
    width: float = 1.0
    batch_size: int = 128
    turns: int = 3

    @property
    def name(self) -> str:
        """Backbone, its width where that is not the full one, and resolution."""
        width = "" if self.width == 1 else f" × {self.width:g}"
        return f"{self.architecture}{width}, {self.resolution} px"


ON_CPU = (
    Case("vggm11", 32, 1_024, (32, 32), width=0.125, turns=31),
    Case("vggm11", 32, 256, (32, 32)),
    Case("vit_tiny_patch8", 32, 1_024, (32, 32), width=0.25, turns=21),
    Case("resnet18", 64, 256, (64, 64)),
    Case("resnet18", 224, 64, (256, 341), batch_size=32),
)
ON_GPU = (
    Case("vggm11", 32, 25_600, (32, 32)),
    Case("resnet18", 224, 6_400, (256, 341)),
    Case("vit_tiny_patch8", 224, 6_400, (256, 341)),
)
SMALL = (Case("vggm11", 32, 256, (32, 32), width=0.125, turns=2),)  # for other benchmarks where there is no GPU
QUICK = (  # epochs as long as those of the study: of two steps each the ratio would be chance
    Case("vggm11", 32, 1_024, (32, 32), width=0.125, turns=5),
    Case("vit_tiny_patch8", 32, 1_024, (32, 32), width=0.25, turns=3),
)
POLICIES = ("off", "on", "strong")
MADE = [f"making, {name}, µs/image" for name in POLICIES[1:]]


def run(*, quick: bool, cases: Sequence[Case] | None = None) -> dict[str, Any]:
    """Measure all cases and policies on the GPU if there is one, else on CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = cases or (QUICK if quick else ON_GPU if device.type == "cuda" else ON_CPU)
    workers = (os.cpu_count() or 1) - 1 if device.type == "cuda" else 0
    measured = [_measured(case, device, workers) for case in cases]
    asked = ASKED[device.type]
    targets = [
        {
            "text": f"epoch ÷ bare steps, {name}, {device.type}",
            "bound": asked[name],
            "value": max(case[f"ratio_{name}"] for case in measured),
        }
        for name in POLICIES
    ]
    targets = [target | {"met": target["value"] <= target["bound"]} for target in targets]
    return {"cases": measured, "workers": workers, "targets": targets}


def _measured(case: Case, device: torch.device, workers: int) -> dict[str, Any]:
    """Ratios and images per second of one case."""
    found: dict[str, Any] = {"name": case.name, "batch": case.batch_size}
    for name in POLICIES:
        ours_T, bare_T = race(case, name, device=device, workers=workers)
        found[f"ratio_{name}"] = float(np.median(ours_T / bare_T))  # of neighbours: clocks change within a minute
        found[f"images_s_{name}"] = case.images / float(np.median(ours_T))
        found[f"images_s_bare_{name}"] = case.images / float(np.median(bare_T))
        found[f"made_us_{name}"] = 1e6 * making(case, name, device=device) / case.images
    return found


def making(case: Case, augmentation: str, *, device: torch.device) -> float:
    """Median seconds that an epoch's images take alone, cut and augmented on the device by one thread."""
    source = images(case, augmentation, workers=0)
    feeder = Feeder(MEAN, STD, device=device, layout=torch.contiguous_format)
    batches = np.split(np.arange(case.images), range(case.batch_size, case.images, case.batch_size))
    took_T = []
    for turn in range(case.turns + 1):
        started = time.perf_counter()
        for _ in source.epoch(batches, seed=turn, feeder=feeder):
            pass
        machine.synchronize(device)
        took_T.append(time.perf_counter() - started)
    return median(took_T[1:])


def race(case: Case, augmentation: str, *, device: torch.device, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds (T,) of each epoch of ours, and of as many bare steps right after it."""
    bare = bare_steps(case, device)
    ours_T: list[float] = []
    bare_T: list[float] = []
    mark = 0.0

    def turn(_history: Sequence[Mapping[str, float]], _total: int) -> None:
        nonlocal mark
        machine.synchronize(device)
        ours_T.append(time.perf_counter() - mark)
        started = time.perf_counter()
        bare()
        machine.synchronize(device)
        bare_T.append(time.perf_counter() - started)
        mark = time.perf_counter()

    model, layout = model_of(case, device)
    nothing = Labelled(np.empty((0, case.resolution, case.resolution, 3), np.uint8), np.empty(0, np.int64))
    recipe = Recipe(
        epochs=case.turns + 1,
        warmup_epochs=0,
        batch_size=case.batch_size,
        checkpoint_on="last",
        precision=precision(device),
    )
    source = images(case, augmentation, workers=workers)
    mark = time.perf_counter()
    pretrain(
        model,
        source,
        heldout=nothing,
        test=nothing,
        recipe=recipe,
        key="bench",
        mean=MEAN,
        std=STD,
        device=device,
        checkpoints=Checkpoints(load=lambda: None, save=lambda _state: None),
        on_epoch=turn,
        layout=layout,
    )
    return np.array(ours_T[1:]), np.array(bare_T[1:])


def precision(device: torch.device) -> Literal["float32", "bfloat16"]:
    """What training is measured in: bfloat16 on a GPU."""
    return "bfloat16" if device.type == "cuda" else "float32"


def model_of(case: Case, device: torch.device) -> tuple[torch.nn.Module, torch.memory_format]:
    """A fresh network on the CPU, and the layout it is trained in on the device."""
    torch.manual_seed(0)
    model = build_backbone(case.architecture, classes=CLASSES, resolution=case.resolution, width=case.width)
    return model, memory_layout(probed_layers(model, resolution=case.resolution), device)


def images(case: Case, augmentation: str, *, workers: int) -> ImageSource:
    """An epoch's images as the product's training reads them; few distinct ones, each many times."""
    rng, chosen = np.random.default_rng(0), policy(augmentation)
    labels_N = rng.integers(0, CLASSES, case.images)
    distinct_N = np.arange(case.images) % _DISTINCT
    if chosen.source == "evaluation":
        shape = (_DISTINCT, case.resolution, case.resolution, 3)
        return PlainImages(rng.integers(0, 256, shape, dtype=np.uint8), labels_N, distinct_N)
    height, width = case.source
    size = height * width * 3
    stored = TrainImages(
        flat=rng.integers(0, 256, _DISTINCT * size, dtype=np.uint8),
        offsets_N=distinct_N * size,
        sizes_N2=np.tile([height, width], (case.images, 1)),
        labels_N=labels_N,
        names=(),
        kept_N=np.arange(case.images),
        skipped=(),
    )
    how = {"side": case.resolution, "operations": chosen.operations, "ahead": workers > 0}
    return CroppedImages(stored, labels_N, np.arange(case.images), **how)


def bare_steps(case: Case, device: torch.device) -> Callable[[], None]:
    """As many steps as an epoch has, on one ready batch."""
    model, layout = model_of(case, device)
    model.to(device).to(memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch_size, case.resolution, case.resolution, 3)
    raw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    input_BCHW = Feeder(MEAN, STD, device=device, layout=layout).normalized(raw.to(device))
    target_B = torch.randint(0, CLASSES, (case.batch_size,), generator=generator).to(device)
    steps = -(-case.images // case.batch_size)

    def epoch() -> None:
        for _ in range(steps):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision(device) == "bfloat16"):
                logits_BC = model(input_BCHW)
            loss = F.cross_entropy(logits_BC.float(), target_B)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


def markdown(result: dict[str, Any]) -> str:
    """Ratio and images per second by policy."""
    rows = [
        [
            case["name"],
            str(case["batch"]),
            *(f"{case[f'ratio_{name}']:.3f}" for name in POLICIES),
            *(f"{case[f'images_s_{name}']:,.0f}" for name in POLICIES),
            f"{max(case[f'images_s_bare_{name}'] for name in POLICIES):,.0f}",
            *(f"{case[f'made_us_{name}']:,.0f}" for name in POLICIES[1:]),
        ]
        for case in result["cases"]
    ]
    asked = "; ".join(
        f"`{name}` ≤ {target['bound']:.2f}, worst {target['value']:.3f}, {'reached' if target['met'] else 'missed'}"
        for name, target in zip(POLICIES, result["targets"], strict=True)
    )
    head = ["backbone", "batch", *(f"ratio {name}" for name in POLICIES), *POLICIES, "bare"]
    return "\n".join(
        [
            "An epoch of the product's training against bare forward, backward and AdamW steps on a ready batch of the "
            f"same network, layout and precision, turn by turn; {result['workers']} loader workers. Asked: {asked}.",
            "",
            table([*head[:5], *(f"{name}, images/s" for name in head[5:]), *MADE], rows),
            "",
            "Making is what cutting and augmenting an image takes alone. Where nothing runs beside the training step, "
            "a ratio is at least 1 and that much of a bare step.",
        ]
    )
