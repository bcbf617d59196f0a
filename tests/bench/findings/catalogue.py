"""What is claimed: each finding of ``docs/findings.md`` with its claims, in the order of the document."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from . import frames
from .claims import Claim, Finding


def _of(name: str) -> Callable[[str], pd.DataFrame]:
    return lambda store: frames.backbones(store, f"findings-{name}")


def _by_depth(text: str, papers: str, outcome: str, sign: int, margin: float = 0.0) -> list[Claim]:
    """The same of either network: averaged, opposite answers would hide each other."""
    return [
        Claim(f"{layers} layers: {text}", papers, outcome, sign, only={"architecture": f"vggm{layers}"}, margin=margin)
        for layers in (11, 17)
    ]


def _pair_by_depth(text: str, papers: str, low: dict[str, object], high: dict[str, object]) -> list[Claim]:
    """The same comparison in either network, of what is retained."""
    of = {11: "vggm11", 17: "vggm17"}
    return [
        Claim(
            f"{layers} layers: {text}",
            papers,
            "retained",
            1,
            low | {"architecture": name},
            high | {"architecture": name},
        )
        for layers, name in of.items()
    ]


_FEW, _MANY = {"id_classes": 10, "images_per_class": 270}, {"id_classes": 100, "images_per_class": 27}
_LENGTH = "layers"


def _by_solver(text: str, papers: str, name: str) -> list[Claim]:
    """A solver against converged probes: what is retained, each layer's accuracy, the peak layer."""
    return [
        Claim(f"{text}, instead of converged probes: as much is retained", papers, name, 0, margin=2.0),
        Claim("… layers are as accurate on OOD datasets, on average", papers, f"{name}_layers", 0, margin=2.0),
        Claim(
            "… and the peak lies as deep, on average",
            papers,
            f"{name}_peaks",
            0,
            margin=1.0,
            unit=_LENGTH,
        ),
    ]


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
            *_pair_by_depth(
                "64 px instead of 32: more is retained",
                "[H24] SHAP slope +.057",
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
            Claim(
                "… and so they do by the root mean square change of a weight", "[M23]", "changed", -1, unit="a weight"
            ),
        ),
        unit="runs",
        outcomes=(
            *("early", "late", *(f"after_{epoch}" for epoch in (0, 1, 2, 5, 10, 16))),
            *("before", "behind", "moved", "change_before", "change_behind", "changed"),
        ),
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
            Claim("Trained further on task 1, E2+T1 does better than E2 without a tunnel", "[H24]", "tuned_tunnel", 1),
            Claim(
                "17 layers instead of 11: more is forgotten",
                "[M23]",
                "forgetting",
                1,
                {"architecture": "vggm11"},
                {"architecture": "vggm17"},
            ),
            Claim(
                "… the same with the classifier trained anew",
                "[M23]",
                "forgetting_refit",
                1,
                {"architecture": "vggm11"},
                {"architecture": "vggm17"},
            ),
        ),
        unit="courses",
        outcomes=(
            *("forgetting_refit", "forgetting", "new_tunnel", "old_tunnel", "new_tunnel_refit", "old_tunnel_refit"),
            *(f"{parts}{end}" for parts in ("E1+T1", "E1+T2", "E2+T2", "E2+T1") for end in ("", " refit")),
            *("E2+T1 fine-tuned", "E2 fine-tuned", "tuned_tunnel"),
        ),
    ),
    Finding(
        "resnets",
        "Four published CIFAR-10 ResNets",
        frames.deepest_less_shallowest,
        (),
        (
            Claim("56 layers instead of 20: less is retained", "[H24] depth", "retained", -1),
            Claim("… as the papers' probes read them (AdamW, 30 epochs)", "[H24] depth", "adamw", -1),
        ),
        unit="OOD datasets",
        outcomes=tuple(f"{of}_{depth}" for of in ("retained", "adamw") for depth in frames.NETWORKS.values()),
    ),
    Finding(
        "solvers",
        "The recipe of the probes",
        frames.solvers,
        (),
        (
            *_by_solver("AdamW, 30 epochs, not standardised", "– (the probe of [H24])", "adamw"),
            *_by_solver("Ridge, not standardised", "–", "ridge"),
            Claim(
                "AdamW after its last epoch, not the one that held-out images choose: as much is retained",
                "–",
                "adamw_last",
                0,
                margin=2.0,
            ),
            Claim(
                "AdamW and peaks at the epoch that is best on test images: as much is retained",
                "– (the rule of [H24])",
                "adamw_best",
                0,
                margin=2.0,
            ),
        ),
        unit="networks",
        outcomes=(
            *(f"retained_{solver}" for solver in frames.SOLVERS),
            *(f"{solver}{end}" for solver in ("adamw", "ridge") for end in ("", "_layers", "_peaks")),
            *("adamw_last", "adamw_best"),
        ),
    ),
)


def _split_dagger(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(dagger=frame["architecture"].str.endswith("_dagger"))
