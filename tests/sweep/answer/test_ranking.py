"""Intervals against closed forms and SciPy, and sentences that call ties ties."""

import numpy as np
import pytest
from scipy import stats

from sweep.answer import ranking
from sweep.answer.names import Model


def curve(name, right_LN, *, heldout):
    """Rows of one curve from which test images each layer has right."""
    return [
        {
            "architecture": name,
            "pretraining": "w",
            "curve_key": name,
            "layer": number,
            "layer_name": f"l{number}",
            "layer_width": 8,
            "resolution": 32,
            "chosen": True,
            "problem": None,
            "heldout_top1": held,
            "heldout_loss": 1.0,
            "top1": float(np.mean(right_N)),
            "n_test": len(right_N),
            "n_heldout": 10,
            "correct": np.packbits(right_N).tobytes(),
            "is_penultimate": number == len(heldout),
        }
        for number, (right_N, held) in enumerate(zip(right_LN, heldout, strict=True), start=1)
    ]


@pytest.mark.parametrize(("right", "n"), [(0, 7), (3, 7), (861, 861), (450, 861)])
def test_the_interval_of_an_accuracy_is_wilsons(right, n):
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert ranking.wilson(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_paired_bootstrap_has_the_error_of_a_mean_of_differences():
    rng = np.random.default_rng(1)
    one_N, other_N = rng.random(400) < 0.8, rng.random(400) < 0.7
    difference, error = ranking.paired(one_N, other_N)
    each_N = one_N.astype(float) - other_N
    assert difference == pytest.approx(each_N.mean(), abs=1e-6)
    assert error == pytest.approx(each_N.std() / 20, rel=0.08)
    assert ranking.paired(one_N, one_N) == (0.0, 1 / 400)  # so many images cannot tell them apart, no fewer


def test_few_images_apart_are_no_lead():
    """Four images that one has right and the other wrong: the exact test of McNemar gives p = 0.125."""
    one_N, other_N = np.ones(20, bool), np.arange(20) >= 4
    rows = [*curve("one", [one_N], heldout=[1]), *curve("other", [other_N], heldout=[1])]
    assert [lead.tied for lead in ranking.leads(ranking.answers(rows))] == [True]
    other_N = np.arange(20) >= 9
    rows = [*curve("one", [one_N], heldout=[1]), *curve("other", [other_N], heldout=[1])]
    assert [lead.tied for lead in ranking.leads(ranking.answers(rows))] == [False]


def test_a_layer_is_numbered_as_in_the_network_where_a_budget_left_others_out():
    rows = curve("a", np.ones((2, 8), bool), heldout=[0.9, 0.8])
    (found,) = ranking.answers(rows, {Model("a", "w"): ("l0", "l1", "l1b", "l2")})
    assert (found.layer, found.layers, found.layer_name) == (2, 4, "l1")


def test_how_many_images_chose_the_layer_is_said_as_it_was():
    rows = curve("a", np.ones((2, 8), bool), heldout=[0.9, 0.8])
    assert ranking.answers(rows)[0].n_choosing == 10
    crossed = [row | {"crossfit_top1": 0.5, "crossfit_loss": 1.0, "n_train": 100} for row in rows]
    assert ranking.answers(crossed)[0].n_choosing == 100


def test_accuracy_is_that_of_the_layer_that_held_out_images_chose():
    right_LN = np.array([[1] * 6 + [0] * 4, [1] * 9 + [0], [1] * 5 + [0] * 5], dtype=bool)
    (found,) = ranking.answers(curve("a", right_LN, heldout=[0.9, 0.5, 0.1]))  # on the test the second is better
    assert (found.layer, found.accuracy, found.layers) == (1, 0.6, 3)
    assert found.lost == pytest.approx(0.1)
    (last,) = ranking.answers(curve("a", right_LN, heldout=[0.1, 0.5, 0.9]))
    assert (last.layer, last.lost, last.lost_low, last.lost_high) == (3, 0, 0, 0)


def test_ties_are_called_ties_and_leads_leads():
    n, rng = 1000, np.random.default_rng(0)
    good_N = rng.random(n) < 0.8
    near_N = good_N.copy()
    near_N[[*np.flatnonzero(good_N)[:12], *np.flatnonzero(~good_N)[:10]]] ^= True  # apart on 22 images, either way
    far_N = good_N & (rng.random(n) < 0.7)
    rows = [*curve("good", [good_N], heldout=[1]), *curve("near", [near_N], heldout=[1])]
    said = ranking.sentence(ranking.answers([*rows, *curve("far", [far_N], heldout=[1])]))
    assert "is not surely ahead: it is tied with" in said
    assert "ahead of far.w" in said
    said = ranking.sentence(
        ranking.answers([*curve("good", [good_N], heldout=[1]), *curve("far", [far_N], heldout=[1])])
    )
    assert said.startswith("good.w is ahead of far.w: ")
    assert ranking.sentence(ranking.answers(rows[:1])) == "There is one model: nothing to compare it with."


def test_of_equal_models_one_is_hardly_ever_called_ahead():
    """The first is chosen by the same images: the intervals have to allow for it."""
    wrong = 0
    for seed in range(60):
        right_MN = np.random.default_rng(seed).random((6, 300)) < 0.7
        found = ranking.answers(
            [row for m, right_N in enumerate(right_MN) for row in curve(f"m{m}", [right_N], heldout=[1])]
        )
        wrong += any(not lead.tied for lead in ranking.leads(found))
    assert wrong <= 6


def test_a_model_without_a_number_has_no_answer():
    rows = curve("a", [np.ones(4, bool)], heldout=[1])
    rows[0] |= {"problem": "embedding is not finite"}
    assert ranking.answers(rows) == []
    assert Model("a", "w").name == "a.w"
