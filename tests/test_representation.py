import pytest
import torch

from sweep.representation import covariance, numerical_rank


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


def test_covariance_is_the_textbook_one():
    emb_ND = torch.randn(9000, 6, generator=torch.Generator().manual_seed(0)).half()  # more than one chunk
    torch.testing.assert_close(covariance(emb_ND), torch.cov(emb_ND.double().T), atol=1e-5, rtol=1e-5)
