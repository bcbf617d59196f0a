"""The claims: what the papers say, the difference of ours that answers it, and when it agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from . import frames
from .layout import Difference, between, weighted

YES, NO, OPEN = "yes", "no", "open"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and the outcome that decides it.

    Attributes
    ----------
    papers : what it rests on there, with its number where the paper has one.
    outcome : column of the finding's frame.
    low, high : the two sides that are compared; without them the outcome's mean is the answer.
    only : without sides, the cells that count.
    sign : the direction that the paper claims; 0: no difference larger than ``margin``.
    """

    text: str
    papers: str
    outcome: str
    sign: int
    low: Mapping[str, object] = field(default_factory=dict)
    high: Mapping[str, object] = field(default_factory=dict)
    only: Mapping[str, object] = field(default_factory=dict)
    margin: float = 0.0
    unit: str = "points"


@dataclass(frozen=True)
class Finding:
    """A question, the frame that answers it, and its claims.

    Attributes
    ----------
    frame : store → one row per independent unit.
    varied : columns that make its cells; within a cell only the seed differs.
    unit : what the rows are.
    """

    name: str
    title: str
    frame: Callable[[str], pd.DataFrame]
    varied: tuple[str, ...]
    claims: tuple[Claim, ...]
    unit: str = "backbones"


def answer(found: Finding, frame: pd.DataFrame, claim: Claim) -> Difference:
    """The claim's difference, or the mean of its outcome over the cells."""
    if claim.low or claim.high:
        return between(frame, claim.outcome, found.varied, claim.low, claim.high)
    cell_B = pd.Series("all", frame.index)
    if found.varied:
        cell_B = frame[list(found.varied)].astype(str).agg(" ".join, axis=1)
    counts = pd.Series(True, frame.index)
    for column, value in claim.only.items():
        counts &= frame[column] == value
    cells = cell_B[counts].unique()
    return weighted(frame[claim.outcome], cell_B, {cell: 1 / len(cells) for cell in cells})


def agrees(claim: Claim, found: Difference) -> str:
    """``yes``, ``no`` or ``open``: whether the interval lies on the claim's side, on the other, or on both."""
    if claim.sign:
        low, high = sorted((claim.sign * found.low, claim.sign * found.high))
        return YES if low > 0 else NO if high < 0 else OPEN
    if -claim.margin <= found.low and found.high <= claim.margin:
        return YES
    return NO if found.low > claim.margin or found.high < -claim.margin else OPEN


def _of(name: str) -> Callable[[str], pd.DataFrame]:
    return lambda store: frames.backbones(store, f"findings-{name}")


def _by_depth(text: str, papers: str, outcome: str, sign: int, margin: float = 0.0) -> list[Claim]:
    """The same of either network: averaged, opposite answers would hide each other."""
    return [
        Claim(f"{layers} layers: {text}", papers, outcome, sign, only={"architecture": f"vggm{layers}"}, margin=margin)
        for layers in (11, 17)
    ]


_FEW, _MANY = {"id_classes": 10, "images_per_class": 270}, {"id_classes": 100, "images_per_class": 27}
_LENGTH = "layers"

FINDINGS: tuple[Finding, ...] = (
    Finding(
        "classes",
        "Classes at equal images, images at equal classes",
        _of("classes"),
        ("id_classes", "images_per_class"),
        (
            Claim(
                "100 classes instead of 10, as many images: more is retained",
                "[H24] SHAP slope +.409",
                "retained",
                1,
                _FEW,
                _MANY,
            ),
            Claim("… and the tunnel is shorter", "[M23]", "id_length", -1, _FEW, _MANY, unit=_LENGTH),
            Claim(
                "3 times the images of the same 10 classes: the tunnel is no shorter",
                "[M23]",
                "id_length",
                0,
                {"id_classes": 10, "images_per_class": 90},
                {"id_classes": 10, "images_per_class": 270},
                margin=1.0,
                unit=_LENGTH,
            ),
        ),
    ),
    Finding(
        "depth",
        "Depth and width",
        _of("depth"),
        ("architecture", "width"),
        (
            Claim(
                "19 layers instead of 7: less is retained",
                "[H24] SHAP slope −.157",
                "retained",
                -1,
                {"architecture": "vggm7"},
                {"architecture": "vggm19"},
            ),
            Claim(
                "… the tunnel is longer",
                "[M23]",
                "id_length",
                1,
                {"architecture": "vggm7"},
                {"architecture": "vggm19"},
                unit=_LENGTH,
            ),
            Claim(
                "… and the extractor is not",
                "[M23]",
                "id_start",
                0,
                {"architecture": "vggm7"},
                {"architecture": "vggm19"},
                margin=1.0,
                unit=_LENGTH,
            ),
            Claim(
                "4 times the width: the tunnel is longer",
                "[M23]",
                "id_length",
                1,
                {"width": 0.0625},
                {"width": 0.25},
                unit=_LENGTH,
            ),
            Claim(
                "… less is retained",
                "[H24] over-parametrization, SHAP slope −.095",
                "retained",
                -1,
                {"width": 0.0625},
                {"width": 0.25},
            ),
        ),
    ),
    Finding(
        "phi",
        "Spatial reduction φ",
        lambda store: _split_dagger(_of("phi")(store)),
        ("depth", "dagger"),
        (
            Claim(
                "VGGm† (two max-pools fewer) instead of VGGm: more is retained",
                "[H24] SHAP slope +.099",
                "retained",
                1,
                {"dagger": False},
                {"dagger": True},
            ),
        ),
    ),
    Finding(
        "resolution",
        "Resolution",
        _of("resolution"),
        ("architecture", "resolution"),
        (
            Claim(
                "64 px instead of 32: more is retained",
                "[H24] SHAP slope +.057",
                "retained",
                1,
                {"resolution": 32},
                {"resolution": 64},
            ),
        ),
    ),
    Finding(
        "augmentation",
        "Augmentation",
        _of("augmentation"),
        ("architecture", "augmentation"),
        (
            Claim(
                "Crops and flips instead of none: more is retained",
                "[H24] 64.3 → 78.4 %",
                "retained",
                1,
                {"augmentation": "off"},
                {"augmentation": "on"},
            ),
            Claim(
                "RandAugment instead of crops and flips alone: more is retained",
                "–",
                "retained",
                1,
                {"augmentation": "on"},
                {"augmentation": "strong"},
            ),
        ),
    ),
    Finding(
        "emergence",
        "Along training",
        lambda store: frames.runs(store, "findings-emergence"),
        ("architecture",),
        (
            *_by_depth(
                "after 2 epochs less is retained than at initial weights", "[M23] within the first epochs", "early", -1
            ),
            *_by_depth("from epoch 5 to the end what is retained stays", "[M23] and stays", "late", 0, margin=5.0),
            Claim(
                "Relative to their initial norm, weights behind the peak move less than those before it",
                "[M23], which does not say relative to what",
                "moved",
                -1,
                unit="of ‖W₀‖",
            ),
        ),
        unit="runs",
    ),
    Finding(
        "temperature",
        "Softmax temperature in ID training",
        _of("temperature"),
        ("architecture", "temperature"),
        (
            Claim(
                "Temperature 5 instead of 0.2: the last layer has a lower rank",
                "Masarczyk et al. 2025",
                "last_rank",
                -1,
                {"temperature": 0.2},
                {"temperature": 5.0},
                unit="directions",
            ),
            Claim(
                "… and less is retained",
                "Masarczyk et al. 2025",
                "retained",
                -1,
                {"temperature": 0.2},
                {"temperature": 5.0},
            ),
        ),
    ),
    Finding(
        "continual",
        "Two tasks, one after the other",
        lambda store: frames.courses(store, "findings-continual"),
        ("architecture",),
        (
            Claim(
                "The tunnel of task 2 serves task 1 as well as its own (E1+T2)", "[M23]", "new_tunnel", 0, margin=2.0
            ),
            Claim("… the same with the classifier trained anew", "[M23]", "new_tunnel_refit", 0, margin=2.0),
            Claim("After task 2 the old tunnel brings task 1 back (E2+T1 against E2+T2)", "[H24]", "old_tunnel", 1),
            Claim("… the same with the classifier trained anew", "[H24]", "old_tunnel_refit", 1),
            Claim(
                "17 layers instead of 11: more is forgotten",
                "[M23]",
                "forgetting",
                1,
                {"architecture": "vggm11"},
                {"architecture": "vggm17"},
            ),
        ),
        unit="courses",
    ),
    Finding(
        "resnets",
        "Four published CIFAR-10 ResNets",
        frames.deepest_less_shallowest,
        (),
        (Claim("56 layers instead of 20: less is retained", "[H24] depth", "retained", -1),),
        unit="OOD datasets",
    ),
    Finding(
        "solvers",
        "The recipe of the probes",
        frames.solvers,
        (),
        (
            Claim(
                "AdamW, 30 epochs, not standardised, instead of converged probes: as much is retained",
                "– (the probe of [H24])",
                "adamw",
                0,
                margin=2.0,
            ),
            Claim(
                "Ridge, not standardised, instead of converged probes: as much is retained", "–", "ridge", 0, margin=2.0
            ),
        ),
        unit="networks",
    ),
)


def _split_dagger(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(dagger=frame["architecture"].str.endswith("_dagger"))
