"""The probe engine against the obvious loop: one nn.Linear, one torch.optim.AdamW, one probe at a time."""

import gc
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sweep.base.errors import UserError
from sweep.base.seeds import derive_seed
from sweep.config.recipe import Probe
from sweep.probes import memory
from sweep.probes.adamw import fit_adamw
from sweep.probes.data import ProbeData
from sweep.probes.fit import fit_probes, replicate_seeds
from sweep.probes.scores import Tally
from sweep.probes.source import Source

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

    def fit(data, request, layers):
        if len(layers) > 2:
            raise torch.OutOfMemoryError
        fitted.append(len(layers))
        return fit_adamw(data, request, layers)

    monkeypatch.setattr("sweep.probes.fit.fit_adamw", fit)
    assert fit_probes(data, recipe, seed=3) == whole
    assert max(fitted) <= 2
    assert sum(fitted) == len(whole)


def test_a_layer_too_large_alone_is_streamed_with_the_same_results(monkeypatch):
    data, recipe = make_data(), Probe(epochs=3, batch_size=16, standardize="feature")
    whole = fit_probes(data, recipe, seed=3)

    def fit(data, request, layers):
        if request.resident:
            raise torch.OutOfMemoryError
        return fit_adamw(data, request, layers)

    monkeypatch.setattr("sweep.probes.fit.fit_adamw", fit)
    for chunk_bytes in (1, 4096):  # one batch at a time; some
        monkeypatch.setattr("sweep.probes.training._STREAM_BYTES", chunk_bytes)
        assert fit_probes(data, recipe, seed=3) == whole


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cache_bytes", [1, 5_000, 1 << 30])
def test_equal_to_the_bit_however_layers_are_grouped_and_whatever_the_threads(cache_bytes, threads, monkeypatch):
    data = make_data(widths=(5, 24, 24, 24, 3), classes=7, n=90)
    recipes = [Probe(epochs=3, batch_size=16, lr=lr) for lr in (1e-3, 1e-1)]
    expected = fit_probes(data, recipes, seed=3, seeds=2)
    before = torch.get_num_threads()
    monkeypatch.setattr("sweep.probes.memory.CACHE_BYTES", cache_bytes)
    torch.set_num_threads(threads)
    try:
        assert fit_probes(data, recipes, seed=3, seeds=2) == expected
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_waves_hold_what_the_budget_allows():
    assert list(memory.waves([0, 1, 2, 3], [4, 4, 4, 9], None)) == [[0, 1, 2, 3]]
    assert list(memory.waves([0, 1, 2, 3], [4, 4, 4, 9], 8)) == [[0, 1], [2], [3]]
    assert list(memory.waves([], [], 8)) == []
    data = make_data()
    assert memory.fit_bytes(data, 1, probes=3) == 8 * 8 * 80 + 2 * 3 * 16 * 8 * 4
    assert 0 < memory.budget_bytes(torch.device("cpu"), 0.5) < memory.budget_bytes(torch.device("cpu"), 1.0)


@given(
    layers=st.integers(1, 40),
    width=st.sampled_from([3, 192, 2048]),
    classes=st.integers(2, 300),
    probes=st.integers(1, 9),
)
def test_groups_partition_the_layers_evenly(layers, width, classes, probes):
    recipes = [Probe(lr=10.0**-k) for k in range(probes)]
    groups = list(memory.cached_groups(range(layers), recipes, width=width, classes=classes))
    assert [layer for group in groups for layer in group] == list(range(layers))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1


def test_fitting_needs_no_loader_and_no_python_per_image(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a DataLoader over embeddings")

    monkeypatch.setattr("torch.utils.data.DataLoader.__init__", forbidden)

    def python_calls(n):
        calls = 0

        def count(_frame, event, _argument):
            nonlocal calls
            calls += event in ("call", "c_call")

        data = make_data(n=n, n_test=n, widths=(8, 8))
        gc.collect()
        gc.disable()  # what it calls, and when, is not ours
        sys.setprofile(count)
        try:
            # the same number of batches, twice as many images
            fit_probes(data, Probe(epochs=2, batch_size=n // 4), seed=1)
        finally:
            sys.setprofile(None)
            gc.enable()
        return calls

    torch.set_num_threads(1)
    python_calls(100)
    assert python_calls(800) == python_calls(400)


def test_several_rates_and_seeds_are_rows_and_equal_those_fitted_alone():
    data = make_data(signal=0.5)
    recipes = [Probe(epochs=4, batch_size=16, lr=lr, weight_decay=decay) for lr in (1e-3, 3e-2) for decay in (0, 0.1)]
    together = fit_probes(data, recipes, seed=5, seeds=2)
    assert [(r.layer, r.recipe, r.seed_index) for r in together] == [
        (layer, recipe, replicate) for layer in range(4) for recipe in range(4) for replicate in range(2)
    ]
    for number, recipe in enumerate(recipes):
        for replicate, seed in enumerate(replicate_seeds(5, 2)):
            alone = fit_probes(data, recipe, seed=seed)
            ours = [r for r in together if r.recipe == number and r.seed_index == replicate]
            for one, other in zip(ours, alone, strict=True):
                assert (one.top1_E, one.test_loss, one.correct) == (other.top1_E, other.test_loss, other.correct)


def test_the_chosen_recipe_is_the_best_on_held_out_data_alone():
    data = make_data(signal=0.4, n=200)
    recipes = [Probe(epochs=3, batch_size=16, lr=lr) for lr in (1e-5, 1e-2, 10.0)]
    results = fit_probes(data, recipes, seed=5, seeds=2)
    for layer in range(4):
        own = [r for r in results if r.layer == layer]
        (chosen,) = [r for r in own if r.chosen]
        means = [np.mean([r.heldout_top1 for r in own if r.recipe == number]) for number in range(3)]
        assert means[chosen.recipe] == max(means)
        assert chosen.seed_index == 0
    blind = ProbeData(**(vars(data) | {"test": [torch.zeros_like(x) for x in data.test]}))
    assert [r.chosen for r in fit_probes(blind, recipes, seed=5, seeds=2)] == [r.chosen for r in results]


def test_a_recipe_that_diverges_is_not_chosen_and_spares_the_others():
    data = make_data()
    data.test[2] *= 1e307
    fine, wild = Probe(epochs=2, batch_size=16), Probe(epochs=2, batch_size=16, lr=1e3)
    results = fit_probes(data, [wild, fine], seed=1, dtype=torch.float64)
    alone = fit_probes(data, fine, seed=1, dtype=torch.float64)
    assert "diverged" in results[4].problem
    assert [r.test_loss for r in results if r.recipe == 1] == [r.test_loss for r in alone]


def test_recipes_of_a_curve_differ_in_rate_and_decay_only():
    with pytest.raises(UserError, match="lr and weight_decay only"):
        fit_probes(make_data(), [Probe(epochs=2), Probe(epochs=3)], seed=1)


def test_equal_logits_count_as_argmax_counts_them():
    labels_N = torch.arange(12) % 6
    tally = Tally(2, 6, labels_N)
    logits_LCN = torch.zeros(2, 6, 12)
    logits_LCN[1] = torch.randint(0, 3, (6, 12), generator=torch.Generator().manual_seed(1)).float()
    for part in (slice(0, 5), slice(5, 12)):
        logits_LCB = logits_LCN[:, :, part].clone()
        tally.add(part, logits_LCB, torch.empty_like(logits_LCB))
    scores = tally.scores()
    assert torch.equal(scores.correct_LN, logits_LCN.argmax(1) == labels_N)
    assert scores.top5_L[0] == pytest.approx(5 / 6)  # a dead layer is not right in five of its classes for nothing
    expected = F.cross_entropy(logits_LCN[1].T, labels_N).item()
    assert scores.loss_L[1].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("standardize", ["none", "feature"])
def test_the_gradient_that_is_left_is_that_of_autograd_and_falls_with_epochs(standardize):
    data, left = make_data(widths=(5,)), []
    for epochs in (1, 400):
        recipe = Probe(epochs=epochs, lr=1e-2, batch_size=16, label_smoothing=0.1, standardize=standardize)
        (result,) = fit_probes(data, recipe, seed=7, dtype=torch.float64)
        left.append(result.gradient_norm)
        assert result.epochs_run == epochs
    assert left[1] < left[0] < 1.5
    assert not fit_probes(data, Probe(epochs=1), seed=7)[0].converged
    (unmoved,) = fit_probes(data, Probe(epochs=1, lr=1e-12, standardize=standardize), seed=7, dtype=torch.float64)
    x_ND = data.train[0]
    if standardize == "feature":
        x_ND = (x_ND - x_ND.mean(0)) / x_ND.std(0, correction=0)
    slopes = []
    for weight_CD in (initial(data, 7).T.double(), torch.zeros(data.classes, 5, dtype=torch.float64)):
        weight_CD.requires_grad_()
        bias_C = torch.zeros(data.classes, dtype=torch.float64)
        if not weight_CD.any():
            bias_C = torch.bincount(data.train_labels_N).double().log()
        loss = F.cross_entropy(F.linear(x_ND, weight_CD, bias_C), data.train_labels_N)
        (slope_CD,) = torch.autograd.grad(loss, weight_CD)
        slopes.append(float(slope_CD.norm()))
    assert unmoved.gradient_norm == pytest.approx(slopes[0] / slopes[1], rel=0.15)


def initial(data, seed):
    """Initial weights of the first layer, (D, C)."""
    generator = torch.Generator().manual_seed(derive_seed("init", seed, data.layer_names[0]))
    return torch.empty(data.train[0].shape[1], data.classes).normal_(0, 0.01, generator=generator)


def test_layers_of_one_width_may_be_stored_in_different_types():
    data = make_data(widths=(6, 6, 6), seed=2)
    types = {
        "train": (torch.float16, torch.float32, torch.float32),
        "test": (torch.float16, torch.float32, torch.float16),
    }
    for part, of_layers in types.items():
        getattr(data, part)[:] = [
            emb_ND.to(dtype) for emb_ND, dtype in zip(getattr(data, part), of_layers, strict=True)
        ]
    for recipe in (Probe(epochs=3, batch_size=16), Probe(solver="ridge", weight_decay=1.0)):
        together = fit_probes(data, recipe, seed=1)
        for layer in range(3):
            part = vars(data) | {
                name: getattr(data, name)[layer : layer + 1] for name in ("train", "test", "layer_names")
            }
            (alone,) = fit_probes(ProbeData(**part), recipe, seed=1)
            assert (alone.correct, alone.test_loss) == (together[layer].correct, together[layer].test_loss)
    source = Source(data.train, torch.device("cpu"), torch.float32)
    images_B = torch.tensor([3, 1, 7])
    expected_LBD = torch.stack([emb_ND[images_B].float() for emb_ND in data.train])
    assert torch.equal(source.gather(images_B, source.buffers(3)), expected_LBD)
    assert source.row_bytes == 6 * (2 + 4 + 4)  # as they are stored: nothing was copied to a wider type
