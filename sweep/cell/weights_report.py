"""What ``--weights NAME`` says: whether weights fit, how they would, what they expect, and whether they see anything.

Shapes: N images, H and W pixels, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from sweep.base.errors import UserError
from sweep.config import Config
from sweep.data import Dataset, View, evaluation_view, open_dataset
from sweep.models import (
    Feeder,
    WeightsSource,
    build_backbone,
    classes_in_file,
    layers_of,
    match_weights,
    propose_key_map,
)
from sweep.study import NOT_KNOWN, cache_dir, dataset_options, layers_said, made_view, weights_source

_IMAGES = 200  # test images that are looked at, evenly over the test part
_BATCH = 25
_STILL = 1e-4  # of a layer's size: if images differ by less, they are not told apart
_LARGEST = 65_504  # float16, which embeddings are kept in, ends here
_IMAGENET = "imagenet1k"


@dataclass(frozen=True)
class WeightsReport:
    """A look at weights in words, and whether they fit the architecture."""

    text: str
    fits: bool


@dataclass(frozen=True)
class TestImages:
    """Some test images of the ID dataset, and the label of each among the weights' own classes, if that is known."""

    pixels_NHWC: Tensor
    labels_N: np.ndarray | None
    why_unlabelled: str


def look_at_weights(
    config: Config,
    name: str,
    architecture: str,
    resolution: int,
    id_dataset: str,
    *,
    seen: str = "study",
    every_name: bool = False,
) -> WeightsReport:
    """How weights of the config fit one architecture; what fits is loaded, and shown test images of the ID dataset.

    Parameters
    ----------
    seen : the view of images, by its name.
    every_name : list all names that do not fit instead of the first.
    """
    source = weights_source(config, architecture, name)
    assert source is not None
    lines = [f"source: {source}"]
    try:
        matched = None if source.kind == "timm" else match_weights(architecture, source, resolution=resolution)
    except UserError as error:
        return _written(architecture, resolution, name, fits=False, lines=[*lines, str(error)])
    lines += matched.report(every_name=every_name).splitlines() if matched else []
    view = made_view(seen, resolution, source)
    lines += [*_expected(source), f"shown to it ({seen}): {view}"]
    fits = matched is None or matched.fits
    if not fits:
        assert matched is not None
        return _written(
            architecture, resolution, name, fits=False, lines=lines + _proposed(name, architecture, source, resolution)
        )
    try:
        lines += _seen(config, source, architecture, view, id_dataset)
    except UserError as error:  # timm's own weights without a connection, layers that cannot be told apart
        return _written(architecture, resolution, name, fits=False, lines=[*lines, str(error)])
    return _written(architecture, resolution, name, fits=True, lines=lines)


def _written(architecture: str, resolution: int, name: str, *, fits: bool, lines: Sequence[str]) -> WeightsReport:
    head = f"{name}: {architecture} at {resolution} px: {'fits' if fits else 'does not fit'}"
    return WeightsReport("\n".join([head, *(f"    {line}" for line in lines)]), fits)


def _expected(source: WeightsSource) -> list[str]:
    """Pixels and corpus, and who says so."""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (source.mean, source.std))
    crop = f"; evaluated by {source.interpolation}, crop {source.crop:.3g}" if source.crop else ""
    known = str(source.trained_on) if source.trained_on else "not known: γ and id_images are null (trained_on says it)"
    return [f"pixels: mean [{mean}], std [{std}] ({source.pixels_from}){crop}", f"trained on: {known}"]


def _proposed(name: str, architecture: str, source: WeightsSource, resolution: int) -> list[str]:
    """A key map that would make a checkpoint fit, as YAML to paste."""
    proposal = propose_key_map(architecture, source, resolution=resolution)
    if proposal is None:
        return ["shape and order of the tensors do not tell which is which: is it this architecture?"]
    how = f", {proposal.by_order} of them by their order alone: look at these" if proposal.by_order else ""
    key_map = dict(source.key_map) | proposal.key_map
    return [
        f"shape and order tell which is which ({proposal.tensors} tensors{how}); to paste under weights:",
        f"  {name}:",
        "    key_map:",
        *(f"      {_quoted(pattern)}: {_quoted(replacement)}" for pattern, replacement in key_map.items()),
    ]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# ------------------------------------------------------------------------------------------------- what they see


def _seen(config: Config, source: WeightsSource, architecture: str, view: View, id_dataset: str) -> list[str]:
    """The network with its weights, shown test images: activations of its layers, and its own classifier's score."""
    resolution = view.resolution
    classes = classes_in_file(architecture, source, resolution=resolution)
    model = build_backbone(architecture, classes=classes or 2, resolution=resolution, weights=source).eval()
    shown = test_images(config, source, id_dataset, view, classes)
    asked = layers_said(config, architecture)
    layers = list(dict.fromkeys(layer.name for layer in layers_of(architecture, resolution=resolution, pattern=asked)))
    feeder = Feeder(source.mean, source.std, device=torch.device("cpu"), layout=torch.channels_last)
    logits_NC, problems = run(model, layers, feeder.normalized(shown.pixels_NHWC))
    sane = problems or "none of them dead or exploding"
    lines = [f"forward pass of {len(logits_NC)} images: {len(layers)} probed layers, {sane}"]
    return [*lines, _score(logits_NC, shown, classes, id_dataset)]


def run(model: nn.Module, layers: Sequence[str], images_NCHW: Tensor) -> tuple[Tensor, str]:
    """Logits (N, C), and what is wrong with the activations of these layers; empty if nothing is."""
    modules, outputs = dict(model.named_modules()), dict[str, list[Tensor]]()

    def keep(name: str, output: object) -> None:
        """Note what a layer gave."""
        tensor = output[0] if isinstance(output, tuple | list) else output
        if isinstance(tensor, Tensor) and len(tensor):
            outputs.setdefault(name, []).append(_summary(tensor.float()))

    handles = [
        modules[name].register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name in layers
    ]
    try:
        with torch.inference_mode():
            logits_NC = torch.cat([model(part) for part in images_NCHW.split(_BATCH)])
    finally:
        for handle in handles:
            handle.remove()
    wrong = [f"{name} {problem}" for name, seen in outputs.items() if (problem := _problem(torch.stack(seen)))]
    return logits_NC, "; ".join(wrong)


def _summary(output: Tensor) -> Tensor:
    """Largest magnitude, root mean square, and root mean square of how images differ; one batch of a layer."""
    flat_ND = output.flatten(1)
    size, differs = flat_ND.square().mean().sqrt(), (flat_ND - flat_ND.mean(0)).square().mean().sqrt()
    return torch.stack([flat_ND.abs().max(), size, differs])


def _problem(seen: Tensor) -> str | None:
    largest, size, differs = seen.amax(0).tolist()
    if not math.isfinite(largest) or not math.isfinite(size):
        return "is not finite"
    if largest > _LARGEST:
        return f"explodes (up to {largest:.2g})"
    if size == 0 or differs < _STILL * size:
        return "is dead (the same for all images)"
    return None


def test_images(config: Config, source: WeightsSource, id_dataset: str, view: View, classes: int | None) -> TestImages:
    """Test images of the ID dataset with labels among the weights' classes; noise where the data is not here."""
    try:
        dataset = open_dataset(id_dataset, dataset_options(config, id_dataset), cache_dir=cache_dir(config))
    except UserError as error:
        why = f"{id_dataset} is not here ({str(error).splitlines()[0]})"
        if id_dataset == NOT_KNOWN:
            why = "what the weights were trained on is not known"
        resolution, generator = view.resolution, torch.Generator().manual_seed(0)
        noise_NHWC = torch.randint(0, 256, (8, resolution, resolution, 3), generator=generator, dtype=torch.uint8)
        return TestImages(noise_NHWC, None, f"{why}; noise was shown")
    wanted = np.unique(np.linspace(0, len(dataset.test) - 1, min(_IMAGES, len(dataset.test))).astype(int))
    found = [(index, image) for index, image in dataset.test.read_many(wanted) if not isinstance(image, Exception)]
    pixels_NHWC = torch.from_numpy(np.stack([np.asarray(evaluation_view(image, view)) for _, image in found]))
    own, why = own_classes(dataset, source, classes)
    labels_N = None if own is None else np.array([own[dataset.test.labels[index]] for index, _ in found])
    return TestImages(pixels_NHWC, labels_N, why)


def own_classes(dataset: Dataset, source: WeightsSource, classes: int | None) -> tuple[list[int] | None, str]:
    """Which output of the weights' classifier each class of a dataset is; None, with the reason, if that is not known.

    It is known where the weights were last trained on this dataset, and for ImageNet's by the synsets.
    """
    if classes is None:
        return None, "there is no classifier among the weights"
    last = (source.trained_on.corpus or "").split(" + ")[-1] if source.trained_on else ""
    if last == dataset.name and classes == len(dataset.class_names):
        return list(range(classes)), ""
    synsets = {name: number for number, name in enumerate(ImageNetInfo(_IMAGENET).label_names())}
    if classes == len(synsets) and all(name in synsets for name in dataset.class_names):
        return [synsets[name] for name in dataset.class_names], ""
    return None, f"which of its {classes} classes are those of {dataset.name} is not known (trained_on says it)"


def _score(logits_NC: Tensor, shown: TestImages, classes: int | None, id_dataset: str) -> str:
    """Share of test images that the weights' own classifier gets right."""
    if shown.labels_N is None:
        return f"its own classifier is not scored: {shown.why_unlabelled}"
    right, count = int((logits_NC.argmax(1).numpy() == shown.labels_N).sum()), len(shown.labels_N)
    assert classes is not None
    chance = count / classes
    poor = right < chance + 3 * math.sqrt(chance) + 1
    doubt = "; that is chance: are names, pixels and the order of classes right?" if poor else ""
    return f"its own classifier: {100 * right / count:.1f} % of {count} test images of {id_dataset}{doubt}"
