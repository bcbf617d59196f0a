"""torchvision's weights by name: an alias resolved, the pixels they expect, and the tensors themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchvision.models import get_weight

from sweep.base.errors import UserError


@dataclass(frozen=True)
class TorchvisionFacts:
    """An entry of torchvision's enumerations, by its own name (DEFAULT is another's).

    Attributes
    ----------
    resolution : of its own evaluation, px; ``crop`` is that side as a share of the resized image's.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resolution: int | None
    crop: float | None
    interpolation: str | None


def torchvision_facts(name: str) -> TorchvisionFacts:
    """Facts of an entry of torchvision's weight enumerations.

    Raises
    ------
    UserError
        If there is none of that name, or it is no classifier's.
    """
    entry = _entry(name)
    transforms = entry.transforms()
    if not (hasattr(transforms, "mean") and hasattr(transforms, "std")):
        raise UserError(f"torchvision's {name} states no mean and std of its pixels: it is not a classifier of images")
    crop, resize = (getattr(transforms, key, [None])[0] for key in ("crop_size", "resize_size"))
    return TorchvisionFacts(
        name=str(entry),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        resolution=crop,
        crop=crop / resize if crop and resize else None,
        interpolation=getattr(getattr(transforms, "interpolation", None), "value", None),
    )


def _entry(name: str) -> Any:
    try:
        return get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(
            f"torchvision has no weights {name!r} ({error}); an example: ResNet50_Weights.IMAGENET1K_V2"
        ) from None


def torchvision_state(name: str) -> dict[str, Tensor]:
    """The tensors of torchvision's weights, from its cache or downloaded.

    Raises
    ------
    UserError
        If they cannot be had.
    """
    weights = _entry(name)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # an OSError where network, host or disk failed; else a wrong hash or a damaged file
        file = weights.url.rsplit("/", 1)[-1]
        advice = (
            f"is there a network? Or put {file} into $TORCH_HOME/hub/checkpoints"
            if isinstance(error, OSError)
            else f"the network is not to blame: remove {file} from $TORCH_HOME/hub/checkpoints and try again"
        )
        raise UserError(
            f"torchvision's {name} could not be loaded ({type(error).__name__}: {error}); {advice}"
        ) from error
