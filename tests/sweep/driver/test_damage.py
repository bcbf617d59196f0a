"""Arbitrary damage to configs, checkpoints and weights: an answer in words or a fresh start, never a wrong result."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweep import driver, table
from sweep.base.errors import StorageError, UserError
from sweep.cell.cell import run_cell
from sweep.config.schema import Config
from sweep.study.check import read_config
from sweep.train.checkpoint import Checkpoints, checkpoint_name
from tests.sweep.driver.test_end_to_end import ROOT, TWO_CURVES
from tests.sweep.train.test_pretrain import nowhere, same, train

FILES = [ROOT / "configs" / name for name in ("demo.yaml", "paper.yaml", "tune-demo.yaml")]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["vggm11", "native"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(node, path=()):
    """Paths of every value in a tree of mappings and lists."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def put(tree, path, value):
    if not path:
        return value
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


def answered(file):
    """A config, or an error in words that names the file."""
    problem = None
    try:
        config = read_config(file)
    except UserError as error:
        problem = str(error)
    assert isinstance(config, Config) if problem is None else file.name in problem


@settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), file=st.sampled_from(FILES), value=VALUES)
def test_a_config_with_any_value_anywhere_is_answered(tmp_path, data, file, value):
    tree = yaml.safe_load(file.read_text())
    tree = put(copy.deepcopy(tree), data.draw(st.sampled_from(list(places(tree)))), value)
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    answered(mine)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), noise=st.binary(max_size=6))
def test_a_config_with_any_bytes_anywhere_is_answered(tmp_path, data, noise):
    text = FILES[0].read_bytes()
    start = data.draw(st.integers(0, len(text)))
    mine = tmp_path / "mine.yaml"
    mine.write_bytes(text[:start] + noise + text[start + data.draw(st.integers(0, 20)) :])
    answered(mine)


@pytest.fixture(scope="module")
def halfway():
    """A checkpoint after one epoch, and what training ends with."""
    kept = []
    whole = train(Checkpoints(load=lambda: None, save=kept.append, every_seconds=0))
    return kept[0], whole


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_checkpoint_changes_nothing(halfway, data):
    snapshot, whole = halfway
    place = data.draw(st.integers(0, len(snapshot) - 1))
    changed = bytearray(snapshot)
    changed[place] ^= data.draw(st.integers(1, 255))
    damaged = data.draw(st.sampled_from([bytes(changed), snapshot[:place]]))
    resumed = train(Checkpoints(load=lambda: damaged, save=nowhere().save))
    assert same(resumed, whole)
    assert [epoch["train_loss"] for epoch in resumed.history] == [epoch["train_loss"] for epoch in whole.history]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of two curves, run without Ray."""
    home = tmp_path_factory.mktemp("sweep")
    (home / "tiny.yaml").write_text(TWO_CURVES + f"cache_dir: {home / 'cache'}\n")
    sweep = driver.prepare(read_config(home / "tiny.yaml"), str(home / "out"))
    run_cell(driver.task_of(sweep, sweep.cells[0], gpu=False))
    return sweep, table.read_fragments(sweep.store, sweep.curves).drop_columns(["finished_at"])


ACCURACIES = ["curve_key", "layer", "top1", "heldout_top1", "test_loss", "correct"]


def test_weights_that_are_gone_are_trained_again(finished):
    sweep, before = finished
    (name,) = (name for name in sweep.store.names("weights/") if name.endswith(".safetensors"))
    sweep.store.delete(name)
    for key in sweep.curves:
        sweep.store.delete(f"fragments/{key}.parquet")
    assert len(run_cell(driver.task_of(sweep, sweep.cells[0], gpu=False)).done) == 2
    after = table.read_fragments(sweep.store, sweep.curves)
    assert after.select(ACCURACIES).equals(before.select(ACCURACIES))


def test_a_directory_in_a_checkpoints_place_costs_no_run(finished, caplog):
    sweep, before = finished
    run = sweep.cells[0].run
    Path(sweep.store.path(checkpoint_name(run))).mkdir(parents=True)
    for name in (*sweep.store.names("weights/"), *(f"fragments/{key}.parquet" for key in sweep.curves)):
        sweep.store.delete(name)
    assert len(run_cell(driver.task_of(sweep, sweep.cells[0], gpu=False)).done) == 2
    after = table.read_fragments(sweep.store, sweep.curves)
    assert after.select(ACCURACIES).equals(before.select(ACCURACIES))
    Path(sweep.store.path(checkpoint_name(run))).rmdir()


@pytest.mark.parametrize("damage", ["bit", "cut", "json", "no facts", "another's"])
def test_damaged_weights_are_trained_again(finished, damage):
    sweep, before = finished
    stem = next(name for name in sweep.store.names("weights/") if name.endswith(".safetensors")).removesuffix(
        ".safetensors"
    )
    data = bytearray(sweep.store.get(f"{stem}.safetensors"))
    if damage == "bit":
        data[len(data) // 2] ^= 1
        sweep.store.put(f"{stem}.safetensors", bytes(data))
    elif damage == "cut":
        sweep.store.put(f"{stem}.safetensors", bytes(data[: len(data) // 2]))
    else:
        whole = json.loads(sweep.store.get(f"{stem}.json"))
        broken = {
            "json": b"{half",
            "no facts": json.dumps({"sha256": "", "facts": {}}).encode(),
            "another's": json.dumps(whole | {"key": "weights/another"}).encode(),  # both files copied to this name
        }
        sweep.store.put(f"{stem}.json", broken[damage])
    for key in sweep.curves:
        sweep.store.delete(f"fragments/{key}.parquet")
    task = driver.task_of(sweep, sweep.cells[0], gpu=False)
    with pytest.raises(StorageError, match=r"is damaged .* it is trained again"):
        run_cell(task)
    torch.manual_seed(1)
    assert len(run_cell(task).done) == 2
    after = table.read_fragments(sweep.store, sweep.curves)
    assert after.select(ACCURACIES).equals(before.select(ACCURACIES))
