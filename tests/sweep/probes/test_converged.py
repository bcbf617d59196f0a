"""The converged solver against its slow twin: SciPy in float64 on the written-out objective, one layer at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from sweep.config import PENALTIES, Probe
from sweep.probes import ProbeData, coordinates, descent, fit_probes, path, remembered, softmax
from sweep.probes.converged import _fit
from sweep.probes.coordinates import Standard
from sweep.probes.softmax import Softmax

SHAPES = {"span": (90, 200), "rotated": (300, 40), "partly known": (700, 600)}  # images, width


def recipe(*penalties, **settings):
    return Probe(
        solver="converged", **({"standardize": "feature", "label_smoothing": 0.0, "penalties": penalties} | settings)
    )


def make_data(n, width, *, classes=5, n_test=400, layers=1, seed=0):
    """Embeddings like those of networks: variances of directions fall as 1/k, features of very different size."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    train_labels_N, test_labels_N = torch.arange(n) % classes, torch.arange(n_test) % classes
    train, test = [], []
    for _ in range(layers):
        turn_DD = torch.linalg.qr(draw(width, width)).Q / torch.arange(1, width + 1).sqrt()[:, None]
        sizes_D, centres_CD = torch.logspace(-1, 1, width), draw(classes, width) * 2 / width**0.5
        train.append((centres_CD[train_labels_N] + draw(n, width)) @ turn_DD * sizes_D + 3)
        test.append((centres_CD[test_labels_N] + draw(n_test, width)) @ turn_DD * sizes_D + 3)
    return ProbeData(
        train=train,
        train_labels_N=train_labels_N,
        heldout_N=(torch.arange(n) // classes) % 6 == 3,
        test=test,
        test_labels_N=test_labels_N,
        classes=classes,
        layer_names=[f"layer{number}" for number in range(layers)],
    )


def standardised(data, layer=0):
    """Training and test embeddings with mean 0 and variance 1 on all training images, NumPy float64."""
    x_ND, test_ND = (part[layer].double().numpy() for part in (data.train, data.test))
    return (x_ND - x_ND.mean(0)) / x_ND.std(0), (test_ND - x_ND.mean(0)) / x_ND.std(0)


def with_folds(data, count):
    return replace(data, folds_N=torch.arange(len(data.train_labels_N)) // data.classes % count)


def slow_twin(x_ND, labels_N, classes, penalty, smoothing=0.0):
    """Weights and biases at the minimum of the objective as it is written down, (D + 1, C)."""
    n, width = x_ND.shape
    target_NC = np.eye(classes)[labels_N] * (1 - smoothing) + smoothing / classes
    x_NF = np.hstack([x_ND, np.ones((n, 1))])

    def objective(flat):
        theta_FC = flat.reshape(width + 1, classes)
        logp_NC = log_softmax(x_NF @ theta_FC, axis=1)
        gradient_FC = x_NF.T @ (np.exp(logp_NC) - target_NC) / n
        gradient_FC[:-1] += penalty * theta_FC[:-1]
        return -(target_NC * logp_NC).sum() / n + penalty / 2 * (theta_FC[:-1] ** 2).sum(), gradient_FC.ravel()

    start = np.zeros((width + 1) * classes)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-9, "ftol": 0, "maxiter": 20000, "maxfun": 40000},
    )
    return found.x.reshape(width + 1, classes)


def predicted(result, data):
    """Who is right, as bits."""
    return np.unpackbits(np.frombuffer(result.correct, np.uint8), count=len(data.test_labels_N)).astype(bool)


@pytest.fixture
def one_thread():
    """As every part of a fit has: with more the order of sums is the library's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_an_independent_fit_in_float64(shape, penalty, smoothing):
    data = make_data(*SHAPES[shape])
    (result,) = fit_probes(data, recipe(penalty, label_smoothing=smoothing), seed=1)
    x_ND, test_ND = standardised(data)
    labels_N, held_N = data.train_labels_N.numpy(), data.heldout_N.numpy()
    full_FC = slow_twin(x_ND, labels_N, data.classes, penalty, smoothing)
    chooser_FC = slow_twin(x_ND[~held_N], labels_N[~held_N], data.classes, penalty, smoothing)
    logits_NC = test_ND @ full_FC[:-1] + full_FC[-1]
    right_N = logits_NC.argmax(1) == data.test_labels_N.numpy()
    assert (predicted(result, data) == right_N).mean() >= 0.995
    test_loss = -log_softmax(logits_NC, axis=1)[np.arange(len(right_N)), data.test_labels_N.numpy()].mean()
    held_NC = log_softmax(x_ND[held_N] @ chooser_FC[:-1] + chooser_FC[-1], axis=1)
    heldout_loss = -held_NC[np.arange(held_N.sum()), labels_N[held_N]].mean()
    assert [result.test_loss, result.heldout_loss] == pytest.approx([test_loss, heldout_loss], rel=0.01)
    assert result.converged
    assert result.gradient_norm < 1e-2
    assert (result.penalty, result.penalty_at_end, result.penalties) == (penalty, False, ())


def test_agrees_with_scikit_learn_on_the_path_and_takes_the_penalty_of_least_heldout_loss():
    data = make_data(300, 40)
    penalties = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    (result,) = fit_probes(data, recipe(*penalties), seed=1)
    x_ND, test_ND = standardised(data)
    held_N, labels_N = data.heldout_N.numpy(), data.train_labels_N.numpy()
    losses = {}
    for penalty in penalties:
        model = LogisticRegression(C=1 / (penalty * (~held_N).sum()), max_iter=10_000, tol=1e-7)
        logp_NC = model.fit(x_ND[~held_N], labels_N[~held_N]).predict_log_proba(x_ND[held_N])
        losses[penalty] = -logp_NC[np.arange(held_N.sum()), labels_N[held_N]].mean()
    assert result.penalty == min(losses, key=losses.get)
    found = dict(zip(result.penalties, result.heldout_losses, strict=True))
    assert found == pytest.approx({penalty: losses[penalty] for penalty in found}, rel=0.02)
    full = LogisticRegression(C=1 / (result.penalty * len(x_ND)), max_iter=10_000, tol=1e-7).fit(x_ND, labels_N)
    assert result.top1 == pytest.approx(full.score(test_ND, data.test_labels_N.numpy()), abs=0.005)


@settings(max_examples=12, deadline=None)
@given(
    factor=st.floats(1e-6, 1e6),
    shift=st.floats(-100, 100),
    shape=st.sampled_from(sorted(SHAPES)),
)
def test_scale_and_origin_of_an_embedding_change_no_prediction(factor, shift, shape):
    data = make_data(*SHAPES[shape], seed=3)
    (before,) = fit_probes(data, recipe(*PENALTIES["converged"]), seed=1)
    moved = ProbeData(
        **(
            vars(data)
            | {part: [emb_ND * factor + shift * factor for emb_ND in getattr(data, part)] for part in ("train", "test")}
        )
    )
    (after,) = fit_probes(moved, recipe(*PENALTIES["converged"]), seed=1)
    assert after.penalty == before.penalty
    assert (predicted(after, data) == predicted(before, data)).all()


def test_a_choice_at_an_end_extends_the_path_and_is_reported():
    data = make_data(300, 40)
    (usual,) = fit_probes(data, recipe(*PENALTIES["converged"]), seed=1)
    assert not usual.penalty_at_end
    for penalties in ((usual.penalty * 100, usual.penalty * 10), (usual.penalty / 100, usual.penalty / 10)):
        (extended,) = fit_probes(data, recipe(*penalties), seed=1)
        assert extended.penalty == pytest.approx(usual.penalty)
        assert not extended.penalty_at_end
        assert extended.top1 == pytest.approx(usual.top1, abs=0.0051)
    (short,) = fit_probes(data, recipe(usual.penalty * 1e7, usual.penalty * 1e6), seed=1)
    assert short.penalty == pytest.approx(usual.penalty * 1e3)
    assert short.penalty_at_end


def test_a_penalty_that_heldout_images_rule_out_is_stopped():
    data = make_data(300, 40)
    (result,) = fit_probes(data, recipe(*PENALTIES["converged"]), seed=1)
    assert result.penalties[0] == 10
    assert min(result.penalties) > min(PENALTIES["converged"])
    assert result.heldout_losses[result.penalties.index(result.penalty)] == min(result.heldout_losses)


def test_neither_neighbours_nor_threads_matter():
    data = make_data(300, 40, layers=5)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(fit_probes(data, recipe(*PENALTIES["converged"]), seed=threads))
    torch.set_num_threads(before)
    found.append(fit_probes(data, recipe(*PENALTIES["converged"]), seed=0, cpus=4))
    assert found[0] == found[1] == found[2] == found[3]
    single = ProbeData(**(vars(data) | {"train": data.train[2:3], "test": data.test[2:3], "layer_names": ["layer2"]}))
    (alone,) = fit_probes(single, recipe(*PENALTIES["converged"]), seed=9)
    assert (alone.correct, alone.test_loss, alone.penalty) == (
        found[0][2].correct,
        found[0][2].test_loss,
        found[0][2].penalty,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("one_thread")
def test_a_layer_is_to_the_bit_what_it_is_alone_however_many_share_its_steps(shape):
    data = with_folds(make_data(*SHAPES[shape], layers=4), 2)
    data.train[1][:] = torch.randn(data.train[1].shape, generator=torch.Generator().manual_seed(5))  # learns nothing
    alone = [result for layer in range(4) for result in _fit(data, recipe(*PENALTIES["converged"]), [layer])]
    assert len({result.epochs_run for result in alone}) > 1  # some are done before others
    for group in ([0, 1, 2, 3], [3, 1]):
        assert _fit(data, recipe(*PENALTIES["converged"]), group) == [alone[layer] for layer in group]


@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_gpu_where_nothing_is_known_of_a_layer_the_same_is_found(shape, monkeypatch):
    """Small numbers as tensors, all layers in every pass, a look at every eighth iteration."""
    data = make_data(*SHAPES[shape], layers=3)
    expected = _fit(data, recipe(*PENALTIES["converged"]), [0, 1, 2])
    for module in (descent, path, remembered, softmax):
        monkeypatch.setattr(module, "small", lambda numbers: numbers)
    monkeypatch.setattr(descent, "_LOOK", {"cpu": 8})
    monkeypatch.setattr(descent._Descent, "_look", lambda self: [] if bool(self._done_L.all()) else None)
    for result, other in zip(_fit(data, recipe(*PENALTIES["converged"]), [0, 1, 2]), expected, strict=True):
        assert (result.penalty, result.converged, result.epochs_run) == (
            other.penalty,
            other.converged,
            other.epochs_run,
        )
        assert (predicted(result, data) == predicted(other, data)).mean() >= 0.99
        assert result.test_loss == pytest.approx(other.test_loss, rel=1e-3)


def test_a_bad_layer_or_a_constant_one_spares_its_neighbours():
    data = make_data(300, 40, layers=3)
    clean = fit_probes(data, recipe(*PENALTIES["converged"]), seed=1)
    data.train[1][4, 2] = float("nan")
    data.train[2][:] = 0.1  # a sum of it is not exact
    results = fit_probes(data, recipe(*PENALTIES["converged"]), seed=1)
    assert "image 4" in results[1].problem
    assert results[2].problem is None
    assert results[2].top1 == pytest.approx(1 / data.classes)
    assert results[0] == clean[0]


def test_shuffled_labels_are_near_chance_and_more_penalty_never_fits_better():
    data = make_data(300, 40)
    shuffled = ProbeData(
        **(
            vars(data)
            | {"train_labels_N": data.train_labels_N[torch.randperm(300, generator=torch.Generator().manual_seed(2))]}
        )
    )
    (result,) = fit_probes(shuffled, recipe(*PENALTIES["converged"]), seed=1)
    assert result.top1 == pytest.approx(1 / data.classes, abs=0.12)
    losses = [fit_probes(data, recipe(penalty), seed=1)[0].train_loss for penalty in (1e-4, 1e-2, 1.0)]
    assert losses == sorted(losses)


def test_the_span_of_few_images_is_their_embedding():
    data = make_data(90, 200)
    standard = Standard.of(data.train[0], torch.device("cpu"))
    x_ND = standard.rows(data.train[0])
    found = coordinates.coordinates(
        data.train[0], standard, torch.arange(90), torch.empty(90, coordinates.size(90, 200))
    )
    assert coordinates.size(90, 200) < 100
    torch.testing.assert_close(found.z_NF[:, :90] @ found.z_NF[:, :90].T, x_ND @ x_ND.T, rtol=1e-4, atol=1e-2)
    theta_CF = torch.randn(5, found.z_NF.shape[1], generator=torch.Generator().manual_seed(0))
    theta_CF[:, 91:] = 0
    theta_CF[:, :90] *= found.metric.variance_F[:90] > 0
    weight_DC, bias_C = found.weight(theta_CF)
    torch.testing.assert_close(x_ND @ weight_DC + bias_C, found.z_NF @ theta_CF.T, rtol=1e-3, atol=1e-2)


def test_loss_and_gradient_are_those_of_autograd():
    generator = torch.Generator().manual_seed(0)
    z_LNF, theta_LCF = (torch.randn(2, size, 7, generator=generator) for size in (50, 3))
    labels_N = torch.arange(50) % 3
    theta_LCF.requires_grad_()
    loss_L = torch.stack(
        [
            torch.nn.functional.cross_entropy(z @ theta.T, labels_N, label_smoothing=0.1)
            for z, theta in zip(z_LNF, theta_LCF, strict=True)
        ]
    )
    loss_L.sum().backward()
    value = Softmax(z_LNF, labels_N, slice(0, 50), classes=3, smoothing=0.1).value(theta_LCF.detach())
    torch.testing.assert_close(value.loss_L.float(), loss_L.detach())
    torch.testing.assert_close(value.slope_LCF, theta_LCF.grad)
    p_LNC = torch.softmax(torch.bmm(z_LNF, theta_LCF.detach().transpose(1, 2)), 2)
    torch.testing.assert_close(value.curvature_L.float(), (p_LNC * (1 - p_LNC)).mean((1, 2)))
