"""A trained backbone with some layers set to other weights: its initial ones, random ones, or another backbone's."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from sweep.base.errors import UserError
from sweep.base.seeds import derive_seed
from sweep.models import anatomy, build_backbone, layers_of
from sweep.study import Backbone, Donor
from sweep.train.look import glasses_of, look, refitted_top1
from sweep.train.weights import Facts, Weights, Workshop, obtain_weights, train_missing


def obtain(backbone: Backbone, shop: Workshop, donor: Donor | None) -> Weights:
    """A backbone ready to embed, as :func:`sweep.train.obtain_weights`, with its intervention if it has one."""
    return obtain_weights(backbone, shop) if backbone.intervention is None else _intervened(backbone, shop, donor)


def _intervened(backbone: Backbone, shop: Workshop, donor: Donor | None) -> Weights:
    """A backbone with its intervention, and how good its classifier is now: as it is, and trained anew alone.

    Parameters
    ----------
    donor : where the layers come from, if from another backbone; it is trained if the store lacks it.

    Raises
    ------
    UserError
        If there is no such layer, or those of the donor have other shapes.
    """
    changed = backbone.intervention
    assert changed is not None
    weights = obtain_weights(backbone.trained, shop)
    layers = layers_of(
        backbone.architecture,
        resolution=backbone.resolution,
        width=backbone.width,
        pattern=backbone.layers_pattern,
    )
    about = anatomy(weights.model, backbone.architecture, layers, resolution=backbone.resolution)
    last = len(layers) if changed.last is None else changed.last
    if max(changed.first, last) > len(layers):
        raise UserError(f"intervene: {changed}: {backbone.architecture} has {len(layers)} layers")
    own, other = weights.model.state_dict(), _other(backbone, shop, donor).state_dict()
    spliced = about.spliced(own, other, range(changed.first, last + 1), head=changed.head)
    if unlike := [name for name in own if own[name].shape != spliced[name].shape]:
        raise UserError(f"intervene: {changed}: {unlike[0]} has another shape there")
    weights.model.load_state_dict(spliced)
    return _looked_at(backbone, shop, weights, about.head)


def _other(backbone: Backbone, shop: Workshop, donor: Donor | None) -> nn.Module:
    """The network that the layers come from."""
    if donor is not None:
        epoch = donor.backbone.epoch
        stages = {} if epoch is None else {epoch: donor.weights}
        elsewhere = replace(shop, run=donor.run, images=donor.images, stages=stages)
        train_missing([donor.backbone], elsewhere)
        return obtain_weights(donor.backbone, elsewhere).model
    assert backbone.intervention is not None
    return build_backbone(
        backbone.architecture,
        classes=backbone.head,
        resolution=backbone.resolution,
        width=backbone.width,
        seed=derive_seed("init" if backbone.intervention.source == "initial" else "random", shop.run),
    )


def _looked_at(backbone: Backbone, shop: Workshop, weights: Weights, head: str) -> Weights:
    """The weights with accuracies of their own; none for downloaded ones, whose classifier is another task's."""
    trained = backbone.recipe is not None
    if not trained and backbone.id_dataset not in shop.library.options:
        return replace(weights, facts=Facts())
    images = shop.library.images(
        backbone.id_dataset, backbone.view, classes=backbone.id_classes, images_per_class=backbone.images_per_class
    )
    classifier, glasses = weights.model.get_submodule(head), glasses_of(backbone, shop.device)
    train, test = (look(weights.model, classifier, part, glasses) for part in (images.train_NHWC, images.test_NHWC))
    held_N = train.correct(images.train_labels_N)[images.heldout_N]
    facts = replace(
        weights.facts,
        heldout_top1=float(held_N.mean()) if trained and len(held_N) else None,
        test_top1=float(test.correct(images.test_labels_N).mean()) if trained else None,
    )
    return replace(weights, facts=facts, head_refit_top1=refitted_top1(train, test, images, shop.device))
