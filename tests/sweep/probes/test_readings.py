"""Readings beside the linear probe and OOD detection, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from sweep.probes import (
    LinearProbe,
    auroc,
    centre,
    drawn_images,
    energies,
    few_shot,
    fpr95,
    nearest_means,
    nearest_neighbours,
    nearness,
    shares_right,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def blobs():
    """Three overlapping classes: training images, their labels, others."""
    rng = torch.Generator().manual_seed(0)
    labels_N = torch.arange(120) % 3
    centres_CD = torch.randn(3, 6, generator=rng)
    train_ND = centres_CD[labels_N] + torch.randn(120, 6, generator=rng)
    return train_ND, labels_N, centres_CD[labels_N] + torch.randn(120, 6, generator=rng)


@pytest.mark.parametrize("neighbours", [1, 20, 500])
def test_nearest_neighbours_vote_as_scikit_learns_do(blobs, neighbours):
    train_ND, labels_N, emb_MD = blobs
    found = nearest_neighbours(train_ND, labels_N, emb_MD, classes=4, neighbours=neighbours)
    mean_D = train_ND.mean(0)
    theirs = KNeighborsClassifier(min(neighbours, 120), metric="cosine").fit(train_ND - mean_D, labels_N)
    assert found.tolist() == theirs.predict(emb_MD - mean_D).tolist()
    moved = nearest_neighbours(train_ND + 50, labels_N, emb_MD + 50, classes=4, neighbours=neighbours)
    assert moved.tolist() == found.tolist()  # what all have in common plays no part


def test_the_nearest_mean_is_that_of_scikit_learn_and_no_class_without_images(blobs):
    train_ND, labels_N, emb_MD = blobs
    found = nearest_means(train_ND.half(), 2 * labels_N, emb_MD.half(), classes=6)
    theirs = NearestCentroid().fit(train_ND.half().double(), 2 * labels_N)
    assert found.tolist() == theirs.predict(emb_MD.half().double()).tolist()


@pytest.mark.parametrize("width", [6, 300])
def test_few_images_are_separated_as_by_scikit_learn(blobs, width):
    train_ND, labels_N, emb_MD = blobs
    spread_DE = torch.randn(6, width, generator=torch.Generator().manual_seed(1))
    train_ND, emb_MD = train_ND[:30] @ spread_DE, emb_MD @ spread_DE
    mean_D = centre(emb_MD, CPU)
    found = few_shot(train_ND, labels_N[:30], mean_D, classes=3)
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(normalize(train_ND - mean_D), labels_N[:30])
    assert (found.read(emb_MD).numpy() == theirs.predict(normalize(emb_MD - mean_D))).mean() > 0.99
    weights = (found.weight_DC - found.weight_DC.mean(1, keepdim=True)).T
    assert weights.numpy() == pytest.approx(theirs.coef_, abs=0.02 * np.abs(theirs.coef_).max())


def test_a_draw_takes_so_many_of_every_class_and_never_others():
    labels_N, eligible_N = torch.arange(40) % 4, torch.arange(40) < 30
    drawn = drawn_images(labels_N, eligible_N, 5, seed=3)
    assert labels_N[drawn].bincount().tolist() == [5] * 4
    assert eligible_N[drawn].all()
    assert len(drawn.unique()) == 20
    assert drawn.tolist() == drawn_images(labels_N, eligible_N, 5, seed=3).tolist()
    assert drawn.tolist() != drawn_images(labels_N, eligible_N, 5, seed=4).tolist()
    assert drawn_images(labels_N, eligible_N, 8, seed=3) is None


def test_accuracy_per_class_is_scikit_learns_balanced_one():
    labels_M, said_M = torch.tensor([0, 0, 0, 0, 1, 2, 2]), torch.tensor([0, 0, 0, 1, 1, 0, 2])
    found = shares_right(said_M == labels_M, labels_M, classes=5)
    assert found.top1 == pytest.approx(5 / 7)
    assert found.per_class == pytest.approx(balanced_accuracy_score(labels_M, said_M))


def test_scores_that_tell_nothing_have_half_of_the_area_and_others_that_of_scikit_learn():
    rng = torch.Generator().manual_seed(0)
    id_N, ood_M = (torch.randn(500, generator=rng) * 4).round() + 1, (torch.randn(300, generator=rng) * 4).round()
    truth, scores = np.r_[np.ones(500), np.zeros(300)], torch.cat([id_N, ood_M]).numpy()
    assert auroc(id_N, ood_M) == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert fpr95(id_N, ood_M) == pytest.approx(false[(true >= 0.95).argmax()])
    assert auroc(id_N, id_N) == 0.5
    assert fpr95(id_N, id_N) >= 0.95
    assert (auroc(id_N, ood_M - 1000), fpr95(id_N, ood_M - 1000)) == (1, 0)


def test_energy_and_nearness_are_their_definitions(blobs):
    train_ND, _, emb_MD = blobs
    weight_DC, bias_C = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0.0, 1.0, -1.0])
    probe = LinearProbe(torch.full((6,), 0.5).double(), torch.full((6,), 2.0).double(), weight_DC, bias_C)
    logits = ((emb_MD - 0.5) * 2) @ weight_DC + bias_C
    assert energies(probe, emb_MD, CPU).numpy() == pytest.approx(logits.double().exp().sum(1).log().numpy(), rel=1e-5)
    unit_ND, unit_MD = normalize(train_ND), normalize(emb_MD)
    apart = np.sort(np.linalg.norm(unit_MD[:, None] - unit_ND[None], axis=2), axis=1)
    assert -nearness(train_ND, emb_MD, CPU, neighbours=7).numpy() == pytest.approx(apart[:, 6], abs=1e-3)
