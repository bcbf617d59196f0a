"""One backbone from start to finish: several probes of a layer, and solvers, as rows of the table."""

import pyarrow.parquet as pq
import pytest

from sweep import driver, register, table
from sweep.base.store import Store
from sweep.cell import probing
from sweep.cell.cell import run_cell
from sweep.cell.saved_fit import SavedFit, save_fit, saved_fit
from sweep.embed.extract import embed
from sweep.probes import ProbeResult
from sweep.study import costs
from sweep.study.check import read_config
from sweep.table.schema import RUN_COLUMNS

TINY = """
name: tiny
datasets: {few: {generator: glyphs, classes: 3, train_per_class: 20, test_per_class: 10}}
grid: [{architecture: vggm11, id_dataset: few, width: 0.05}]
recipe: {epochs: 1, warmup_epochs: 0, batch_size: 16}
"""
LAYERS = 10


@pytest.fixture
def rows_of(tmp_path):
    """Rows of the only curve of a config whose probe section is given, and what planning counted."""

    def run(probe, *, again=False):
        file = tmp_path / "tiny.yaml"
        file.write_text(TINY + f"probe: {probe}\ncache_dir: {tmp_path / 'cache'}\n")
        sweep = driver.prepare(read_config(file), str(tmp_path / "out"))
        (cell,) = sweep.cells
        for key in sweep.curves if again else ():
            sweep.store.delete(f"fragments/{key}.parquet")
        run_cell(driver.task_of(sweep, cell, gpu=False))
        assert table.verify_fragments(sweep.store).quarantined == {}
        driver.export(sweep, done=sweep.curves)
        rows = pq.read_table(tmp_path / "out" / "probes.parquet").drop_columns(list(RUN_COLUMNS)).to_pylist()
        assert len(rows) == costs.cost(sweep.config, sweep.grid.cells).probes
        return rows

    return run


def test_rates_decays_and_seeds_are_rows_one_of_each_layer_flagged(rows_of):
    rows = rows_of("{solver: adamw, epochs: 2, batch_size: 16, lr: [1e-3, 1e-2], weight_decay: [0, 0.1], seeds: 2}")
    assert len(rows) == LAYERS * 8
    first = rows[:8]
    assert [(r["layer"], r["probe_lr"], r["probe_weight_decay"], r["probe_seed_index"]) for r in first] == [
        (1, lr, decay, index) for lr in (1e-3, 1e-2) for decay in (0.0, 0.1) for index in (0, 1)
    ]
    assert len({r["probe_seed"] for r in rows}) == 2
    assert [sum(r["chosen"] for r in rows if r["layer"] == layer) for layer in range(1, LAYERS + 1)] == [1] * LAYERS
    assert {r["is_penultimate"] for r in rows if r["layer"] == LAYERS} == {True}
    (alone, *_) = rows_of("{solver: adamw, epochs: 2, batch_size: 16}")
    assert {k: v for k, v in first[0].items() if k not in ("curve_key", "chosen")} == {
        k: v for k, v in alone.items() if k not in ("curve_key", "chosen")
    }


@pytest.mark.parametrize("solver", ["lbfgs", "ridge"])
def test_a_path_of_penalties_fills_the_same_columns(rows_of, solver):
    rows = rows_of(f"{{solver: {solver}, weight_decay: [1e-3, 1e-1]}}")
    assert [r["probe_weight_decay"] for r in rows[:2]] == [1e-3, 1e-1]
    for row in rows:
        assert row["problem"] is None
        assert [row[name] for name in ("probe_lr", "probe_epochs", "probe_batch_size")] == [None] * 3
        assert 0 <= row["top1"] <= row["top5"] <= 1
        assert row["top1"] == row["top1_last"] == row["top1_best"]
        assert (row["epoch_chosen"], len(row["top1_epochs"])) == (1, 1)


def test_embeddings_beyond_the_hosts_memory_change_nothing(rows_of, monkeypatch, tmp_path):
    whole = rows_of("{solver: adamw, epochs: 2, batch_size: 16}")
    spilled = []
    monkeypatch.setattr("sweep.cell.cell.budget_bytes", lambda device, fraction, tasks: 1000)
    counted = lambda *a, spill, **k: spilled.append(spill) or embed(*a, spill=spill, **k)  # noqa: E731
    monkeypatch.setattr("sweep.cell.cell.embed", counted)
    assert rows_of("{solver: adamw, epochs: 2, batch_size: 16}", again=True) == whole
    assert spilled == [tmp_path / "cache" / "spill"] * 2


def test_the_default_probe_is_one_row_per_layer_that_says_what_it_chose_and_how_far_it_got(rows_of):
    rows = rows_of("{}")
    assert len(rows) == LAYERS
    for row in rows:
        assert (row["problem"], row["probe_solver"], row["converged"], row["chosen"]) == (None, "converged", True, True)
        assert row["probe_weight_decay"] in row["penalties"]
        assert row["penalty_losses"][row["penalties"].index(row["probe_weight_decay"])] == min(row["penalty_losses"])
        assert row["gradient_norm"] < 0.1
        assert row["epochs_run"] > 1
        assert 0 < row["float16_loss"] <= row["float16_loss_worst"] <= 1
        assert [row[name] for name in ("probe_lr", "probe_epochs", "probe_batch_size", "probe_seed")] == [None] * 4
    (adamw, *_) = rows_of("{solver: adamw, epochs: 2, batch_size: 16}")
    assert (adamw["converged"], adamw["epochs_run"], adamw["penalties"]) == (False, 2, None)
    assert adamw["gradient_norm"] > 0.1


def test_a_probe_that_ends_by_itself_and_is_checked_says_so_in_its_rows(rows_of):
    rows = rows_of("{solver: adamw, epochs: auto, batch_size: 16, lr: 0.05, check: 1.0}")
    for row in rows:
        assert (row["problem"], row["probe_epochs"]) == (None, None)
        assert row["epochs_run"] == len(row["top1_epochs"]) > 10
        assert row["check_top1"] - row["top1"] == row["check_gain"]


@pytest.mark.parametrize("damaged", [False, True])
def test_fitted_probes_outlive_a_statistic_that_fails(rows_of, tmp_path, monkeypatch, caplog, damaged):
    probe = "{folds: 2}"
    undisturbed = rows_of(probe)
    whole, fit = probing.statistics_within, probing.fit_probes

    def fails(*_):
        raise RuntimeError("a plug-in's mistake")

    monkeypatch.setattr(probing, "statistics_within", fails)
    with pytest.raises(FileNotFoundError):
        rows_of(probe, again=True)
    (failure,) = table.read_failures(Store(str(tmp_path / "out")), {row["curve_key"] for row in undisturbed})
    assert "a plug-in's mistake" in str(failure)
    (saved,) = (tmp_path / "out" / "fits").iterdir()
    if damaged:
        saved.write_bytes(saved.read_bytes()[:-9] + b"1" * 9)

    fits = []
    monkeypatch.setattr(probing, "statistics_within", whole)
    monkeypatch.setattr(probing, "fit_probes", lambda *args, **more: fits.append(1) or fit(*args, **more))
    assert rows_of(probe) == undisturbed
    assert len(fits) == damaged
    assert ("are fitted again" in caplog.text) == damaged
    assert not saved.exists()


def test_saved_fits_are_of_their_device_and_forgotten_when_nothing_waits_for_them(tmp_path):
    store = Store(str(tmp_path))
    result = ProbeResult(None, top1=float("inf"), correct=b"\x00\xff", top1_E=(0.5, float("nan")), converged=None)
    save_fit(store, "key", SavedFit([result], 2.0, 7, "a card"))
    found = saved_fit(store, "key", "a card")
    assert (found.seconds, found.peak_bytes, repr(found.results)) == (2.0, 7, repr([result]))
    assert saved_fit(store, "key", "another card") is None
    table.forget_fits(store)
    assert saved_fit(store, "key", "a card") is None


def test_a_fit_is_found_whatever_statistic_describes_its_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(register, "_REGISTERED", {})
    register.register_statistic("mine", version="1")(lambda emb_ND, labels_N, *, classes: 0.0)
    file, planned = tmp_path / "tiny.yaml", []
    for more in ("", "statistics: [mine]", "rank_threshold: 0.1", "probe: {folds: 3}"):
        file.write_text(TINY + f"cache_dir: {tmp_path / 'cache'}\n{more}\n")
        sweep = driver.prepare(read_config(file), str(tmp_path / f"out{len(planned)}"))
        planned += sweep.cells[0].curves
    assert len({each.key for each in planned}) == 4
    assert len({each.fit for each in planned[:3]}) == 1
    assert planned[3].fit != planned[0].fit
