"""The probe engine against the obvious loop: one nn.Linear, one torch.optim.AdamW, one probe at a time."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sweep.config import Probe
from sweep.probes import ProbeData, _stacks, fit_probes
from sweep.seeds import derive_seed

WIDTHS = (5, 8, 8, 3)


def make_data(*, classes=4, n=50, n_test=30, widths=WIDTHS, signal=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    train_labels_N = torch.arange(n) % classes
    test_labels_N = torch.arange(n_test) % classes

    def embeddings(labels_N, width, centres_CD):
        return centres_CD[labels_N] * signal + torch.randn(
            len(labels_N), width, generator=generator, dtype=torch.float64
        )

    centres = [torch.randn(classes, width, generator=generator, dtype=torch.float64) for width in widths]
    return ProbeData(
        train=[embeddings(train_labels_N, w, c) for w, c in zip(widths, centres, strict=True)],
        train_labels_N=train_labels_N,
        heldout_N=torch.arange(n) % 10 == 3,
        test=[embeddings(test_labels_N, w, c) for w, c in zip(widths, centres, strict=True)],
        test_labels_N=test_labels_N,
        classes=classes,
        layer_names=[f"layer{i}" for i in range(len(widths))],
    )


def plain_loop(data, recipe, *, layer, seed):
    """What the engine must equal, probe by probe: returns held-out and test accuracies and losses per epoch."""
    width, out = data.train[layer].shape[1], {}
    for fit, chosen_N in (("selection", ~data.heldout_N), ("full", torch.ones_like(data.heldout_N))):
        probe = nn.Linear(width, data.classes, dtype=torch.float64)
        initial_DC = torch.empty(width, data.classes)
        initial_DC.normal_(
            0,
            0.01,
            generator=torch.Generator().manual_seed(derive_seed("init", seed, data.layer_names[layer])),
        )
        with torch.no_grad():
            probe.weight.copy_(initial_DC.T)
            probe.bias.zero_()
        optimizer = torch.optim.AdamW(probe.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        indices_N = chosen_N.nonzero().squeeze(1)
        x_ND = data.train[layer]
        if recipe.standardize == "feature":
            mean_D, std_D = x_ND[indices_N].mean(0), x_ND[indices_N].std(0, correction=0)
            scale = lambda x, m=mean_D, s=std_D: (x - m) / s  # noqa: E731
        else:
            scale = lambda x: x  # noqa: E731
        scores = []
        for epoch in range(recipe.epochs):
            generator = torch.Generator().manual_seed(derive_seed("order", seed, fit, epoch))
            for batch_B in indices_N[torch.randperm(len(indices_N), generator=generator)].split(recipe.batch_size):
                logits_BC = probe(scale(x_ND[batch_B]))
                loss = F.cross_entropy(logits_BC, data.train_labels_N[batch_B], label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                held = data.heldout_N
                x, y = (
                    (x_ND[held], data.train_labels_N[held])
                    if fit == "selection"
                    else (data.test[layer], data.test_labels_N)
                )
                logits = probe(scale(x))
                scores.append(((logits.argmax(1) == y).double().mean().item(), F.cross_entropy(logits, y).item()))
        out[fit] = scores
    return out


@pytest.mark.parametrize("standardize", ["none", "feature"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_one_probe_at_a_time(standardize, smoothing):
    data = make_data()
    recipe = Probe(
        epochs=6,
        lr=1e-2,
        weight_decay=1e-2,
        batch_size=16,
        label_smoothing=smoothing,
        standardize=standardize,
    )
    results = fit_probes(data, recipe, seed=7, dtype=torch.float64)
    for layer, result in enumerate(results):
        slow = plain_loop(data, recipe, layer=layer, seed=7)
        assert result.heldout_top1_E == pytest.approx([top1 for top1, _ in slow["selection"]], abs=1e-9)
        assert result.top1_E == pytest.approx([top1 for top1, _ in slow["full"]], abs=1e-9)
        chosen = max(range(6), key=lambda e: (slow["selection"][e][0], -slow["selection"][e][1], -e))
        assert result.epoch_chosen == chosen + 1
        assert result.heldout_loss == pytest.approx(slow["selection"][chosen][1], abs=1e-6)
        assert result.test_loss == pytest.approx(slow["full"][chosen][1], abs=1e-6)
        assert result.top1 == result.top1_E[chosen]
        assert result.top1_best == max(result.top1_E)


def test_neighbours_do_not_matter():
    data = make_data()
    recipe = Probe(epochs=4, batch_size=16)
    together = fit_probes(data, recipe, seed=1, dtype=torch.float64)
    for layer in range(len(WIDTHS)):
        alone = ProbeData(
            [data.train[layer]],
            data.train_labels_N,
            data.heldout_N,
            [data.test[layer]],
            data.test_labels_N,
            data.classes,
            [data.layer_names[layer]],
        )
        (single,) = fit_probes(alone, recipe, seed=1, dtype=torch.float64)
        assert single.test_loss == pytest.approx(together[layer].test_loss, abs=1e-9)
        assert single.correct == together[layer].correct


def test_bad_embedding_is_named_and_spares_its_neighbours():
    data = make_data()
    clean = fit_probes(data, Probe(epochs=3), seed=1, dtype=torch.float64)
    data.train[1][4, 2] = float("nan")
    data.test[3][0, 0] = float("inf")
    results = fit_probes(data, Probe(epochs=3), seed=1, dtype=torch.float64)
    assert "layer1" in results[1].problem
    assert "image 4" in results[1].problem
    assert "test" in results[3].problem
    assert results[2].test_loss == pytest.approx(clean[2].test_loss, abs=1e-9)
    assert results[0].correct == clean[0].correct


def test_divergence_is_a_result_with_a_reason():
    data = make_data()
    clean = fit_probes(data, Probe(epochs=3, lr=1e3), seed=1, dtype=torch.float64)
    data.test[2] *= 1e307  # finite, but the logits are not
    results = fit_probes(data, Probe(epochs=3, lr=1e3), seed=1, dtype=torch.float64)
    assert "layer2 diverged" in results[2].problem
    assert results[1].test_loss == pytest.approx(clean[1].test_loss, rel=1e-12)


def test_correct_bits_are_the_accuracy():
    data = make_data(signal=0.3)
    for result in fit_probes(data, Probe(epochs=3), seed=1):
        bits = np.unpackbits(np.frombuffer(result.correct, np.uint8), count=30)
        assert bits.mean() == pytest.approx(result.top1)


def test_shuffled_labels_are_near_chance_and_signal_is_learned():
    noise = fit_probes(make_data(signal=0.0, n=400, n_test=400), Probe(epochs=5), seed=1)
    signal = fit_probes(make_data(signal=3.0, n=400, n_test=400), Probe(epochs=30, lr=1e-2), seed=1)
    assert all(abs(result.top1 - 0.25) < 0.1 for result in noise)
    assert all(result.top1 > 0.85 for result in signal)
    assert all(result.top5 == 1.0 for result in signal)


def test_short_of_memory_fewer_layers_are_fitted_at_once_with_the_same_results(monkeypatch):
    data, recipe = make_data(), Probe(epochs=3, batch_size=16)
    whole = fit_probes(data, recipe, seed=3)
    fitted = []

    def stacks(data, layers):
        if len(layers) > 2:
            raise torch.OutOfMemoryError
        fitted.append(len(layers))
        return _stacks(data, layers)

    monkeypatch.setattr("sweep.probes._stacks", stacks)
    for ours, expected in zip(fit_probes(data, recipe, seed=3), whole, strict=True):
        assert (ours.top1_E, ours.heldout_top1_E, ours.correct) == (
            expected.top1_E,
            expected.heldout_top1_E,
            expected.correct,
        )
        # another number of layers in one product may be summed in another order
        assert ours.test_loss == pytest.approx(expected.test_loss, rel=1e-6)
    assert max(fitted) <= 2
    assert sum(fitted) == len(whole)
