"""Classify images by a linear probe on one layer of a pretrained network: ``python load_probe.py IMAGE …``.

Needs torch, timm, safetensors and pillow, and the files beside it. ``Probe().forward`` takes (B, 3, H, W) images in
[0, 1] as ``prepared`` makes them, and gives (B, classes) logits; ``labels`` names the classes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn


class _ReachedError(Exception):
    """The layer has been computed: the rest of the network is not needed."""


class Probe(nn.Module):
    """A network up to a layer, the layer's pooling, and a linear classifier."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        super().__init__()
        self.about: dict[str, Any] = json.loads((Path(folder) / "probe.json").read_text(encoding="utf-8"))
        self.labels: list[str] = self.about["labels"]
        tensors = load_file(Path(folder) / "probe.safetensors")
        for name in ("mean", "scale", "weight", "bias"):  # of the classifier and of the embeddings that it takes
            self.register_buffer(name, tensors.pop(f"head.{name}"))
        for name in ("pixel_mean", "pixel_std"):
            self.register_buffer(name, torch.tensor(self.about[name]).view(3, 1, 1))
        if self.about["network"] == "timm":
            self.network = timm.create_model(self.about["architecture"], **self.about["arguments"])
            own = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
            self.network.load_state_dict(own, strict=False)  # what comes after the layer is not there
            self.network.eval()
        else:
            self.network = torch.export.load(Path(folder) / self.about["network"]).module()
        self.training = False
        self.stops = True  # after the layer; False for exporters, which follow no exception and drop what is unused

    def train(self, mode: bool = True) -> "Probe":
        """It is fitted: nothing in it may be trained, and batch norms stay as they are."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, classes)."""
        embedding = self.embedded((images - self.pixel_mean) / self.pixel_std)
        if self.about["half"]:  # as the classifier was fitted
            embedding = embedding.half().float()
        return ((embedding.double() - self.mean) * self.scale).float() @ self.weight + self.bias

    def embedded(self, images: Tensor) -> Tensor:
        """The layer's pooled output (B, D)."""
        if self.about["network"] != "timm":
            return self.network(images)
        kept: list[Any] = []

        def reached(_module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
            kept.append([inputs, named] if self.about["input"] else output)
            if self.stops:
                raise _ReachedError

        handle = self.network.get_submodule(self.about["layer"]).register_forward_hook(reached, with_kwargs=True)
        try:
            self.network(images)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        output = _tensors(kept[0])[self.about["tensor"]]
        return self.pooled(self.network.get_submodule(self.about["norm"])(output) if self.about["norm"] else output)

    def pooled(self, output: Tensor) -> Tensor:
        """An output whose axes are ``about["axes"]`` as (B, D)."""
        axes, way, prefix = self.about["axes"], self.about["pooling"], self.about["prefix_tokens"]
        places = [axis for axis, letter in enumerate(axes) if letter not in "BC"]
        if way == "2x2":
            map_BCHW = output.float().permute(0, axes.index("C"), *places)
            small = max(map_BCHW.shape[2:]) <= 2
            return (map_BCHW if small else nn.functional.adaptive_avg_pool2d(map_BCHW, 2)).flatten(1)
        rows = output.float().permute(0, *places, axes.index("C"))
        rows = rows.flatten(1, -2) if places else rows[:, None]  # places or tokens (B, T, C)
        patches = rows[:, prefix:]
        if way == "class":
            return rows[:, 0]
        if way == "class+mean":
            return torch.cat([rows[:, 0], patches.mean(1)], 1)
        if way == "max":
            return patches.amax(1)
        if way == "gem":
            return patches.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)
        return patches.mean(1)

    def prepared(self, image: Image.Image) -> Tensor:
        """(3, H, W) in [0, 1]: turned, made RGB, resized and cropped as the probe's own images were."""
        image, side, mode = _rgb(image, self.about["background"]), self.about["resize"], self.about["resize_mode"]
        sizes = {
            "center": tuple(side if n == min(image.size) else int(side * n / min(image.size)) for n in image.size),
            "squash": (side, side),
            "border": tuple(max(1, round(n / (max(image.size) / side))) for n in image.size),
        }
        if image.size != sizes[mode]:
            image = image.resize(sizes[mode], Image.Resampling[self.about["interpolation"].upper()])
        return torch.from_numpy(np.array(self._centre(image))).permute(2, 0, 1).float() / 255

    def _centre(self, image: Image.Image) -> Image.Image:
        """The centred square; an image that is smaller lies on a colour first."""
        crop, (width, height) = self.about["crop"], image.size
        if min(width, height) < crop:
            padded = Image.new("RGB", (max(width, crop), max(height, crop)), tuple(self.about["fill"]))
            padded.paste(image, (max(crop - width, 0) // 2, max(crop - height, 0) // 2))
            image = padded
        left, top = (round((length - crop) / 2) for length in image.size)
        return image.crop((left, top, left + crop, top + crop))


def _tensors(value: Any) -> list[Tensor]:
    """Every tensor of what a module gives, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for each in value for tensor in _tensors(each)] if isinstance(value, list | tuple) else []


def _rgb(image: Image.Image, background: int) -> Image.Image:
    """Turned as its tag says; what is transparent lies on a grey; more than 8 bits are scaled by their range."""
    kind, image = image.format, ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey_HW, clear = _scaled(image, kind), image.info.get("transparency")
        if isinstance(clear, int) and image.mode.startswith("I;16"):  # the one value that is
            grey_HW[np.asarray(image) == clear] = background
        return Image.fromarray(grey_HW).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        under = Image.new("RGBA", image.size, (background,) * 3 + (255,))
        image = Image.alpha_composite(under, image.convert("RGBA"))
    return image.convert("RGB")


def _scaled(image: Image.Image, kind: str | None) -> Any:
    """Grey values of 16 bits, 32 bits or floats as uint8 (H, W); of other floats nobody knows what is white."""
    values_HW = np.asarray(image)
    if image.mode.startswith("I;16"):
        return (values_HW >> 8).astype(np.uint8)
    if image.mode == "I":
        values_HW = values_HW.view(np.uint32)
        fitting = (bits for bits in (8, 16, 32) if int(values_HW.max()) < 2**bits)
        return (values_HW >> ((16 if kind in ("PPM", "PNG") else next(fitting)) - 8)).astype(np.uint8)
    lowest, highest = float(values_HW.min()), float(values_HW.max())
    top = next((top for top in (1, 255, 65535) if highest <= top), None)
    if not lowest >= 0 or top is None:  # NaN fails both
        raise ValueError(f"floats from {lowest:g} to {highest:g} are no grey values: none of 0..1, 0..255, 0..65535")
    return (values_HW * (255 / top) + 0.5).astype(np.uint8)


def main(files: list[str]) -> int:
    """Print each image's class; the exit code is 1 if one of them cannot be read."""
    probe, broken = Probe(), False
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = probe.prepared(image)
        except (OSError, SyntaxError, ValueError) as error:
            print(f"{file}: cannot be read: {error}", file=sys.stderr)
            broken = True
            continue
        with torch.inference_mode():
            shares = probe(pixels[None]).softmax(1)[0]
        print(f"{file}: {probe.labels[int(shares.argmax())]} ({100 * float(shares.max()):.1f} %)")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
