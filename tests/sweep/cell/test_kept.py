"""Kept probes: only when asked, equal to what the table reports, and made up for a finished sweep."""

import numpy as np
import pytest
import torch

from sweep import cell as cells
from sweep import driver, table
from sweep.cell.cell import embed_curve, library_of, probe_images, run_cell, workshop
from sweep.config import ConfigError
from sweep.driver import sweep as driving
from sweep.study.check import read_config
from sweep.train import ALONE, obtain_weights

TINY = """
name: tiny
datasets: {few: {generator: glyphs, classes: 3, train_per_class: 20, test_per_class: 10}}
grid: [{architecture: vggm11, id_dataset: few, width: 0.05}]
recipe: {epochs: 1, warmup_epochs: 0, batch_size: 16}
"""
ADAMW = "{solver: adamw, epochs: 6, batch_size: 16, lr: [1e-3, 1e-2], seeds: 2, standardize: feature}"


@pytest.fixture
def sweep_of(tmp_path):
    def make(probe, keep):
        file = tmp_path / "tiny.yaml"
        file.write_text(TINY + f"probe: {probe}\nkeep_probes: {keep}\ncache_dir: {tmp_path / 'cache'}\n")
        return driver.prepare(read_config(file), str(tmp_path / "out"))

    return make


def run(sweep):
    (cell,) = sweep.cells
    task = driver.task_of(sweep, cell, gpu=False)
    assert run_cell(task).failed == ()
    return cell.curves[0], task


def rows_of(sweep, key):
    return table.read_fragments(sweep.store, [key]).to_pylist()


@pytest.mark.parametrize("probe", ["{}", ADAMW, "{solver: ridge}", "{solver: lbfgs, standardize: feature}"])
def test_a_kept_probe_is_the_one_that_the_table_reports(sweep_of, probe):
    sweep = sweep_of(probe, "all")
    planned, task = run(sweep)
    rows = [row for row in rows_of(sweep, planned.key) if row["chosen"]]
    shop = workshop(task, sweep.store, torch.device("cpu"), ALONE)
    images = probe_images(library_of(task), planned.curve)
    embedded = embed_curve(task, planned, obtain_weights(planned.curve.backbone, shop), images, torch.device("cpu"))
    for row in rows:
        kept = cells.kept_probe(sweep.store, planned.key, row["layer"])
        assert kept.differing == 0
        one = kept.linear
        x_ND = embedded.test[row["layer"] - 1].double()
        scores_NC = torch.addmm(one.bias_C, ((x_ND - one.mean_D) * one.scale_D).float(), one.weight_DC)
        right_N = scores_NC.argmax(1).numpy() == images.test_labels_N
        said_N = np.unpackbits(np.frombuffer(row["correct"], np.uint8))[: len(right_N)].astype(bool)
        assert (right_N == said_N).all()


def test_a_finished_sweep_keeps_what_is_missing_and_computes_no_number_again(sweep_of):
    plain = sweep_of("{}", "null")
    planned, _ = run(plain)
    before = plain.store.get(f"fragments/{planned.key}.parquet")
    assert plain.store.names("kept/") == []
    asked = sweep_of("{}", "best")
    assert set(asked.curves) == set(plain.curves)
    done = table.listing(asked.store).done
    assert driving._kept(asked, done) == frozenset()
    assert len(driver.missing_cells(asked, done & driving._kept(asked, done))) == 1
    run(asked)
    assert asked.store.names("kept/") == [f"kept/{planned.key}.best.safetensors"]
    assert asked.store.get(f"fragments/{planned.key}.parquet") == before
    assert driving._kept(asked, done) == done
    best = table.best_row(rows_of(asked, planned.key))
    others = {row["layer"] for row in rows_of(asked, planned.key)} - {best["layer"]}
    assert cells.kept_probe(asked.store, planned.key, best["layer"]) is not None
    assert all(cells.kept_probe(asked.store, planned.key, layer) is None for layer in others)


def test_all_replaces_best_and_serves_it(sweep_of):
    planned, _ = run(sweep_of("{}", "best"))
    sweep = sweep_of("{}", "all")
    assert not table.is_kept(sweep.store, planned.key, "all")
    run(sweep)
    assert sweep.store.names("kept/") == [f"kept/{planned.key}.all.safetensors"]
    assert table.is_kept(sweep.store, planned.key, "best")
    assert table.kept_curves(sweep.store, "best") == {planned.key}


def test_a_damaged_file_counts_as_none_and_is_made_anew(sweep_of):
    sweep = sweep_of("{}", "best")
    planned, _ = run(sweep)
    (name,) = sweep.store.names("kept/")
    layer, whole = table.best_row(rows_of(sweep, planned.key))["layer"], sweep.store.get(name)
    sweep.store.put(name, whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert cells.kept_probe(sweep.store, planned.key, layer) is None
    assert sweep.store.names("kept/") == []
    run(sweep)
    assert sweep.store.get(name) == whole


def test_a_plug_ins_probe_cannot_be_kept(sweep_of, tmp_path):
    (tmp_path / "mean_probe.py").write_text(
        "from sweep.plugins import register_probe\n"
        "@register_probe('nothing')\n"
        "def nothing(train, labels, *, classes, recipe, seed):\n    return []\n"
    )
    with pytest.raises(ConfigError, match="no weights to keep"):
        sweep_of("{solver: nothing}\nimports: [mean_probe]", "best")


def row(layer, heldout, loss=0.0, **more):
    return {"layer": layer, "heldout_top1": heldout, "heldout_loss": loss, "chosen": True, "problem": None, **more}


def test_the_best_layer_is_chosen_by_held_out_images_whatever_the_test_says():
    rows = [row(1, 0.5, top1=0.9), row(2, 0.7, 0.4, top1=0.1), row(3, 0.7, 0.3, top1=0.2), row(4, 0.6, top1=1.0)]
    assert table.best_row(rows)["layer"] == 3
    for each in rows:
        each["top1"] = 1 - each["top1"]
    assert table.best_row(rows)["layer"] == 3
    assert table.best_row([row(n, 0.5, 0.2) for n in (4, 3, 2, 1)])["layer"] == 3  # of the middle ones the deeper
    assert table.best_row([row(1, 0.5), row(2, 0.9, chosen=False), row(3, None, problem="not finite")])["layer"] == 1
    assert table.best_row([row(1, None, problem="not finite")]) is None


def test_a_cross_fit_chooses_where_every_layer_has_one():
    rows = [row(1, 0.9, crossfit_top1=0.5, crossfit_loss=1.0), row(2, 0.8, crossfit_top1=0.6, crossfit_loss=1.0)]
    assert table.best_row(rows)["layer"] == 2
    rows[0]["crossfit_top1"] = None
    assert table.best_row(rows)["layer"] == 1
