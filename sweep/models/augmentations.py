"""Which augmentation downloaded weights were trained with, as a level, by a declared table.

Levels: ``crop`` (random crops at most), ``crop+flip``, ``auto`` (besides, AutoAugment, RandAugment, TrivialAugment,
AugMix), ``mixed`` (besides, mixup or cutmix), ``views`` (several coloured and blurred crops of an image, compared with
each other). A tag that no rule speaks of is None: an augmentation is never guessed. Where trainings follow each other
it is that of the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LEVELS = ("crop", "crop+flip", "auto", "mixed", "views")


@dataclass(frozen=True)
class Rule:
    """Weights whose architecture and tag match are trained with a level of augmentation."""

    level: str
    architecture: str
    tag: str
    source: str


_ANY = ".*"
_CLIP = r"openai|laion(2b|400m|a)|datacompxl|datacomp1b|metaclip_(400m|2pt5b)|dfn[25]b"
_DINO = r"lvd142m|lvd1689m|sat493m|dinov3_lvd1689m"
# the first rule that matches counts
RULES: tuple[Rule, ...] = (
    Rule("mixed", _ANY, r"a[123]h?_in1k", "Wightman et al. 2021: RandAugment, mixup, cutmix"),
    Rule("mixed", _ANY, r"tv2_in1k", "torchvision's new recipe: TrivialAugment, random erasing, mixup, cutmix"),
    Rule("crop+flip", _ANY, r"tv_in1k", "torchvision's references: crop and flip"),
    Rule("auto", _ANY, r"(ra|ra2|ra3|aa|am)_in1k", "timm's names: RandAugment, AutoAugment, AugMix"),
    Rule("mixed", r"(deit|deit3)_.*", r"fb_.*in1k(_\d+)?", "Touvron et al. 2021, 2022"),
    Rule("mixed", r"convnext_.*", r"fb_in(1|22)k(_ft_in1k)?(_384)?", "Liu et al. 2022"),
    Rule("mixed", r"convnextv2_.*", r"fcmae_ft_.*", "Woo et al. 2023: the fine-tuning's"),
    Rule("crop+flip", r"convnextv2_.*", r"fcmae", "Woo et al. 2023: crop and flip"),
    Rule("crop+flip", r"(vit|hiera)_.*", r"mae", "He et al. 2022, Ryali et al. 2023: crop and flip"),
    Rule("mixed", r"hiera_.*", r"mae_in1k_ft_in1k", "Ryali et al. 2023: the fine-tuning's"),
    Rule("mixed", r"(swin|swinv2)_.*", r"ms_.*", "Liu et al. 2021, 2022"),
    Rule("mixed", r"vit_.*", r"augreg2?_.*", "Steiner et al. 2021: RandAugment and mixup, by their search"),
    Rule("mixed", r"vit_.*", r"sbb_.*in1k.*", "timm's searched small vision transformers: RandAugment, mixup, cutmix"),
    Rule("crop", _ANY, _CLIP, "Radford et al. 2021, OpenCLIP: a random crop"),
    Rule("crop", r"vit_.*siglip.*", r"(v2_)?webli", "Zhai et al. 2023, Tschannen et al. 2025: resized"),
    Rule("crop", r"vit_pe_.*", r"fb.*", "Bolya et al. 2025: as CLIP"),
    Rule("views", r"vit_.*dinov[23].*|convnext_.*", _DINO, "Oquab et al. 2023, Siméoni et al. 2025"),
    Rule("views", r"vit_.*", r"(fb_)?dino", "Caron et al. 2021: multi-crop"),
    Rule("crop", r"vit_.*", r"in(1|22)k_ijepa", "Assran et al. 2023: no augmentation by hand"),
    Rule("crop+flip", r"regnet[xy]_.*", r"pycls_in1k", "Radosavovic et al. 2020: crop, flip and lighting"),
    Rule("auto", r"(tf_)?efficientnet_.*", r"ns_jft_in1k", "Xie et al. 2020: RandAugment, on the student"),
    Rule("crop+flip", r"res.*", r"fb_(ssl_yfcc100m|swsl_ig1b)_ft_in1k", "Yalniz et al. 2019: crop and flip"),
    Rule("crop+flip", r"resnext101_.*", r"fb_wsl_ig1b_ft_in1k", "Mahajan et al. 2018: crop and flip"),
    Rule("mixed", r"resnetv2_.*", r"goog_in21k_ft_in1k", "Kolesnikov et al. 2020: mixup in fine-tuning"),
    Rule("crop+flip", r"resnetv2_.*", r"goog_in21k", "Kolesnikov et al. 2020: crop and flip"),
)


def augmentation(architecture: str, tag: str) -> str | None:
    """Level of augmentation behind timm's weights of a tag; None where the table does not tell."""
    for rule in RULES:
        if re.fullmatch(rule.architecture, architecture) and re.fullmatch(rule.tag, tag):
            return rule.level
    return None
