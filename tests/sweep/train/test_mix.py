"""Mixing within a batch: what the network sees, and the loss, against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sweep.config import Recipe
from sweep.study import keys as study_keys
from sweep.train.mix import mixed
from tests.sweep.train.test_pretrain import RECIPE, nowhere, train

SIDE, IMAGES = 16, 6
EVER = [(True, [3, 4, 0, 5, 1, 2]), (True, [5, 0, 3, 4, 1, 2]), (False, [0, 2, 5, 4, 3, 1])]  # whether mixup, and order
AT = {"key": "k", "epoch": 0, "device": torch.device("cpu")}


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_batch_is_what_its_share_says(kind):
    recipe = Recipe(**{kind: 1.0})
    flat_BCHW = torch.arange(IMAGES).float()[:, None, None, None].expand(-1, 3, SIDE, SIDE)
    logits_BK, target_B = torch.randn(IMAGES, 4), torch.arange(IMAGES) % 4
    shares = []
    for batch in range(30):
        mix = mixed(recipe, IMAGES, SIDE, **AT, batch=batch)
        partner_B = mix.order_B.float()
        own_B = torch.arange(IMAGES).float()
        expected_B = mix.share * own_B + (1 - mix.share) * partner_B  # of flat images only the mean is left
        torch.testing.assert_close(mix.images(flat_BCHW).mean(dim=(1, 2, 3)), expected_B, atol=1e-4, rtol=1e-4)
        one_hot_BK = mix.share * F.one_hot(target_B, 4) + (1 - mix.share) * F.one_hot(target_B[mix.order_B], 4)
        loss = mix.loss(logits_BK, target_B, smoothing=0.1)
        torch.testing.assert_close(loss, F.cross_entropy(logits_BK, one_hot_BK, label_smoothing=0.1))
        assert mix.share == mixed(recipe, IMAGES, SIDE, **AT, batch=batch).share
        shares.append(mix.share)
    assert np.std(shares) > 0.1  # Beta(1, 1) has .29
    assert mixed(Recipe(), IMAGES, SIDE, **AT, batch=0) is None


def test_both_kinds_take_turns():
    recipe = Recipe(mixup=0.2, cutmix=1.0)
    boxes = [mixed(recipe, IMAGES, SIDE, **AT, batch=batch).box is None for batch in range(60)]
    assert 15 < sum(boxes) < 45


def test_recipes_that_mix_or_heat_train_otherwise_and_the_defaults_as_before():
    states = {
        name: train(nowhere(), recipe=RECIPE.model_copy(update=update)).state
        for name, update in {"plain": {}, "hot": {"temperature": 4.0}, "mixed": {"mixup": 0.2, "cutmix": 1.0}}.items()
    }
    first = next(iter(states["plain"]))
    assert not torch.equal(states["plain"][first], states["hot"][first])
    assert not torch.equal(states["plain"][first], states["mixed"][first])
    assert study_keys._recipe_parts(RECIPE) == study_keys._recipe_parts(
        RECIPE.model_copy(update={"temperature": 1.0, "mixup": 0.0})
    )
    assert set(study_keys._recipe_parts(RECIPE.model_copy(update={"temperature": 2.0}))) - set(
        study_keys._recipe_parts(RECIPE)
    ) == {"temperature"}


def test_the_share_of_mixup_is_as_asked_and_its_default_draws_as_ever():
    both = Recipe(mixup=0.1, cutmix=1.0)

    def kinds(recipe):
        return [mixed(recipe, IMAGES, SIDE, **AT, batch=batch).box is None for batch in range(600)]

    assert abs(np.mean(kinds(both.model_copy(update={"mixup_share": 0.6}))) - 0.6) < 0.06
    assert {*kinds(both.model_copy(update={"mixup_share": 1.0}))} == {True}
    assert {*kinds(both.model_copy(update={"mixup_share": 0.0}))} == {False}
    drawn = [mixed(both, IMAGES, SIDE, **AT, batch=batch) for batch in range(3)]
    assert [(mix.box is None, mix.order_B.tolist()) for mix in drawn] == EVER
    assert {*kinds(Recipe(cutmix=1.0, mixup_share=0.9))} == {False}  # there is no other to share with
