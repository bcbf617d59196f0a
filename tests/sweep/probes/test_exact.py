"""The solvers without epochs against slow, obvious ones: SciPy on the written-out objective, and normal equations."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from sweep import register
from sweep.config.recipe import Probe
from sweep.probes.data import ProbeData
from sweep.probes.fit import fit_probes
from tests.sweep.probes.test_fit import WIDTHS, make_data

FITS = ("selection", "full")


def lbfgs(penalty, **settings):
    return Probe(solver="lbfgs", weight_decay=penalty, **settings)


def images(data, layer, fit):
    chosen_N = (~data.heldout_N if fit == "selection" else torch.ones_like(data.heldout_N)).numpy()
    return data.train[layer].numpy()[chosen_N].astype(float), data.train_labels_N.numpy()[chosen_N]


def losses(data, layer, weights):
    """Held-out loss of the selection fit and test loss of the full fit, from weights of both with the bias as last."""
    held = data.heldout_N.numpy()
    parts = [(data.train[layer].numpy()[held], data.train_labels_N.numpy()[held])]
    parts.append((data.test[layer].numpy(), data.test_labels_N.numpy()))
    found = []
    for theta_FC, (x_ND, labels_N) in zip(weights, parts, strict=True):
        logits_NC = x_ND @ theta_FC[:-1] + theta_FC[-1]
        found.append(-log_softmax(logits_NC, axis=1)[np.arange(len(labels_N)), labels_N].mean())
    return found


def logistic(x_ND, labels_N, classes, penalty, smoothing):
    """Minimum of the objective as it is written down."""
    n, width = x_ND.shape
    target_NC = np.eye(classes)[labels_N] * (1 - smoothing) + smoothing / classes
    x_NF = np.hstack([x_ND, np.ones((n, 1))])

    def objective(flat):
        theta_FC = flat.reshape(width + 1, classes)
        logp_NC = log_softmax(x_NF @ theta_FC, axis=1)
        gradient_FC = x_NF.T @ (np.exp(logp_NC) - target_NC) / n
        gradient_FC[:-1] += penalty * theta_FC[:-1]
        return -(target_NC * logp_NC).sum() / n + penalty / 2 * (theta_FC[:-1] ** 2).sum(), gradient_FC.ravel()

    found = minimize(objective, np.zeros((width + 1) * classes), jac=True, options={"gtol": 1e-8, "maxiter": 5000})
    return found.x.reshape(width + 1, classes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_lbfgs_finds_the_minimum(penalty, smoothing, monkeypatch):
    data = make_data(signal=0.5)
    usual = fit_probes(data, lbfgs(penalty, label_smoothing=smoothing), seed=1)
    monkeypatch.setattr("sweep.probes.lbfgs._TOLERANCE", 1e-7)
    results = fit_probes(data, lbfgs(penalty, label_smoothing=smoothing), seed=1)
    for layer, result in enumerate(results):
        weights = [logistic(*images(data, layer, fit), data.classes, penalty, smoothing) for fit in FITS]
        assert [result.heldout_loss, result.test_loss] == pytest.approx(losses(data, layer, weights), abs=2e-3)
        assert usual[layer].train_loss == pytest.approx(result.train_loss, abs=2e-4)
        assert (result.epoch_chosen, result.top1, result.top1_E) == (1, result.top1_best, (result.top1_last,))


def test_lbfgs_agrees_with_scikit_learn_on_badly_scaled_embeddings():
    data = make_data(n=300, n_test=200, widths=(20,), signal=0.5)
    data.train[0] *= torch.logspace(-2, 2, 20)
    data.test[0] *= torch.logspace(-2, 2, 20)
    (result,) = fit_probes(data, lbfgs(1e-3, label_smoothing=0.0), seed=1)
    x_ND, labels_N = images(data, 0, "full")
    reference = LogisticRegression(C=1 / (1e-3 * 300), max_iter=100_000, tol=1e-7).fit(x_ND, labels_N)
    assert result.top1 == pytest.approx(reference.score(data.test[0].numpy(), data.test_labels_N.numpy()), abs=0.011)
    logp_NC = reference.predict_log_proba(x_ND)
    assert result.train_loss == pytest.approx(-logp_NC[np.arange(300), labels_N].mean(), abs=1e-3)


def test_a_path_of_penalties_equals_each_alone_and_the_best_is_chosen():
    data = make_data(signal=0.5, n=120)
    penalties = [1e-4, 1e-2, 1.0, 100.0]
    path = fit_probes(data, [lbfgs(penalty) for penalty in penalties], seed=1)
    for number, penalty in enumerate(penalties):
        alone = fit_probes(data, lbfgs(penalty), seed=1)
        ours = [r for r in path if r.recipe == number]
        assert [r.test_loss for r in ours] == pytest.approx([r.test_loss for r in alone], abs=3e-3)
    for layer in range(4):
        own = [r for r in path if r.layer == layer]
        assert max(own, key=lambda r: (r.heldout_top1, -r.heldout_loss)).chosen
        assert sum(r.chosen for r in own) == 1


def test_separable_classes_without_a_penalty_are_a_result_with_a_reason():
    data = make_data(signal=50.0)
    results = fit_probes(data, [lbfgs(0.0, label_smoothing=0.0), lbfgs(1e-2, label_smoothing=0.0)], seed=1)
    for result in results:
        assert result.problem is None or ("did not converge" in result.problem and result.recipe == 0)
        assert result.problem is not None or np.isfinite(result.test_loss)
    assert all(r.problem is None for r in results if r.recipe == 1)


@pytest.mark.parametrize("widths", [WIDTHS, (70, 90)])  # more images than features, and fewer
@pytest.mark.parametrize("standardize", ["none", "feature"])
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_ridge_solves_the_normal_equations(penalty, standardize, widths):
    data = make_data(signal=0.5, widths=widths)
    results = fit_probes(data, Probe(solver="ridge", weight_decay=penalty, standardize=standardize), seed=1)
    for layer, result in enumerate(results):
        weights = []
        for fit in FITS:
            x_ND, labels_N = images(data, layer, fit)
            mean_D, scale_D = x_ND.mean(0), (x_ND.std(0) if standardize == "feature" else 1.0)
            z_ND, y_NC = (x_ND - mean_D) / scale_D, np.eye(data.classes)[labels_N]
            system_DD = z_ND.T @ z_ND / len(z_ND) + penalty * np.eye(z_ND.shape[1])
            slope_DC = np.linalg.solve(system_DD, z_ND.T @ (y_NC - y_NC.mean(0)) / len(z_ND))
            slope_DC = (slope_DC.T / scale_D).T
            weights.append(np.vstack([slope_DC, y_NC.mean(0) - mean_D @ slope_DC]))
        assert [result.heldout_loss, result.test_loss] == pytest.approx(losses(data, layer, weights), abs=1e-5)


def test_ridge_with_more_features_than_images_and_hardly_a_penalty_is_finite():
    data = make_data(n=40, widths=(100,), signal=0.5)
    for result in fit_probes(data, [Probe(solver="ridge", weight_decay=p) for p in (0.0, 1e-12, 1e-3)], seed=1):
        assert result.problem is None
        assert np.isfinite(result.test_loss)


@pytest.mark.parametrize("solver", ["lbfgs", "ridge"])
def test_a_bad_layer_or_a_constant_one_spares_its_neighbours(solver):
    recipe = Probe(solver=solver, weight_decay=1e-2)
    data = make_data()
    clean = fit_probes(data, recipe, seed=1)
    data.train[1][4, 2] = float("nan")
    data.train[3][:] = 1.5
    results = fit_probes(data, recipe, seed=1)
    assert "image 4" in results[1].problem
    assert results[3].problem is None
    assert [results[i] for i in (0, 2)] == [clean[i] for i in (0, 2)]


@pytest.mark.parametrize("solver", ["lbfgs", "ridge"])
def test_results_are_of_one_layer_alone(solver):
    recipe = Probe(solver=solver, weight_decay=1e-2)
    data = make_data()
    together = fit_probes(data, recipe, seed=1)
    alone = ProbeData(**(vars(data) | {"train": data.train[2:3], "test": data.test[2:3], "layer_names": ["layer2"]}))
    (single,) = fit_probes(alone, recipe, seed=9)  # nothing is drawn: the seed does not matter
    assert (single.top1_E, single.correct) == (together[2].top1_E, together[2].correct)
    assert single.test_loss == together[2].test_loss


@pytest.mark.parametrize("solver", ["lbfgs", "ridge"])
def test_a_layer_that_does_not_fit_the_device_is_fitted_on_the_cpu(solver, monkeypatch, caplog):
    recipe, data, calls = Probe(solver=solver, weight_decay=1e-2), make_data(), []
    whole = fit_probes(data, recipe, seed=1)
    ours = register.find_ours("probe", solver)

    def fit(data, recipes, layer):
        calls.append(layer)
        if calls.count(2) == 1 and layer == 2:
            raise torch.OutOfMemoryError
        return ours(data, recipes, layer)

    monkeypatch.setattr(register, "find_ours", lambda kind, name: fit)
    assert fit_probes(data, recipe, seed=1) == whole
    assert calls == [0, 1, 2, 2, 3]
    assert "layer2 does not fit the device" in caplog.text


def test_registered_probes_that_do_not_fit_are_fitted_fewer_at_a_time(monkeypatch, caplog):
    sizes = []

    def nearest_mean(train, labels_N, *, classes, recipe, seed):
        sizes.append(len(train))
        if len(train) > 1 or sizes.count(1) == 1:
            raise torch.OutOfMemoryError
        means = [torch.stack([x_ND[labels_N == c].mean(0) for c in range(classes)]) for x_ND in train]
        return [lambda x_MD, mean_CD=mean_CD: -torch.cdist(x_MD, mean_CD) for mean_CD in means]

    plugin = register.Plugin("probe", "nearest", nearest_mean, __name__, "source", {})
    monkeypatch.setitem(register._REGISTERED, ("probe", "nearest"), plugin)
    results = fit_probes(make_data(signal=3.0), Probe(solver="nearest"), seed=1)
    assert [result.layer for result in results] == [0, 1, 2, 3]
    assert all(result.problem is None and result.top1 > 0.5 for result in results)
    assert sizes[:3] == [4, 2, 1]
    assert "layer0 does not fit the device" in caplog.text


def test_lbfgs_says_that_it_converged_and_a_closed_form_says_nothing():
    data = make_data()
    lbfgs, ridge = (fit_probes(data, Probe(solver=name, weight_decay=1e-2), seed=1) for name in ("lbfgs", "ridge"))
    assert all(result.converged and 0 <= result.gradient_norm < 0.01 for result in lbfgs)
    assert all((result.converged, result.gradient_norm, result.epochs_run) == (None, None, None) for result in ridge)
