"""Write ``catalogue.json``: ``python -m sweep.models.catalogue_build``. A test holds the file against this."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm

from sweep.models.describe import describe

FILE = Path(__file__).with_name("catalogue.json")
# The study's downloaded backbones and popular models; any other timm name is described when it is asked for.
DESCRIBED = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "vgg16_bn",
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "convnextv2_tiny",
    "convnextv2_base",
    "efficientnet_b0",
    "mobilenetv3_large_100",
    "regnety_032",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_base_patch32_224",
    "vit_large_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "swin_tiny_patch4_window7_224",
    "beit_base_patch16_224",
    "vit_base_patch16_clip_224",
)


def build() -> dict[str, Any]:
    """The catalogue's content."""
    return {
        "timm_version": timm.__version__,
        "described": {name: describe(name) for name in DESCRIBED},
        "timm_names": timm.list_models(),
    }


def text(content: dict[str, Any]) -> str:
    """As it stands in the file: a layer a line would be long, so one model a line."""
    described = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in content["described"].items())
    version, names = json.dumps(content["timm_version"]), json.dumps(content["timm_names"])
    return f'{{"timm_version": {version},\n"described": {{\n{described}\n}},\n"timm_names": {names}}}\n'


if __name__ == "__main__":
    FILE.write_text(text(build()), encoding="utf-8")
