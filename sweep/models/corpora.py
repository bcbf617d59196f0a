"""What downloaded weights were trained on: corpora as facts, and timm's tags read by a declared table.

A tag is a row of words, e.g. ``clip_laion2b_augreg_ft_in12k_in1k_384``. Each word is either a corpus, or a word that is
known to say how (a recipe, a number of epochs, a resolution). One word that is neither, and nothing is said of the tag:
a corpus is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sweep.models.augmentations import augmentation

SUPERVISED = "supervised"
LANGUAGE = "language-image"
SELF = "self-supervised"
MASKED = "masked images"
WEAK = "weakly supervised"
PROMPTS = "promptable masks"


@dataclass(frozen=True)
class Corpus:
    """Images that weights were trained on.

    Attributes
    ----------
    images : None where nobody says.
    classes : of its labels; None where it has none.
    objective : what it is used for where the tag says nothing else.
    source : of the numbers.
    """

    name: str
    images: int | None
    classes: int | None
    objective: str
    source: str


@dataclass(frozen=True)
class TrainedOn:
    """What weights were trained on, as far as it is known; the largest corpus counts where several follow each other.

    Attributes
    ----------
    corpus : names in the order of training, joined by " + ".
    images : of the largest of them, for γ.
    classes : of the last labels that it was trained with.
    objective : of each stage, joined likewise; one name where they agree.
    augmentation : a level of :mod:`sweep.models.augmentations`.
    """

    corpus: str | None = None
    images: int | None = None
    classes: int | None = None
    objective: str | None = None
    augmentation: str | None = None

    def __str__(self) -> str:
        count = f"{self.images:,} images" if self.images else "a number of images that is not known"
        classes = f", {self.classes:,} classes" if self.classes else ""
        return f"{self.corpus or 'an unnamed corpus'}: {count}{classes}; {self.objective or 'objective not known'}"


CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus("imagenet1k", 1_281_167, 1_000, SUPERVISED, "Russakovsky et al. 2015, ILSVRC 2012 training set"),
        Corpus("imagenet12k", 12_129_687, 11_821, SUPERVISED, "timm/imagenet-12k-wds, training split"),
        Corpus("imagenet21k", 14_197_122, 21_841, SUPERVISED, "image-net.org, fall 2011"),
        Corpus("imagenet21k_p", 12_358_688, 11_221, SUPERVISED, "Ridnik et al. 2021, section 3.1"),
        Corpus("imagenet_w21k", 13_151_276, 19_167, SUPERVISED, "timm/imagenet-w21-webp-wds, winter 2021"),
        Corpus("jft300m", 300_000_000, 18_291, SUPERVISED, "Sun et al. 2017"),
        Corpus("bamboo", 69_000_000, 115_217, SUPERVISED, "Zhang et al. 2022; classes of the published head"),
        Corpus("ig1b", 940_000_000, 1_500, WEAK, "Mahajan et al. 2018 (1.5k hashtags), Yalniz et al. 2019"),
        Corpus("ig3.6b", 3_600_000_000, 27_000, WEAK, "Singh et al. 2022 (SWAG): 3.6 G images, 27k hashtags"),
        Corpus("ig1b_random", 1_000_000_000, None, SELF, "Goyal et al. 2021 (SEER): 1 G random images"),
        Corpus("yfcc100m", 90_000_000, None, SELF, "Yalniz et al. 2019: 90 M of YFCC-100M, unlabelled"),
        Corpus("lvd142m", 142_000_000, None, SELF, "Oquab et al. 2023 (DINOv2)"),
        Corpus("lvd1689m", 1_689_000_000, None, SELF, "Siméoni et al. 2025 (DINOv3)"),
        Corpus("sat493m", 493_000_000, None, SELF, "Siméoni et al. 2025 (DINOv3, satellite images)"),
        Corpus("sa1b", 11_000_000, None, PROMPTS, "Kirillov et al. 2023: 11 M images, 1.1 G masks"),
        Corpus("wit400m", 400_000_000, None, LANGUAGE, "Radford et al. 2021 (CLIP)"),
        Corpus("laion400m", 413_000_000, None, LANGUAGE, "Schuhmann et al. 2021"),
        Corpus("laion2b", 2_320_000_000, None, LANGUAGE, "Schuhmann et al. 2022: LAION-5B, English"),
        Corpus("laion_aesthetic", 900_000_000, None, LANGUAGE, "OpenCLIP: LAION-A, 900 M of LAION-2B"),
        Corpus("datacomp1b", 1_400_000_000, None, LANGUAGE, "Gadre et al. 2023"),
        Corpus("dfn2b", 2_000_000_000, None, LANGUAGE, "Fang et al. 2023"),
        Corpus("dfn5b", 5_000_000_000, None, LANGUAGE, "Fang et al. 2023"),
        Corpus("metaclip400m", 400_000_000, None, LANGUAGE, "Xu et al. 2023"),
        Corpus("metaclip2.5b", 2_500_000_000, None, LANGUAGE, "Xu et al. 2023"),
        Corpus("merged2b", 2_000_000_000, None, LANGUAGE, "Sun et al. 2023 (EVA-CLIP): LAION-2B and COYO-700M"),
        Corpus("cc12m", 12_400_000, None, LANGUAGE, "Changpinyo et al. 2021"),
        Corpus("yfcc15m", 14_800_000, None, LANGUAGE, "Radford et al. 2021: the English part of YFCC-100M"),
        Corpus("webli", None, None, LANGUAGE, "Zhai et al. 2023 (SigLIP): which part of WebLI's 10 G is not said"),
        Corpus("pe5.4b", 5_400_000_000, None, LANGUAGE, "Bolya et al. 2025 (Perception Encoder): 5.4 G pairs"),
        Corpus("merged30m", 29_600_000, None, MASKED, "Fang et al. 2022 (EVA)"),
        Corpus("merged38m", 38_000_000, None, MASKED, "Fang et al. 2023 (EVA-02)"),
    )
}

# words of timm's tags that name a corpus
_NAMED: Mapping[str, str] = {
    "in1k": "imagenet1k",
    "in12k": "imagenet12k",
    "in21k": "imagenet21k",
    "in22k": "imagenet21k",
    "inw21k": "imagenet_w21k",
    "jft": "jft300m",
    "bamboo": "bamboo",
    "ig1b": "ig1b",
    "swag": "ig3.6b",
    "seer": "ig1b_random",
    "yfcc100m": "yfcc100m",
    "lvd142m": "lvd142m",
    "lvd1689m": "lvd1689m",
    "sat493m": "sat493m",
    "sa1b": "sa1b",
    "openai": "wit400m",
    "laion400m": "laion400m",
    "laion2b": "laion2b",
    "laiona": "laion_aesthetic",
    "datacompxl": "datacomp1b",
    "datacomp1b": "datacomp1b",
    "dfn2b": "dfn2b",
    "dfn5b": "dfn5b",
    "merged2b": "merged2b",
    "cc12m": "cc12m",
    "yfcc15m": "yfcc15m",
    "webli": "webli",
    "m30m": "merged30m",
    "m38m": "merged38m",
}
# words before a corpus that say for what it is used
_OBJECTIVES: Mapping[str, str] = {
    "clip": LANGUAGE,
    "mim": MASKED,
    "mae": MASKED,
    "fcmae": MASKED,
    "dino": SELF,
    "dinov3": SELF,
    "ijepa": SELF,
    "ssl": "semi-supervised",
    "swsl": "semi-weakly supervised",
    "wsl": WEAK,
    "ns": "noisy student",
}
_AFTER = {"ijepa"}  # this one stands behind its corpus
# whole tags that the words do not tell: their corpora, and the objective of the first where it is not its corpus' own
_WHOLE: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    "dino": (("imagenet1k",), SELF),
    "fb_dino": (("imagenet1k",), SELF),
    "mae": (("imagenet1k",), MASKED),
    "fcmae": (("imagenet1k",), MASKED),
    "fcmae_ft_in1k": (("imagenet1k", "imagenet1k"), MASKED),
    "metaclip_400m": (("metaclip400m",), None),
    "metaclip_2pt5b": (("metaclip2.5b",), None),
    "miil_in21k": (("imagenet21k_p",), None),
    "miil_in21k_ft_in1k": (("imagenet21k_p", "imagenet1k"), None),
    **{
        f"fcmae_ft_in22k_in1k{side}": (("imagenet1k", "imagenet21k", "imagenet1k"), MASKED)
        for side in ("", "_384", "_512")
    },
}
# networks whose first corpus served another objective than the tag's words say
_FIRST: Mapping[str, str] = {"beit_": MASKED, "beitv2_": MASKED, "eva_large_": MASKED}
# networks whose tags name neither corpus nor objective: both of each stage
_BY_NETWORK: Mapping[str, tuple[tuple[str, str | None], ...]] = {
    "vit_pe_core_": (("pe5.4b", None),),
    "vit_pe_lang_": (("pe5.4b", None), ("pe5.4b", "aligned to language")),
    "vit_pe_spatial_": (("pe5.4b", None), ("pe5.4b", "aligned to space")),
}
# networks whose tags leave out what came first: several corpora of images and texts
_UNSAID = ("beit3_",)
_MIIL = "_miil"  # a network whose ImageNet-21K is Alibaba's, which the tag does not say
# words that say how: recipes, whose weights, distillation, epochs, input sides
_WORDS = """
    a1 a1h a2 a2h a3 aa ad adv agc ah am ap apple aug augreg augreg2 b1k b2k bd bt c1 c2 c2ns c3 ch cvnets d d1 d1h
    d2 deit dist distilled dm ens fb ft gluon goog green i18n idstcv ix lamb lc lion miil ms msft mx nadamuon nav
    naver nv orig paddle pd plus pycls ra ra2 ra3 ra4 racm ram rewind rmsp rsb rvgg s39b sail sam sbb sbb2 snap soup
    sw teacher tf timm tinyclip tv tv2 usi v2
"""
_HOW = frozenset(_WORDS.split())
_NUMBERS = re.compile(r"\d+|e\d+|\d+e|\d+ep|r\d+|s\d+|patch\d+")
_TORCHVISION: tuple[tuple[str, list[tuple[str, str | None]]], ...] = (
    (r"\w+_Weights\.IMAGENET1K_(V\d+|FEATURES)", [("imagenet1k", None)]),
    (r"\w+_Weights\.IMAGENET1K_SWAG_(E2E|LINEAR)_V\d+", [("ig3.6b", None), ("imagenet1k", None)]),
)


def trained_on(architecture: str, tag: str) -> TrainedOn | None:
    """What timm's weights of a tag were trained on; None where the table does not tell."""
    stages = [] if architecture.startswith(_UNSAID) else _stages(tag)
    if tag.split("_")[0] == "fb":
        stages = next((list(own) for start, own in _BY_NETWORK.items() if architecture.startswith(start)), stages)
    if not stages:
        return None
    if architecture.endswith(_MIIL):
        stages = [("imagenet21k_p" if corpus == "imagenet21k" else corpus, how) for corpus, how in stages]
    own = next((objective for start, objective in _FIRST.items() if architecture.startswith(start)), None)
    known = chain([(corpus, own if own and not number else how) for number, (corpus, how) in enumerate(stages)])
    return replace(known, augmentation=augmentation(architecture, tag))


def torchvision_trained_on(name: str) -> TrainedOn | None:
    """What torchvision's weights were trained on, by the name of the entry in their enumeration; None if it is new."""
    stages = next((stages for pattern, stages in _TORCHVISION if re.fullmatch(pattern, name)), None)
    return None if stages is None else chain(stages)


def chain(stages: list[tuple[str, str | None]]) -> TrainedOn:
    """Corpora that follow each other, each with its objective (None: the corpus' own), as one value."""
    found = [CORPORA[name] for name, _ in stages]
    objectives = [how or CORPORA[name].objective for name, how in stages]
    counted = [corpus.images for corpus in found]
    labelled = [c.classes for c, how in zip(found, objectives, strict=True) if how not in (SELF, MASKED)]
    return TrainedOn(
        corpus=" + ".join(dict.fromkeys(corpus.name for corpus in found)),
        images=None if None in counted else max(count for count in counted if count is not None),
        classes=labelled[-1] if labelled else None,
        objective=" + ".join(dict.fromkeys(objectives)),
    )


def _stages(tag: str) -> list[tuple[str, str | None]]:
    """Corpora of a tag with the objectives that it states; empty if one of its words is unknown."""
    if tag in _WHOLE:
        names, first = _WHOLE[tag]
        return [(name, None if number else first) for number, name in enumerate(names)]
    stages: list[tuple[str, str | None]] = []
    stated: str | None = None
    for word in tag.split("_"):
        if word in _NAMED:
            if stated == LANGUAGE and CORPORA[_NAMED[word]].objective != LANGUAGE:
                return []  # "clip" before a corpus without texts: which texts came first is not said
            stages.append((_NAMED[word], stated))
            stated = None
        elif word in _AFTER and stages:
            stages[-1] = (stages[-1][0], _OBJECTIVES[word])
        elif word in _OBJECTIVES:
            stated = _OBJECTIVES[word]
        elif word not in _HOW and not _NUMBERS.fullmatch(word):
            return []
    return stages
