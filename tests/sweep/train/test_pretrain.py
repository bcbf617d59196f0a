"""ID training: schedule, batches, exact resumption."""

import functools
import io
import itertools
import math
import threading
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sweep.base.arithmetic import arithmetic, float32_bits, reproducible
from sweep.base.errors import StorageError, UserError
from sweep.base.store import Store
from sweep.config.recipe import Recipe
from sweep.train.batches import CroppedImages, PlainImages, squares
from sweep.train.checkpoint import Checkpoints, clear_checkpoint
from sweep.train.pretrain import Labelled, TrainingDivergedError, epoch_batches, learning_rate, pretrain
from sweep.train.saving import Saver, apart, sealed, unsealed
from sweep.train.weights import Workshop, _checkpoints

RECIPE = Recipe(epochs=4, lr=1e-2, batch_size=8, warmup_epochs=1)


def network(dropout=0.2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),  # before a batch norm the gradient of a bias is rounding alone
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def data(n=30, seed=0):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(n) % 3
    images_NHWC = rng.integers(0, 100, (n, 6, 6, 3), dtype=np.uint8)
    images_NHWC[np.arange(n), 0, 0, labels_N] = 255
    return images_NHWC, labels_N


def plain(images_NHWC, labels_N):
    return PlainImages(images_NHWC, labels_N, np.arange(len(labels_N)))


def strong(images_NHWC, labels_N, *, ahead=False):
    at_N = np.arange(len(labels_N))
    return CroppedImages(squares(images_NHWC), labels_N, at_N, side=6, operations=True, ahead=ahead)


def train(
    checkpoints,
    *,
    recipe=RECIPE,
    on_epoch=lambda history, total: None,
    key="k",
    dropout=0.2,
    source=plain,
    **layout,
):
    images_NHWC, labels_N = data()
    model = network(dropout)
    with torch.no_grad():
        model(torch.zeros(2, 3, 6, 6))
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return pretrain(
        model,
        source(images_NHWC, labels_N),
        heldout=Labelled(*data(9, seed=1)),
        test=Labelled(*data(9, seed=2)),
        recipe=recipe,
        key=key,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        device=torch.device("cpu"),
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        **layout,
    )


def nowhere():
    return Checkpoints(load=lambda: None, save=lambda data: None)


def same(one, other):
    return all(torch.equal(one.state[name], other.state[name]) for name in one.state)


def close(one, other):
    """Equal but for rounding."""
    for name, value in one.state.items():
        torch.testing.assert_close(
            value, other.state[name], rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_schedule_warms_up_and_ends_near_zero():
    rates = [learning_rate(step, steps_per_epoch=10, recipe=RECIPE) for step in range(40)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == rates[9] == pytest.approx(1e-2)
    assert rates[25] == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 15 / 30)))
    assert rates[-1] < 1e-4


def test_batches_cover_everything_once_and_none_is_tiny():
    batches = epoch_batches(33, 8, seed=5)
    assert sorted(np.concatenate(batches)) == list(range(33))
    assert {len(b) for b in batches} == {6, 7}
    assert [b.tolist() for b in batches] == [b.tolist() for b in epoch_batches(33, 8, seed=5)]


@pytest.mark.parametrize(
    ("killed_after", "source", "then"),
    [(1, plain, plain), (2, strong, functools.partial(strong, ahead=True)), (3, plain, plain)],  # a thread cuts ahead
)
def test_resumed_training_ends_with_the_same_weights(killed_after, source, then):
    mixing = RECIPE.model_copy(update={"mixup": 0.2, "cutmix": 1.0} if source is strong else {})
    undisturbed = train(nowhere(), recipe=mixing, source=source)
    kept = {}

    class KilledError(Exception):
        pass

    def save(snapshot):
        kept["state"] = snapshot

    def kill(history, total):
        if len(history) == killed_after + 1:
            raise KilledError

    checkpoints = Checkpoints(load=lambda: None, save=save, every_seconds=0)
    with pytest.raises(KilledError):
        train(checkpoints, on_epoch=kill, recipe=mixing, source=source)
    torch.manual_seed(123)  # whatever happened in between
    epochs = []
    resumed = train(
        Checkpoints(load=lambda: kept["state"], save=save, every_seconds=0),
        on_epoch=lambda history, total: epochs.append(len(history)),
        recipe=mixing,
        source=then,
    )
    assert epochs == list(range(killed_after + 1, 5))
    assert same(resumed, undisturbed)
    assert (resumed.epoch, resumed.heldout_top1) == (undisturbed.epoch, undisturbed.heldout_top1)
    assert [h["train_loss"] for h in resumed.history] == [h["train_loss"] for h in undisturbed.history]


def test_a_checkpoint_is_written_beside_training():
    """A slow store is not waited for, and gets the state as it was, whatever training does to it meanwhile."""
    may, written, weight = threading.Event(), [], torch.zeros(3)

    def save(data):
        assert may.wait(timeout=60)
        written.append(torch.load(io.BytesIO(unsealed(data)), weights_only=True))

    with Saver(Checkpoints(load=lambda: None, save=save, every_seconds=0)) as saver:
        saver.save({"model": apart({"weight": weight})})
        weight += 1
        assert not written
        may.set()
    assert written[0]["model"]["weight"].tolist() == [0, 0, 0]

    def fail(data):
        raise PermissionError("no")

    with pytest.raises(PermissionError), Saver(Checkpoints(load=lambda: None, save=fail, every_seconds=0)) as saver:
        saver.save({})


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Checkpoints of the run ``k`` in a store after every epoch; the store; what is written and deleted, in order."""
    store, log = Store(str(tmp_path / "out")), []
    put, delete = Store.put, Store.delete
    monkeypatch.setattr(Store, "put", lambda own, name, data: (put(own, name, data), log.append(name)))
    monkeypatch.setattr(Store, "delete", lambda own, name: (delete(own, name), log.append(f"- {name}")))
    shop = Workshop(store=store, library=None, run="k", device=torch.device("cpu"))
    return replace(_checkpoints(shop), every_seconds=0), store, log


STATE, BEST = "checkpoints/k.pt", "checkpoints/best/k-{}.pt".format
LONGER = RECIPE.model_copy(update={"epochs": 8})


def test_the_best_weights_are_written_when_they_changed_and_before_the_state_that_names_them(stored):
    checkpoints, _, log = stored
    trained = train(checkpoints, recipe=LONGER)
    scores = [each["heldout_top1"] for each in trained.history[:-1]]
    best = [int(np.argmax(scores[: done + 1])) for done in range(len(scores))]  # after each epoch but the last
    assert len(set(best)) not in (1, len(best))
    expected = [BEST(best[0]), STATE]
    for before, after in itertools.pairwise(best):
        expected += [STATE] if before == after else [BEST(after), STATE, f"- {BEST(before)}"]
    assert log == expected
    assert same(trained, train(nowhere(), recipe=LONGER))


@pytest.mark.parametrize("operations", range(1, 9))
@pytest.mark.parametrize("kind", ["kill", "full disk"])
def test_a_checkpoint_that_is_half_written_changes_nothing(stored, operations, kind, monkeypatch, caplog):
    """A kill between any two operations; or a disk that is full from then on, which training outlives."""
    checkpoints, store, log = stored
    whole, put = train(nowhere(), recipe=LONGER), Store.put
    error = StorageError(28, "No space left on device") if kind == "full disk" else KeyboardInterrupt()

    def until_then(own, name, data):
        if len(log) >= operations:
            raise error
        put(own, name, data)

    with monkeypatch.context() as patched, nullcontext() if kind == "full disk" else pytest.raises(KeyboardInterrupt):
        patched.setattr(Store, "put", until_then)
        assert same(train(checkpoints, recipe=LONGER), whole)
    assert ("No space" in caplog.text) == (kind == "full disk")
    written, epochs = log.count(STATE), []
    resumed = train(checkpoints, recipe=LONGER, on_epoch=lambda history, _total: epochs.append(len(history)))
    assert epochs == list(range(written + 1, 9))
    assert same(resumed, whole)
    assert [each["train_loss"] for each in resumed.history] == [each["train_loss"] for each in whole.history]
    clear_checkpoint(store, "k")
    assert store.names() == []


@pytest.mark.parametrize("damage", ["are gone", "not those that were written", "belong to other"])
def test_best_weights_that_are_not_those_meant_are_said(stored, damage, caplog):
    checkpoints, store, _ = stored
    whole = train(checkpoints, recipe=LONGER)
    (best,) = store.names("checkpoints/best/")
    data = bytearray(store.get(best))
    data[-9] ^= 1
    if damage == "are gone":
        store.delete(best)
    else:
        foreign = sealed({"key": "other", "epoch": 0, "state": {}})
        store.put(best, foreign if damage == "belong to other" else bytes(data))
    assert same(train(checkpoints, recipe=LONGER), whole)
    assert damage in caplog.text


def test_held_out_images_stay_where_they_are():
    images_NHWC = np.arange(5 * 3, dtype=np.uint8).reshape(5, 1, 1, 3)
    heldout = Labelled(images_NHWC, np.array([7, 8]), np.array([1, 4]))
    assert heldout.images_NHWC is images_NHWC
    assert torch.equal(heldout.batch(slice(1, 2)), torch.from_numpy(images_NHWC[4:5]))


LAYOUTS = [torch.contiguous_format, torch.channels_last]


def test_layout_of_maps_changes_no_more_than_rounding():
    first, last = (train(nowhere(), dropout=0, layout=layout) for layout in LAYOUTS)  # dropout goes by memory
    close(first, last)
    for trained in (first, last):
        assert all(value.is_contiguous() for value in trained.state.values())  # as safetensors wants them


@pytest.mark.parametrize(("saved_in", "resumed_in"), [LAYOUTS, LAYOUTS[::-1]])
def test_a_checkpoint_of_another_layout_is_resumed(saved_in, resumed_in):
    """Fused AdamW reads moments in the order of memory, whatever their strides say."""
    snapshots = []
    train(Checkpoints(load=lambda: None, save=snapshots.append, every_seconds=0), dropout=0, layout=saved_in)
    kept = Checkpoints(load=lambda: snapshots[0], save=lambda data: None)
    resumed = train(kept, dropout=0, layout=resumed_in)
    assert len(snapshots) == 3
    close(resumed, train(nowhere(), dropout=0, layout=resumed_in))


def test_a_damaged_or_foreign_checkpoint_is_said_and_ignored(caplog):
    assert same(train(Checkpoints(load=lambda: b"half", save=lambda data: None)), train(nowhere()))
    assert "damaged" in caplog.text
    kept = {}
    train(Checkpoints(load=lambda: None, save=lambda data: kept.update(state=data), every_seconds=0), key="other")
    assert same(train(Checkpoints(load=lambda: kept["state"], save=lambda data: None)), train(nowhere()))
    assert "belongs to other" in caplog.text


@pytest.mark.parametrize("content", [[1, 2], {"key": "k"}, "nets"])
def test_a_sealed_checkpoint_of_other_content_is_said_and_ignored(caplog, content):
    kept = []
    train(Checkpoints(load=lambda: None, save=kept.append, every_seconds=0))
    if content == "nets":  # the same run by its key, another network inside
        content = torch.load(io.BytesIO(unsealed(kept[0])), weights_only=True)
        content["model"] = {"other.weight": torch.zeros(3)}
    whole = train(nowhere())
    assert same(train(Checkpoints(load=lambda: sealed(content), save=lambda data: None)), whole)
    assert "training starts anew" in caplog.text


@pytest.mark.parametrize(("on", "expected"), [("last", 4), ("heldout", None), ("test", None)])
def test_kept_epoch(on, expected):
    trained = train(nowhere(), recipe=RECIPE.model_copy(update={"checkpoint_on": on}))
    assert 1 <= trained.epoch <= 4
    assert expected in (None, trained.epoch)
    if on == "heldout":
        assert trained.heldout_top1 == max(h["heldout_top1"] for h in trained.history)


@pytest.mark.parametrize(("every", "scored"), [(3, [3, 4]), (2, [2, 4]), (9, [4])])
def test_only_every_so_many_epochs_are_scored_and_kept(every, scored):
    recipe = RECIPE.model_copy(update={"evaluate_every": every})
    trained, each = train(nowhere(), recipe=recipe), train(nowhere())
    assert [entry["epoch"] for entry in trained.history if "heldout_top1" in entry] == scored
    best = max((each.history[epoch - 1]["heldout_top1"], -epoch) for epoch in scored)
    assert (trained.heldout_top1, -trained.epoch) == best
    assert [entry["train_loss"] for entry in trained.history] == [entry["train_loss"] for entry in each.history]


def test_divergence_has_a_name():
    with pytest.raises(TrainingDivergedError, match="smaller lr"):
        train(nowhere(), recipe=RECIPE.model_copy(update={"lr": 1e30}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_recipe_says_in_which_precision_a_backbone_is_trained(precision):
    """Whatever the process was set to, which is how it stays."""
    seen = set()

    class Watched(nn.Conv2d):
        def forward(self, input):
            out = super().forward(input)
            seen.add((out.dtype, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return out

    before = torch.backends.cudnn.allow_tf32
    model = nn.Sequential(Watched(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    images = PlainImages(*data(), np.arange(30))
    settings = {"key": "k", "mean": (0.5,) * 3, "std": (0.25,) * 3, "device": torch.device("cpu")}
    labelled = {"heldout": Labelled(*data(9, seed=1)), "test": Labelled(*data(9, seed=2))}
    recipe = RECIPE.model_copy(update={"precision": precision})
    pretrain(model, images, recipe=recipe, checkpoints=nowhere(), **labelled, **settings)
    assert seen == {(getattr(torch, precision), "highest", False)}
    assert torch.backends.cudnn.allow_tf32 == before


def test_arithmetic_of_gpus_is_refused_elsewhere_and_set_for_matmuls_and_convolutions_alike():
    with (
        pytest.raises(UserError, match="tf32 is an arithmetic of NVIDIA GPUs"),
        arithmetic(torch.device("cpu"), "tf32"),
    ):
        pass
    with float32_bits(torch.device("cuda"), "tf32"):  # no GPU is asked
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
    with reproducible(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
