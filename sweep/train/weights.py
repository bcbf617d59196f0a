"""The weights of a cell: loaded from the store, from named weights, or trained and put into the store."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from sweep.base.errors import StorageError, UserError
from sweep.base.measure import Measured, measured
from sweep.base.seeds import derive_seed
from sweep.base.spans import span
from sweep.base.store import Store
from sweep.data import Images, Library, TrainImages
from sweep.models import IMAGENET_MEAN, IMAGENET_STD, build_backbone, layers_of, memory_layout
from sweep.study import Backbone, variables
from sweep.train.augment import policy
from sweep.train.batches import AugmentedImages, CroppedImages, PlainImages, squares
from sweep.train.checkpoint import BestWeights, Checkpoints, best_name, checkpoint_name, clear_checkpoint, forget_best
from sweep.train.pretrain import (
    NOTHING_ALONG,
    Along,
    ImageSource,
    Labelled,
    OnEpoch,
    Trained,
    TrainingDivergedError,
    pretrain,
)
from sweep.train.ranks import ALONE, Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """How weights came about; None where they were downloaded and nobody knows.

    Attributes
    ----------
    trained_on : images, of ID training here.
    epoch : whose weights these are, 1 is the first, 0 before it.
    heldout_top1, test_top1 : of the backbone's own classifier, in [0, 1].
    seconds, peak_bytes : of ID training up to that epoch; the peak is not known before its end.
    """

    trained_on: int | None = None
    epoch: int | None = None
    heldout_top1: float | None = None
    test_top1: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Weights:
    """A backbone with its weights in place, how they came about, and the mean and std of the pixels they expect.

    ``head_refit_top1``: ID test top-1 with the classifier alone trained anew, where that was measured.
    """

    model: nn.Module
    facts: Facts
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head_refit_top1: float | None = None


@dataclass(frozen=True)
class Workshop:
    """What obtaining weights needs besides the backbone itself.

    Attributes
    ----------
    run : key of the backbone's kept weights.
    stages : keys of its weights after epochs of ID training.
    images : what identifies its ID images, for people.
    start : makes the network to train (or to load weights into) of the untrained one.
    sharing : how many tasks share a GPU's memory.
    """

    store: Store
    library: Library
    run: str
    device: torch.device
    loader_workers: int = 0
    on_epoch: OnEpoch = lambda _history, _total: None
    ranks: Ranks = ALONE  # who trains together; only the first of them has a use for all the rest
    stages: Mapping[int, str] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    start: Callable[[nn.Module], nn.Module] = lambda network: network
    sharing: int = 1


def train_missing(backbones: Iterable[Backbone], shop: Workshop) -> None:
    """Train once for all those epochs of one backbone whose weights the store lacks; named weights need nothing.

    Where the kept checkpoint is there and only earlier epochs are asked for (a config grew ``probe.at_epochs`` after
    it was run), training is repeated from the same seeds, only as far as the last of them.
    """
    lacking = [b for b in backbones if b.recipe is not None and not has_weights(b, shop)]
    if lacking:
        backbone, epochs = lacking[0].trained, {backbone.epoch for backbone in lacking}
        if backbone.processes != shop.ranks.size:
            what = f"the weights of {backbone.label}, which {backbone.processes} processes train together"
            raise StorageError(None, f"{what}, are not in the store (any more)")
        shop.ranks.tell(epochs)
        _train_and_publish(backbone, shop, epochs)


def help_training(backbone: Backbone, shop: Workshop) -> None:
    """Take part, as another process than the first, in what :func:`train_missing` does there; it publishes alone."""
    epochs: set[int | None] | None = shop.ranks.hear()
    if epochs:
        passed = frozenset(epoch for epoch in epochs if epoch is not None)
        train_backbone(backbone, shop, along=Along(passed), last_epoch=None if None in epochs else max(passed))


def has_weights(backbone: Backbone, shop: Workshop) -> bool:
    """Whether nothing needs to be trained: named weights, or finished ones in the store."""
    if backbone.recipe is None:
        return True
    return all(shop.store.exists(f"{_stem(backbone, shop)}.{part}") for part in ("json", "safetensors"))


def obtain_weights(backbone: Backbone, shop: Workshop) -> Weights:
    """A backbone ready to embed: named weights, or those that :func:`train_missing` put into the store."""
    if backbone.recipe is None:
        return _named(backbone, shop)
    state, facts = _read_published(_stem(backbone, shop), shop.store)
    model = _build(backbone, shop)
    model.load_state_dict(state)
    return Weights(model, facts, IMAGENET_MEAN, IMAGENET_STD)


def _read_published(stem: str, store: Store) -> tuple[dict[str, torch.Tensor], Facts]:
    """Finished weights and what is known of them; damaged ones are no longer finished, and another attempt trains."""
    try:
        about = json.loads(store.get(f"{stem}.json"))
        if about.get("key", stem) != stem:  # older ones do not say
            raise ValueError(f"they are {about['key']}")
        data = store.get(f"{stem}.safetensors")
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise ValueError("its bytes are not those that were written")
        return safetensors.torch.load(data), Facts(**about["facts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        store.delete(f"{stem}.json")  # it says that the weights are complete
        raise StorageError(None, f"{store.path(stem)}.safetensors is damaged ({error}); it is trained again") from error


def _stem(backbone: Backbone, shop: Workshop) -> str:
    return f"weights/{shop.run if backbone.epoch is None else shop.stages[backbone.epoch]}"


def _named(backbone: Backbone, shop: Workshop) -> Weights:
    assert backbone.weights is not None
    return Weights(_build(backbone, shop), Facts(), backbone.weights.mean, backbone.weights.std)


def initial_network(backbone: Backbone, run: str) -> nn.Module:
    """A backbone before its first step, as the key of its training run draws it; of named weights, with these."""
    return build_backbone(
        backbone.architecture,
        classes=backbone.head,
        resolution=backbone.resolution,
        width=backbone.width,
        weights=backbone.weights,
        seed=derive_seed("init", run),
    )


def _build(backbone: Backbone, shop: Workshop) -> nn.Module:
    return shop.start(initial_network(backbone, shop.run))


def _train_and_publish(backbone: Backbone, shop: Workshop, epochs: set[int | None]) -> None:
    """Train and publish the weights of these epochs as they come, None is the kept one; the checkpoint goes last."""
    passed = frozenset(epoch for epoch in epochs if epoch is not None)
    along = Along(passed, lambda trained: _publish(backbone.after(trained.epoch), shop, trained))
    try:
        trained, cost = train_backbone(backbone, shop, along=along, last_epoch=None if None in epochs else max(passed))
    except TrainingDivergedError:
        clear_checkpoint(shop.store, shop.run)  # another attempt would meet the same, with it or without
        raise
    if None in epochs:
        _publish(backbone, shop, trained, peak_bytes=cost.peak_bytes)
    clear_checkpoint(shop.store, shop.run)


def train_backbone(
    backbone: Backbone, shop: Workshop, *, along: Along = NOTHING_ALONG, last_epoch: int | None = None
) -> tuple[Trained, Measured]:
    """Train a backbone by its recipe, from its checkpoint if there is one; see :func:`sweep.train.pretrain.pretrain`.

    The caller publishes what it needs of the result, and deletes the checkpoint after that.
    """
    assert backbone.recipe is not None
    with shop.ranks.all_or_none(shop.device):
        with span("opening images", backbone.id_dataset):
            source, heldout, test = _training_data(backbone, shop)
        if shop.ranks.size > 1 and len(source.labels_N) < 2 * shop.ranks.size:
            found = f"{len(source.labels_N)} training images of {backbone.id_dataset}"
            raise UserError(f"{found} are too few for recipe.data_parallel = {shop.ranks.size}")
        model = _build(backbone, shop)
        layout = layout_of(backbone, shop.device)
    with measured(shop.device) as cost, shop.ranks.watched():
        trained = pretrain(
            model,
            source,
            heldout=heldout,
            test=test,
            recipe=backbone.recipe,
            key=shop.run,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            device=shop.device,
            checkpoints=_checkpoints(shop),
            on_epoch=shop.on_epoch,
            along=along,
            last_epoch=last_epoch,
            ranks=shop.ranks,
            layout=layout,
        )
    return trained, cost


def layout_of(backbone: Backbone, device: torch.device) -> torch.memory_format:
    """By the layers of the rule: how a backbone is trained does not depend on which of its layers a study probes."""
    try:
        layers = layers_of(backbone.architecture, resolution=backbone.resolution, width=backbone.width)
        return memory_layout(layers, device)
    except UserError:  # a network for which layers must be named
        return torch.channels_last


def _checkpoints(shop: Workshop) -> Checkpoints:
    store, run = shop.store, shop.run
    if not shop.ranks.leads:
        return Checkpoints(load=lambda: None, save=lambda _data: None, every_seconds=math.inf)

    def read(name: str) -> bytes | None:
        return store.get(name) if store.exists(name) else None

    return Checkpoints(
        load=lambda: read(checkpoint_name(run)),
        save=lambda data: store.put(checkpoint_name(run), data),
        best=BestWeights(
            load=lambda epoch: read(best_name(run, epoch)),
            save=lambda epoch, data: store.put(best_name(run, epoch), data),
            forget_others=lambda epoch: forget_best(store, run, but=best_name(run, epoch)),
        ),
    )


def _publish(backbone: Backbone, shop: Workshop, trained: Trained, *, peak_bytes: int | None = None) -> None:
    """Weights first, then the JSON that says they are complete."""
    facts = Facts(
        trained_on=trained.images,
        epoch=trained.epoch,
        heldout_top1=trained.heldout_top1,
        test_top1=trained.test_top1,
        seconds=trained.seconds,
        peak_bytes=peak_bytes,
    )
    state = {name: value.contiguous() for name, value in trained.state.items()}
    stem = _stem(backbone, shop)
    with span("storing weights", backbone.label):
        data = safetensors.torch.save(state)
        shop.store.put(f"{stem}.safetensors", data)
        shop.store.put(f"{stem}.json", _about(backbone, facts, trained, shop, data).encode())


def _about(backbone: Backbone, facts: Facts, trained: Trained, shop: Workshop, data: bytes) -> str:
    about = {
        "key": _stem(backbone, shop),
        "backbone": variables(backbone),
        "images": shop.images,
        "facts": asdict(facts),
        "sha256": hashlib.sha256(data).hexdigest(),
        "history": trained.history,
    }
    return json.dumps(about, indent=1)


def with_noise(labels_N: np.ndarray, share: float, classes: int, key: tuple[str | int, ...]) -> np.ndarray:
    """Labels of which a share, drawn image by image, is another class, each of the others equally likely (N,).

    Held-out and test images keep theirs, and so do probes. The images whose label is wrong at one share are among those
    at a larger one; what draws them (``key``) are the images and the replicate, so that architectures are compared on
    the same labels.
    """
    if not share or classes < 2:
        return labels_N
    rng = np.random.default_rng(derive_seed("label noise", *key))
    lot_N, step_N = rng.random(len(labels_N)), rng.integers(1, classes, len(labels_N))
    return np.where(lot_N < share, (labels_N + step_N) % classes, labels_N).astype(labels_N.dtype)


def _training_data(backbone: Backbone, shop: Workshop) -> tuple[ImageSource, Labelled, Labelled]:
    """ID training images under the backbone's augmentation, its held-out part, and its test set."""
    recipe, name = backbone.recipe, backbone.id_dataset
    assert recipe is not None
    chosen = {"classes": backbone.id_classes, "images_per_class": backbone.images_per_class}
    images = shop.library.images(name, backbone.view, **chosen)
    fit_N = ~images.heldout_N if recipe.train_on == "fit" else np.ones_like(images.heldout_N)
    positions_N = np.flatnonzero(fit_N)
    noisy_N = with_noise(images.train_labels_N, recipe.label_noise, images.classes, (images.fingerprint, backbone.seed))
    labels_N = noisy_N[positions_N]
    source = _source(backbone, shop, images, labels_N, positions_N)
    held_N = np.flatnonzero(images.heldout_N)
    heldout = Labelled(images.train_NHWC, images.train_labels_N[held_N], held_N)  # in the map: they may be many GB
    return source, heldout, Labelled(images.test_NHWC, images.test_labels_N)


def _places(images: TrainImages, shown: Images, positions_N: np.ndarray) -> np.ndarray:
    """Where images of the evaluation view lie among those that crops are cut from: each view has its own broken ones.

    Raises
    ------
    UserError
        If one of them is not there.
    """
    wanted_N = positions_N if shown.kept_N is None else shown.kept_N[positions_N]
    places_N = np.searchsorted(images.kept_N, wanted_N)
    there_N = places_N < len(images.kept_N)
    if not there_N.all() or (images.kept_N[places_N] != wanted_N).any():
        raise UserError(f"training images that can be evaluated cannot be read whole: {'; '.join(images.skipped[:5])}")
    return places_N


def _source(
    backbone: Backbone, shop: Workshop, shown: Images, labels_N: np.ndarray, positions_N: np.ndarray
) -> ImageSource:
    """Batches of a backbone's augmentation: evaluation images as they are, our crops, or a plug-in's transform."""
    augmentation, side = policy(str(backbone.augmentation)), backbone.resolution
    if augmentation.source == "evaluation" and augmentation.build is None:
        return PlainImages(shown.train_NHWC, labels_N, positions_N, sharing=shop.sharing)
    if augmentation.source == "evaluation":
        images = squares(shown.train_NHWC)
    else:
        chosen = {"classes": backbone.id_classes, "images_per_class": backbone.images_per_class}
        images = shop.library.training_images(backbone.id_dataset, side, **chosen)
        positions_N = _places(images, shown, positions_N)
    if augmentation.build is None:
        how = {"operations": augmentation.operations, "ahead": shop.loader_workers > 0}
        return CroppedImages(images, labels_N, positions_N, side=side, sharing=shop.sharing, **how)
    transform = augmentation.build(side)
    return AugmentedImages(images, labels_N, positions_N, transform=transform, workers=shop.loader_workers)
