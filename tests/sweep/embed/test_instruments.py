"""What is measured of a layer on request: closed forms, and the definitions by numpy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sweep.embed import collapse, layer_statistics, likeness, spectrum, weight_distances
from sweep.embed.likeness import MOST_IMAGES
from sweep.models import build_backbone, layers_of

CPU = torch.device("cpu")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(300, 20), (15, 40)])
def test_the_spectrum_is_that_of_a_singular_value_decomposition(shape):
    x_ND = normal(*shape) * torch.linspace(0.1, 3, shape[1]) + 5
    found = spectrum(x_ND, classes=3, device=CPU)
    singular = np.linalg.svd(x_ND.numpy(), compute_uv=False)
    shares = singular / singular.sum() + 1e-7  # Garrido et al. 2023, eq. 1
    assert found.rankme == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    variances = np.linalg.svd((x_ND - x_ND.mean(0)).numpy(), compute_uv=False) ** 2
    shares = variances[variances > 1e-12] / variances.sum()
    assert found.spectral_entropy == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-6)
    assert found.top_share == pytest.approx(variances[:3].sum() / variances.sum(), rel=1e-9)


def test_directions_of_equal_variance_count_fully_and_one_direction_as_one():
    white_ND = torch.cat([torch.eye(8), -torch.eye(8)])
    found = spectrum(white_ND, classes=2, device=CPU)
    assert found.rankme == pytest.approx(8, rel=1e-5)
    assert found.spectral_entropy == pytest.approx(math.log(8))
    assert found.top_share == pytest.approx(2 / 8)
    line = spectrum(normal(50, 1) @ normal(1, 8, seed=1), classes=2, device=CPU)
    assert (line.rankme, line.top_share) == (pytest.approx(1, abs=1e-3), pytest.approx(1))
    assert spectrum(torch.ones(9, 4), classes=2, device=CPU).spectral_entropy is None
    assert spectrum(torch.full((9, 4), torch.nan), classes=2, device=CPU) is None


def test_cka_is_one_of_a_layer_turned_and_scaled_and_nought_of_orthogonal_data():
    one_ND = normal(400, 6)
    turned_ND = 7 * one_ND @ torch.linalg.qr(normal(6, 6, seed=1)).Q + 3
    q, _ = torch.linalg.qr(torch.cat([torch.ones(400, 1, dtype=torch.float64), normal(400, 8, seed=2)], 1))
    found = {(p.one, p.other): p for p in likeness([one_ND, turned_ND, q[:, 1:5], q[:, 5:]], seed=0, device=CPU)}
    assert set(found) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert found[0, 1].cka == pytest.approx(1, abs=1e-5)
    assert found[0, 1].cka_debiased == pytest.approx(1, abs=1e-5)
    assert found[2, 3].cka == pytest.approx(0, abs=1e-6)
    assert found[0, 2].cka == pytest.approx(found[1, 2].cka, abs=1e-5)


def test_the_matrix_agrees_with_the_columns_of_the_probe_table():
    train = [normal(500, d, seed=d).half() for d in (5, 9, 700)]
    train[1][:, :3] += train[0][:, :3]
    labels_N = torch.arange(500) % 5
    found = {(p.one, p.other): p for p in likeness(train, seed=0, device=CPU)}
    known = layer_statistics(train, labels_N, classes=5)
    assert found[0, 1].cka == pytest.approx(known[1].cka_first, rel=1e-4)
    assert found[1, 2].cka_debiased == pytest.approx(known[1].cka_last_debiased, abs=1e-4)


def test_of_many_images_a_draw_tells_the_debiased_likeness():
    x_ND = normal(3 * MOST_IMAGES, 4)
    y_ND = torch.cat([x_ND[:, :2], normal(len(x_ND), 2, seed=1)], 1)
    (found,) = likeness([x_ND, y_ND], seed=0, device=CPU)
    assert found.cka_debiased == pytest.approx(0.5, abs=0.05)  # two of four equal directions: 2 / √(4 · 4)
    broken = likeness([x_ND, torch.full((len(x_ND), 2), torch.inf), torch.ones(len(x_ND), 2)], seed=0, device=CPU)
    assert [pair.cka for pair in broken] == [None] * 3


def simplex(classes, width):
    """Directions of a simplex equiangular tight frame (C, D)."""
    return nn.functional.pad(torch.eye(classes, dtype=torch.float64) - 1 / classes, (0, width - classes))


def test_a_simplex_frame_is_collapsed_in_every_sense():
    frame_CD, labels_N = simplex(5, 12), torch.arange(50) % 5
    x_ND = frame_CD[labels_N] + 2
    found = collapse(x_ND, labels_N, classes=5, weight_DC=4 * frame_CD.T + 1, bias_C=-4 * frame_CD @ x_ND.mean(0))
    assert all(value == pytest.approx(0, abs=1e-6) for value in vars(found).values())


def test_what_is_not_collapsed_is_told_apart():
    frame_CD, labels_N = simplex(4, 6), torch.arange(400) % 4
    longer_CD = frame_CD * torch.tensor([1.0, 1.0, 1.0, 3.0])[:, None]
    noisy_ND = frame_CD[labels_N] + 0.3 * normal(400, 6)
    assert collapse(noisy_ND, labels_N, classes=4, weight_DC=None, bias_C=None).nc1 > 0.1
    longer = collapse(longer_CD[labels_N] + 1e-3 * normal(400, 6), labels_N, classes=4, weight_DC=None, bias_C=None)
    assert longer.nc2_norms > 0.3
    assert longer.nc3 is None
    wrong = collapse(noisy_ND, labels_N, classes=4, weight_DC=-frame_CD.T, bias_C=torch.zeros(4, dtype=torch.float64))
    assert wrong.nc3 == pytest.approx(2, abs=0.1)  # opposite directions
    assert wrong.nc4 > 0.9
    equal = collapse(torch.ones(8, 3), torch.arange(8) % 2, classes=2, weight_DC=None, bias_C=None)
    assert equal.nc1 is None


def test_weights_that_did_not_move_have_distance_nought_and_doubled_ones_one():
    make = lambda seed: build_backbone("vggm11", classes=3, resolution=32, width=0.05, seed=seed)  # noqa: E731
    model, layers = make(0), layers_of("vggm11", resolution=32, width=0.05)
    assert weight_distances(model, make(0), layers) == [(0.0, 0.0)] * len(layers)
    with torch.no_grad():
        model.get_parameter(f"{layers[2].name}.weight").mul_(2)
        model.get_parameter(f"{layers[3].name}.bias").add_(9)
    doubled = make(0).get_parameter(f"{layers[2].name}.weight").detach().square().mean().sqrt().item()
    found = weight_distances(model, make(0), layers)
    assert [each.relative for each in found] == pytest.approx([0, 0, 1, *[0] * (len(layers) - 3)])
    assert [each.change for each in found] == pytest.approx([0, 0, doubled, *[0] * (len(layers) - 3)])
    apart = weight_distances(make(1), make(0), layers)
    assert [each.relative for each in apart] == pytest.approx([math.sqrt(2)] * len(layers), rel=0.15)
