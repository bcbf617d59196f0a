"""Statistics of embeddings against textbook formulas on whole matrices, and against closed forms."""

import numpy as np
import pytest
import torch

from sweep.embed.statistics import _accumulate, _centred, _second, layer_statistics, moments_bytes, numerical_rank

ROWS, CLASSES = 9000, 6  # more than one chunk


def layers(widths=(5, 12, 7), *, n=ROWS, classes=CLASSES, offset=3.0, seed=0):
    """Related embeddings of unequal classes, away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = (torch.rand(n, generator=generator) ** 2 * classes).long()
    emb_ND = torch.randn(classes, widths[0], generator=generator)[labels_N]
    emb_ND = emb_ND + torch.randn(n, widths[0], generator=generator)
    found = []
    for width in widths:
        mixing_DE = torch.randn(emb_ND.shape[1], width, generator=generator)
        emb_ND = torch.tanh(emb_ND @ mixing_DE / 2)
        found.append(emb_ND + offset)
    return found, labels_N


def plain_hsic(k_NN, l_NN):
    """The unbiased estimator as printed: Song et al. 2012, eq. 5."""
    n = len(k_NN)
    k_NN, l_NN = k_NN - np.diag(np.diag(k_NN)), l_NN - np.diag(np.diag(l_NN))
    ones = np.ones(n)
    return (
        np.trace(k_NN @ l_NN)
        + (ones @ k_NN @ ones) * (ones @ l_NN @ ones) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (ones @ k_NN @ l_NN @ ones)
    ) / (n * (n - 3))


def plain_cka(x_ND, y_ND):
    x_ND, y_ND = x_ND - x_ND.mean(0), y_ND - y_ND.mean(0)
    return np.linalg.norm(x_ND.T @ y_ND) ** 2 / np.linalg.norm(x_ND.T @ x_ND) / np.linalg.norm(y_ND.T @ y_ND)


def plain_collapse(x_ND, labels_N):
    mean_D = x_ND.mean(0)
    within_DD, between_DD = np.zeros((x_ND.shape[1],) * 2), np.zeros((x_ND.shape[1],) * 2)
    for label in np.unique(labels_N):
        members_ND = x_ND[labels_N == label]
        class_D = members_ND.mean(0)
        within_DD += (members_ND - class_D).T @ (members_ND - class_D) / len(x_ND)
        between_DD += np.outer(class_D - mean_D, class_D - mean_D) * len(members_ND) / len(x_ND)
    nc1 = np.trace(within_DD @ np.linalg.pinv(between_DD, rcond=1e-9, hermitian=True)) / len(np.unique(labels_N))
    return np.trace(within_DD), np.trace(between_DD), nc1


@pytest.mark.parametrize(
    ("offset", "widths", "n"),
    [(0.0, (5, 12, 7), ROWS), (3.3, (5, 12, 7), ROWS), (700.0, (5, 12, 7), ROWS), (3.3, (5, 200, 90), 60)],
)
def test_equal_the_textbook(offset, widths, n):
    """With fewer images than numbers too, where the Gram matrix stands for the scatter."""
    found, labels_N = layers(widths, n=n, offset=offset)
    exact = [emb_ND.double().numpy() for emb_ND in found]
    for own, x_ND in zip(layer_statistics(found, labels_N, classes=CLASSES), exact, strict=True):
        assert own.cka_first == pytest.approx(plain_cka(x_ND, exact[0]), rel=1e-5)
        assert own.cka_last == pytest.approx(plain_cka(x_ND, exact[-1]), rel=1e-5)
        collapse = (own.within_variance, own.between_variance, own.nc1)
        assert collapse == pytest.approx(plain_collapse(x_ND, labels_N.numpy()), rel=1e-4)
        assert own.rank == np.sum(np.linalg.svd(np.cov(x_ND.T))[1] > 1e-3 * np.linalg.svd(np.cov(x_ND.T))[1][0])


def test_debiased_cka_equals_the_estimator_on_whole_kernels():
    found, labels_N = layers(n=60)
    kernels = [emb_ND.double().numpy() @ emb_ND.double().numpy().T for emb_ND in found]
    for own, k_NN in zip(layer_statistics(found, labels_N, classes=CLASSES), kernels, strict=True):
        for value, l_NN in ((own.cka_first_debiased, kernels[0]), (own.cka_last_debiased, kernels[-1])):
            slow = plain_hsic(k_NN, l_NN) / np.sqrt(plain_hsic(k_NN, k_NN) * plain_hsic(l_NN, l_NN))
            assert value == pytest.approx(slow, rel=1e-4)


def test_unrelated_layers_wider_than_the_images_are_unlike_only_after_debiasing():
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(100, 400, generator=generator) for _ in range(2)]
    (own, _) = layer_statistics(found, torch.arange(100) % 4, classes=4)
    assert own.cka_last > 0.7
    assert abs(own.cka_last_debiased) < 0.05
    assert own.cka_first == pytest.approx(1)
    assert own.cka_first_debiased == pytest.approx(1)


def test_cka_ignores_rotation_scale_and_shift():
    (emb_ND, *_), labels_N = layers(n=300)
    rotation_DD, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
    own, _ = layer_statistics([emb_ND, 7 * emb_ND @ rotation_DD - 2], labels_N, classes=CLASSES)
    assert own.cka_last == pytest.approx(1, abs=1e-5)
    assert own.cka_last_debiased == pytest.approx(1, abs=1e-5)


def test_collapse_in_closed_form():
    """Two classes at ±1 on one axis with noise ±s beside it on the same axis: Σ_B = 1, Σ_W = s²."""
    for noise in (0.0, 0.5):
        x_N1 = torch.tensor([1 + noise, 1 - noise, -1 + noise, -1 - noise]).unsqueeze(1).half()
        (own,) = layer_statistics([x_N1], torch.tensor([0, 0, 1, 1]), classes=2)
        assert own.within_variance == pytest.approx(noise**2)
        assert own.between_variance == pytest.approx(1)
        assert own.nc1 == pytest.approx(noise**2 / 2)


def test_what_is_not_defined_is_none_and_spares_the_others():
    found, labels_N = layers(n=200)
    clean = layer_statistics(found, labels_N, classes=CLASSES)
    found[0][3, 1] = float("inf")
    first, middle, last = layer_statistics(found, labels_N, classes=CLASSES)
    assert first is None
    assert middle.cka_first is None
    assert middle.cka_first_debiased is None
    assert middle.cka_last == clean[1].cka_last
    assert last.nc1 == clean[2].nc1
    (constant,) = layer_statistics([torch.full((10, 4), 3.0)], torch.arange(10) % 2, classes=2)
    assert (constant.rank, constant.cka_first, constant.nc1, constant.within_variance) == (0, None, None, 0)


def test_a_class_without_images_does_not_count():
    found, labels_N = layers(n=200)
    assert layer_statistics(found, labels_N, classes=CLASSES) == layer_statistics(found, labels_N, classes=CLASSES + 3)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_rank_of_a_product_is_its_inner_dimension(rank):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(200, rank, generator=generator), torch.randn(rank, 20, generator=generator)
    assert numerical_rank(left @ right) == rank


def test_rank_ignores_the_mean_and_directions_below_the_threshold():
    emb_ND = torch.zeros(100, 3)
    emb_ND[:, 0] = torch.linspace(-1, 1, 100)
    emb_ND[:, 1] = 0.01 * torch.linspace(-1, 1, 100).flip(0) ** 2
    assert numerical_rank(emb_ND + 50.0) == 1
    assert numerical_rank(emb_ND, threshold=1e-6) == 2


def test_constant_embedding_has_rank_zero():
    assert numerical_rank(torch.full((10, 4), 3.0)) == 0


@pytest.mark.parametrize(("n", "width"), [(9000, 6), (40, 300)])
def test_second_moments_are_the_textbooks_whichever_matrix_is_smaller(n, width):
    emb_ND = torch.randn(n, width, generator=torch.Generator().manual_seed(0)).half()
    exact = torch.linalg.eigvalsh(torch.cov(emb_ND.double().T))[-min(n - 1, width) :]
    found = _second(_centred(emb_ND, torch.device("cpu"))) / (n - 1)
    assert len(found) == min(n, width)
    torch.testing.assert_close(torch.linalg.eigvalsh(found)[-len(exact) :], exact, atol=1e-4, rtol=1e-4)


def test_what_statistics_take_is_known_before():
    """Moments of both ends, of the widest layer twice (its eigenvalues overwrite a copy), and what is between it and
    an end; with fewer images than numbers all matrices are N × N.
    """
    assert moments_bytes(300, (5, 40, 7)) == 8 * (5**2 + 7**2 + 2 * 40**2 + 40 * 7)
    assert moments_bytes(60, (90, 200, 80)) == 8 * (60**2 + 60**2 + 2 * 60**2)
    for n, d in ((300, 40), (60, 200)):
        (emb_ND,), labels_N = layers((d,), n=n)
        assert _accumulate(_centred(emb_ND, emb_ND.device), labels_N, CLASSES).second.nbytes == 8 * min(n, d) ** 2
