"""Cross-fitting against its slow twin: one fit after the other in SciPy, each without its fold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sweep.config import AUTO_FOLDS, FEW_HELDOUT, PENALTIES
from sweep.config.schema import Config
from sweep.data.splits import folds
from sweep.probes import fit_probes
from sweep.study.check import check
from sweep.study.grid import Sizes, expand
from sweep.study.keys import Keyring
from tests.sweep.probes.test_converged import SHAPES, make_data, recipe, slow_twin, standardised


def with_folds(data, count):
    fold_N = folds(data.train_labels_N.numpy(), count=count, seed=0)
    return replace(data, folds_N=torch.from_numpy(fold_N))


@pytest.mark.parametrize("shape", ["span", "rotated"])
def test_every_image_is_scored_by_the_fit_without_its_fold(shape):
    data = with_folds(make_data(*SHAPES[shape]), 4)
    (found,) = fit_probes(data, recipe(1e-2), seed=0)
    x_ND, _ = standardised(data)
    labels_N, fold_N = data.train_labels_N.numpy(), data.folds_N.numpy()
    right_N, loss_N = np.zeros(len(labels_N), dtype=bool), np.zeros(len(labels_N))
    for fold in range(4):
        out_N = fold_N == fold
        theta_FC = slow_twin(x_ND[~out_N], labels_N[~out_N], data.classes, 1e-2)
        logits_NC = x_ND[out_N] @ theta_FC[:-1] + theta_FC[-1]
        right_N[out_N] = logits_NC.argmax(1) == labels_N[out_N]
        loss_N[out_N] = np.logaddexp.reduce(logits_NC, axis=1) - logits_NC[np.arange(out_N.sum()), labels_N[out_N]]
    own_N = np.unpackbits(np.frombuffer(found.crossfit_correct, np.uint8))[: len(labels_N)].astype(bool)
    assert (own_N == right_N).mean() >= 0.98
    assert found.crossfit_top1 == pytest.approx(own_N.mean())
    assert found.crossfit_loss == pytest.approx(loss_N.mean(), rel=0.02)
    assert found.converged


def test_it_changes_nothing_else_and_held_out_bits_are_those_of_the_selection_fit():
    data = make_data(300, 40, layers=2)
    for plain, crossed in zip(
        *(fit_probes(d, recipe(*PENALTIES["converged"]), seed=0) for d in (data, with_folds(data, 5))), strict=True
    ):
        own = {"crossfit_correct": b"", "crossfit_top1": None, "crossfit_loss": None}
        assert replace(crossed, **own) == plain
        bits = np.unpackbits(np.frombuffer(plain.heldout_correct, np.uint8))[: int(data.heldout_N.sum())]
        assert bits.mean() == pytest.approx(plain.heldout_top1)


def test_nothing_leaks_from_a_fold_into_its_scores():
    """Labels that mean nothing are learned by heart by the full fit, and guessed out of fold."""
    data = make_data(400, 600, classes=4)
    shuffled_N = data.train_labels_N[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    (found,) = fit_probes(with_folds(replace(data, train_labels_N=shuffled_N), 5), recipe(1e-6), seed=0)
    assert found.train_top1 > 0.99
    assert abs(found.crossfit_top1 - 0.25) < 3 * (0.25 * 0.75 / 400) ** 0.5


@pytest.mark.parametrize("solver", ["adamw", "lbfgs", "ridge"])
def test_the_other_solvers_keep_the_bits_of_held_out_images_too(solver):
    data = make_data(120, 20)
    asked = recipe().model_copy(update={"solver": solver, "epochs": 3, "weight_decay": 1e-2, "penalties": ()})
    (found,) = fit_probes(data, asked, seed=0)
    bits = np.unpackbits(np.frombuffer(found.heldout_correct, np.uint8))[: int(data.heldout_N.sum())]
    assert bits.mean() == pytest.approx(found.heldout_top1)


# ------------------------------------------------------------------------------------------------------ when, and keys


def curve(train, probe=None):
    grid = [{"architecture": "vggm11", "id_dataset": "fractals"}]
    config = Config.model_validate({"name": "t", "grid": grid, "probe_datasets": ["digits"], "probe": probe or {}})
    assert not check(config)
    return expand(config, lambda _name: Sizes(10, train, 50)).curves[-1]


def key(*args):
    keyring = Keyring(data={"digits": "d", "fractals": "f"}, split_seed=0, holdout=0.1, rank_threshold=1e-3)
    return keyring.planned(curve(*args)).key


def test_few_held_out_images_are_cross_fitted_and_keys_say_so_only_then():
    enough = 10 * FEW_HELDOUT
    assert [curve(n).probe.folds for n in (enough, enough - 10)] == [1, AUTO_FOLDS]
    assert key(enough) == key(enough, {"folds": 1}) == key(enough - 10, {"folds": 1})
    assert key(enough - 10) == key(enough - 10, {"folds": AUTO_FOLDS}) != key(enough)
    assert key(enough - 10, {"folds": 3}) not in {key(enough), key(enough - 10)}
    assert curve(100, {"solver": "adamw"}).probe.folds == 1
    refused = Config.model_validate(
        {"name": "t", "grid": [{"architecture": "vggm11", "id_dataset": "fractals"}],
         "probe": {"solver": "adamw", "folds": 5}}
    )  # fmt: skip
    (problem,) = check(refused)
    assert (problem.path, problem.message) == (
        ("probe", "folds"),
        "solver adamw is not cross-fitted: only converged is",
    )
