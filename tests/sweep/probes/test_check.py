"""Layers that are fitted once more, to convergence."""

import numpy as np
import pytest

from sweep.config import PENALTIES, Probe
from sweep.probes import drawn, fit_probes
from tests.sweep.probes.test_converged import make_data, predicted, slow_twin, standardised

CONVERGED = Probe(solver="converged", standardize="feature", label_smoothing=0.0, penalties=PENALTIES["converged"])


def test_a_share_is_drawn_and_holds_on_average():
    found = [drawn(17, 0.05, seed) for seed in range(2000)]
    assert {len(layers) for layers in found} == {0, 1}
    assert np.mean([len(layers) for layers in found]) == pytest.approx(0.85, abs=0.04)
    assert {layer for layers in found for layer in layers} == set(range(17))
    assert drawn(17, 0.05, 3) == drawn(17, 0.05, 3)
    assert drawn(4, 1.0, 0) == [0, 1, 2, 3]


@pytest.mark.parametrize("recipes", [[Probe(epochs=3), Probe(epochs=3, lr=1e-2)], [Probe(solver="ridge")], [CONVERGED]])
def test_it_says_what_convergence_changes_and_changes_nothing(recipes):
    data = make_data(120, 20, layers=3)
    plain, checked = (fit_probes(data, recipes, seed=1, check=layers) for layers in ((), [0, 2]))
    converged = fit_probes(data, CONVERGED, seed=1)
    for before, after in zip(plain, checked, strict=True):
        assert {**vars(after), "check_top1": None} == vars(before)
        assert (after.check_top1 is None) == (after.layer == 1)
        if recipes[0].solver != "converged" and after.layer != 1:
            assert after.check_top1 == converged[after.layer].top1


def test_a_converged_probe_is_held_against_the_minimum():
    data = make_data(300, 40)
    (result,) = fit_probes(data, CONVERGED, seed=1, check=[0])
    x_ND, test_ND = standardised(data)
    theta_FC = slow_twin(x_ND, data.train_labels_N.numpy(), data.classes, result.penalty)
    right_N = (test_ND @ theta_FC[:-1] + theta_FC[-1]).argmax(1) == data.test_labels_N.numpy()
    assert result.check_top1 == pytest.approx(right_N.mean(), abs=1 / len(right_N) + 1e-9)
    assert (predicted(result, data) == right_N).mean() >= 0.995
