"""Instruments and readings of a backbone from start to finish: rows beside probes that stay as they are."""

import dataclasses

import pyarrow.parquet as pq
import pytest

from sweep import driver, table
from sweep.cell.cell import run_cell
from sweep.cell.instruments import INSTRUMENTS as MEASURED
from sweep.config import INSTRUMENTS, READINGS
from sweep.driver import status
from sweep.study.check import read_config

TINY = """
name: tiny
datasets:
  few: {generator: glyphs, classes: 3, train_per_class: 20, test_per_class: 10}
  other: {generator: gratings, classes: 3, train_per_class: 20, test_per_class: 10}
grid: [{architecture: vggm11, id_dataset: few, width: 0.05}]
recipe: {epochs: 1, warmup_epochs: 0, batch_size: 16}
probe_datasets: [other]
"""
PROBE = "probe: {solver: adamw, epochs: 2, batch_size: 16, at_epochs: [0]}\n"
LAYERS = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("measured")


def run(place, more=""):
    """Run the config as a worker does what is missing, and write the tables; the sweep."""
    file = place / "tiny.yaml"
    file.write_text(f"{TINY}{PROBE}{more}cache_dir: {place / 'cache'}\n")
    sweep = driver.prepare(read_config(file), str(place / "out"))
    done, measured = table.listing(sweep.store).done, table.measured_keys(sweep.store)
    cells = driver.missing_cells(sweep, done, measured=measured)
    for cell in cells:
        assert not run_cell(driver.task_of(sweep, cell, gpu=False)).failed
    table.publish_plan(sweep.store, driver.plan_of(sweep))
    driver.export(sweep, done=sweep.curves)
    return sweep, cells


def test_every_name_of_a_config_is_measured():
    assert {*MEASURED, "weight_distance"} == {*INSTRUMENTS, *READINGS}


def test_switching_instruments_on_adds_rows_and_touches_no_probe(place):
    before, _ = run(place)
    stamps = before.store.stamps("fragments/")
    assert not before.store.names("readings/")
    assert not (place / "out" / "readings.parquet").exists()
    sweep, _ = run(place, f"instruments: [{', '.join(INSTRUMENTS)}]\nreadings: [{', '.join(READINGS)}]\n")
    assert list(before.curves) == list(sweep.curves)
    assert sweep.store.stamps("fragments/") == stamps
    rows = pq.read_table(place / "out" / "readings.parquet").to_pandas()
    assert set(rows["instrument"]) == {*INSTRUMENTS, *READINGS}
    assert rows.groupby("reading").size()[["rankme", "nc3", "cka", "knn_top1", "few_shot_top1"]].tolist() == [
        4 * LAYERS,
        4 * LAYERS,
        4 * LAYERS * (LAYERS - 1) // 2,
        4 * LAYERS,
        4 * LAYERS * 3 * 5,
    ]
    told = rows.drop_duplicates("curve_key")
    assert sorted(zip(told["dataset"], told["epoch"].fillna(-1), strict=True)) == [
        ("few", -1),
        ("few", 0),
        ("other", -1),
        ("other", 0),
    ]
    moved = rows[rows["reading"] == "weight_distance"]
    assert (moved.loc[moved["epoch"] == 0, "value"] == 0).all()
    assert (moved.loc[moved["epoch"].isna(), "value"] > 0).all()
    assert set(rows.loc[rows["instrument"] == "ood_detection", "dataset"]) == {"other"}
    shares = rows[rows["reading"].str.contains("top1|per_class|auroc|fpr95|nc4|top_share")]
    assert shares["value"].between(0, 1).all()
    assert rows["value"].notna().all()


def test_the_last_layer_alone_is_the_probe_of_the_table_and_its_mean_per_class_accuracy_follows(place):
    probes = pq.read_table(place / "out" / "probes.parquet").to_pandas().set_index(["curve_key", "layer"])
    rows = pq.read_table(place / "out" / "readings.parquet").to_pandas()
    alone = rows[(rows["reading"] == "concatenation_top1") & (rows["layer_name"] == "last")].set_index("curve_key")
    last = probes[probes["is_penultimate"]].droplevel("layer").loc[alone.index]
    assert alone["value"].tolist() == pytest.approx(last["top1"].tolist())
    assert alone["heldout_value"].tolist() == pytest.approx(last["heldout_top1"].tolist())
    each = rows[rows["reading"] == "linear_per_class"].set_index(["curve_key", "layer"])
    assert each["value"].tolist() == pytest.approx(probes.loc[each.index, "top1"].tolist())  # classes of one size
    nc1 = rows[rows["reading"] == "nc1"].set_index(["curve_key", "layer"])["value"]
    assert nc1.tolist() == pytest.approx(probes.loc[nc1.index, "nc1"].tolist())


def test_what_is_there_is_not_measured_again_and_what_is_damaged_is(place):
    more = f"instruments: [{', '.join(INSTRUMENTS)}]\nreadings: [{', '.join(READINGS)}]\n"
    sweep, cells = run(place, more)
    assert cells == []
    before = pq.read_table(place / "out" / "readings.parquet")
    planned = next(each for each in sweep.planned if not each.curve.is_id)
    knn = dict(planned.readings)["knn"]
    sweep.store.put(f"readings/{knn}.parquet", b"damaged")
    (aside,) = table.verify_fragments(sweep.store).quarantined
    assert (sweep.store.get(aside), knn in aside) == (b"damaged", True)
    stamps = sweep.store.stamps("readings/")
    _, (cell,) = run(place, more)
    assert [each.key for each in cell.curves] == [planned.key]
    assert {name: stamp for name, stamp in sweep.store.stamps("readings/").items() if knn not in name} == stamps
    assert pq.read_table(place / "out" / "readings.parquet").equals(before)


def test_an_instrument_that_fails_is_a_record_and_its_curve_not_done_until_it_is_measured(place, monkeypatch):
    sweep, _ = run(place, "readings: [nearest_mean, knn]\n")
    planned = next(sweep.planned)
    for _, key in planned.readings:
        sweep.store.delete(f"readings/{key}.parquet")
    look = lambda: status.look(sweep.store, driver.plan_of(sweep)).states[planned.key]  # noqa: E731
    assert look() == "missing"

    def fails(bench):
        raise ValueError("a matrix of an instrument is singular")

    with monkeypatch.context() as patched:
        patched.setitem(MEASURED, "nearest_mean", fails)
        (cell,) = driver.missing_cells(sweep, sweep.curves, measured=table.measured_keys(sweep.store))
        assert run_cell(driver.task_of(sweep, cell, gpu=False)).failed == (planned.key,)
    (record,) = table.read_failures(sweep.store, [planned.key])
    assert (record["stage"], record["message"]) == ("measure", "a matrix of an instrument is singular")
    assert look() == "failed"
    assert dict(planned.readings)["knn"] in table.measured_keys(sweep.store)  # the others go on
    run(place, "readings: [nearest_mean, knn]\n")
    assert look() == "done"


def test_other_probes_keep_what_does_not_depend_on_them(place):
    asked = "instruments: [spectrum, collapse]\nreadings: [knn, concatenation]\n"
    (place / "tiny.yaml").write_text(f"{TINY}{PROBE}{asked}")
    sweep = driver.prepare(read_config(place / "tiny.yaml"), str(place / "out"))
    (place / "tiny.yaml").write_text(f"{TINY}probe: {{solver: ridge, at_epochs: [0]}}\n{asked}")
    other = driver.prepare(read_config(place / "tiny.yaml"), str(place / "out"))
    for one, two in zip(sweep.planned, other.planned, strict=True):
        assert one.key != two.key
        equal = {name for name, key in one.readings if dict(two.readings)[name] == key}
        assert equal == {"spectrum", "knn"}


def test_a_plan_says_which_readings_are_whose(place):
    (place / "tiny.yaml").write_text(f"{TINY}{PROBE}readings: knn\n")
    sweep = driver.prepare(read_config(place / "tiny.yaml"), str(place / "plan"))
    plan = driver.plan_of(sweep)
    table.publish_plan(sweep.store, plan)
    (read,) = table.read_plans(sweep.store)
    assert read == plan
    assert [curve.readings for curve in read.curves] == [(dict(each.readings)["knn"],) for each in sweep.planned]
    bare = dataclasses.replace(sweep, cells=tuple(dataclasses.replace(cell, curves=()) for cell in sweep.cells))
    assert table.export_readings(bare.store, driver.plan_of(bare)) is None


def test_plans_that_share_a_store_have_a_table_each_and_one_of_all(place):
    sweep, _ = run(place, "readings: knn\n")
    own = driver.plan_of(sweep)
    some = tuple(curve for curve in own.curves if curve.dataset == "few")
    other = dataclasses.replace(own, name="other", curves=some, blocks={})
    table.publish_plan(sweep.store, other)
    assert table.export_readings(sweep.store, other) == str(place / "out" / "readings-other.parquet")
    counted = {name: len(pq.read_table(place / "out" / f"{name}.parquet")) for name in ("readings-other", "readings")}
    assert counted["readings"] == 2 * counted["readings-other"] > 0
    silent = dataclasses.replace(own, name="silent", curves=tuple(dataclasses.replace(c, readings=()) for c in some))
    assert table.export_readings(sweep.store, silent) is None
