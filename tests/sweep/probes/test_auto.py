"""AdamW whose probes end for themselves: each layer as long as its held-out loss falls."""

import numpy as np
import pytest
import torch

from sweep.config import AUTO, MOST_EPOCHS, PATIENCE, Probe
from sweep.probes import fit_probes
from sweep.probes.adamw import fit_adamw
from tests.sweep.probes.test_fit import WIDTHS, make_data, plain_loop

RECIPE = Probe(epochs=AUTO, lr=3e-2, batch_size=16, label_smoothing=0.1)


def spread_out(**settings):
    """Layers that end at different epochs: the larger an embedding, the faster a fixed rate learns it."""
    data = make_data(**settings)
    for layer, factor in enumerate((1.0, 3.0, 0.3, 1.0)):
        for part in (data.train, data.test):
            part[layer] *= factor
    return data


def end_of(losses):
    """The epoch at which the lowest loss so far is PATIENCE epochs old."""
    lowest, at = np.inf, 0
    for epoch, loss in enumerate(losses, 1):
        if loss < lowest:
            lowest, at = loss, epoch
        if epoch - at >= PATIENCE:
            return epoch
    raise AssertionError("the loop is too short")


@pytest.mark.parametrize("standardize", ["none", "feature"])
def test_equals_one_probe_at_a_time(standardize):
    data = spread_out(n_test=20)
    recipe = RECIPE.model_copy(update={"standardize": standardize})
    results = fit_probes(data, recipe, seed=7, dtype=torch.float64)
    ends = []
    for layer, result in enumerate(results):
        slow = plain_loop(data, recipe.model_copy(update={"epochs": 110}), layer=layer, seed=7)
        end = end_of([loss for _, loss in slow["selection"]])
        ends.append(end)
        assert result.epochs_run == end
        assert result.heldout_top1_E == pytest.approx([top1 for top1, _ in slow["selection"][:end]], abs=1e-9)
        assert result.top1_E == pytest.approx([top1 for top1, _ in slow["full"][:end]], abs=1e-9)
        assert result.test_loss == pytest.approx(slow["full"][result.epoch_chosen - 1][1], abs=1e-6)
    assert len(set(ends)) >= 3


def test_every_probe_is_that_of_a_fixed_number_of_epochs():
    data = spread_out()
    recipes = [RECIPE, RECIPE.model_copy(update={"lr": 1e-1})]
    results = fit_probes(data, recipes, seed=3, seeds=2)
    ends = {result.epochs_run for result in results}
    assert len(ends) > len(WIDTHS)
    for end in ends:
        fixed = [recipe.model_copy(update={"epochs": end}) for recipe in recipes]
        for result, same in zip(results, fit_probes(data, fixed, seed=3, seeds=2), strict=True):
            if result.epochs_run == end:
                assert {**vars(result), "chosen": None} == {**vars(same), "chosen": None}


@pytest.mark.parametrize("cache_bytes", [1, 1 << 30])
def test_neither_groups_nor_streaming_matter(cache_bytes, monkeypatch):
    data = spread_out()
    expected = fit_probes(data, RECIPE, seed=3)

    def streamed(data, request, layers):
        if request.resident:
            raise torch.OutOfMemoryError
        return fit_adamw(data, request, layers)

    monkeypatch.setattr("sweep.probes.memory.CACHE_BYTES", cache_bytes)
    assert fit_probes(data, RECIPE, seed=3) == expected
    monkeypatch.setattr("sweep.probes.fit.fit_adamw", streamed)
    monkeypatch.setattr("sweep.probes.training._STREAM_BYTES", 4096)
    assert fit_probes(data, RECIPE, seed=3) == expected


def test_it_is_bounded_and_says_what_is_left():
    slow = RECIPE.model_copy(update={"lr": 1e-5})
    (result,) = fit_probes(make_data(widths=(5,)), slow, seed=1)
    assert (result.epochs_run, result.converged) == (MOST_EPOCHS, False)
    assert result.gradient_norm > 0.1
    data = make_data(widths=(5,))
    data.test[0] *= 1e307  # finite, but the logits are not
    (wild,) = fit_probes(data, RECIPE.model_copy(update={"lr": 1e3}), seed=1, dtype=torch.float64)
    assert "layer0 diverged" in wild.problem
