"""What was measured beside the probes, as readers of a table meet it."""

import hashlib
import json
import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest

from analysis import load
from analysis.page import browse_curves
from analysis.tables import database, readings, stored
from analysis.tables.errors import UserError
from analysis.tables.sweep import read_sweep
from tests.synthetic_tables import grid, probe_table, write_sweep


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A sweep with its table of readings, of which each number is known."""
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder, probe_table(grid(architecture=["vggm11"], seed=[0, 1]), varied={"seed": "replicate"}))
    probes = pd.read_parquet(folder / "probes.parquet")
    named = [c for c in ("curve_key", "backbone_key", "layer") if c in probes]
    each = probes[named].drop_duplicates().assign(value=lambda t: t["layer"] / 100.0)
    each = each.assign(backbone_key=each.get("backbone_key"))
    blank = {"other_layer": pd.NA, "shots": pd.NA, "draw": pd.NA}
    few = [
        each.assign(reading="few_shot_top1", **(blank | {"shots": 5, "draw": d}), value=each["value"] + d)
        for d in (0, 1)
    ]
    pairs = each.merge(each.drop(columns="value"), on=["curve_key", "backbone_key"], suffixes=("", "_other"))
    pairs = pairs[pairs["layer"] < pairs["layer_other"]].rename(columns={"layer_other": "other_layer"})
    pairs = pairs.assign(reading="cka", shots=pd.NA, draw=pd.NA, value=pairs["layer"] / pairs["other_layer"])
    whole = each.assign(reading="concatenation_top1", **blank).head(1).assign(layer=pd.NA)
    table = pd.concat([each.assign(reading="rankme", **blank), *few, pairs, whole], ignore_index=True)
    integers = ["layer", "other_layer", "shots", "draw"]
    table.astype(dict.fromkeys(integers, "Int32")).to_parquet(folder / "readings.parquet")
    return folder


def test_numbers_of_a_layer_are_columns_and_draws_are_averaged(place):
    wide = readings.by_layer(str(place / "probes.parquet"))
    assert set(wide.columns) == {"curve_key", "backbone_key", "layer", "rankme", "few_shot_top1_5"}
    np.testing.assert_allclose(wide["rankme"], wide["layer"] / 100)
    np.testing.assert_allclose(wide["few_shot_top1_5"], wide["layer"] / 100 + 0.5)


def test_the_browsing_page_can_choose_them(place):
    found = stored.find(str(place))
    frame = browse_curves.probes(found, "")
    np.testing.assert_allclose(frame["rankme"].astype(float), frame["layer"] / 100)
    number = {name: at for at, name in enumerate(frame["backbone"].unique())}
    _, columns = browse_curves.curves(frame, number)
    assert {"rankme", "few_shot_top1_5"} <= set(columns)
    assert "weight_distance" not in columns
    assert len(frame) == len(found.table(["layer"]))


def test_sql_and_python_read_the_same_rows(place):
    connection = database.connect(stored.find(str(place)))
    (count,) = connection.execute("SELECT count(*) FROM readings WHERE reading = 'rankme'").fetchone()
    assert count == len(load.readings(str(place), "rankme"))
    with pytest.raises(UserError, match="rank_you"):
        load.readings(str(place), "rank_you")


def test_likeness_is_a_symmetric_matrix_with_ones(place):
    key = pd.read_parquet(place / "probes.parquet")["curve_key"].iloc[0]
    matrix = load.likeness(str(place), key)
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(np.diag(matrix), np.ones(len(matrix)))
    assert matrix.loc[2, 3] == pytest.approx(2 / 3)


def test_a_table_without_them_says_where_they_come_from(tmp_path):
    write_sweep(tmp_path, probe_table(grid(architecture=["vggm11"], seed=[0]), varied={}))
    assert readings.by_layer(str(tmp_path)) is None
    with pytest.raises(UserError, match=r"instruments\.md"):
        load.readings(str(tmp_path))


def test_measured_complexity_of_id_images_is_a_variable(tmp_path):
    backbones = grid(architecture=["vggm11"], resolution=[32, 64], seed=[0, 1])
    write_sweep(tmp_path, probe_table(backbones, varied={"resolution": "treatment", "seed": "replicate"}))
    assert "id_complexity" not in read_sweep(str(tmp_path), accuracy="heldout").variables
    probes = load.probes(str(tmp_path))
    own = probes[probes["is_id"]].drop_duplicates("backbone")
    bits = pd.DataFrame(
        {
            "backbone_key": own["backbone"],
            "is_id": True,
            "reading": "image_complexity",
            "value": own["resolution"] / 8.0,
        }
    )
    bits.to_parquet(tmp_path / "readings.parquet")
    found = read_sweep(str(tmp_path), accuracy="heldout")
    assert "id_complexity" in found.variables
    assert (found.frame["id_complexity"] == found.frame["resolution"] / 8).all()


def test_a_table_that_is_not_what_the_sweep_wrote_is_refused(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "copy")
    (folder / "exports").mkdir(exist_ok=True)
    digest = hashlib.sha256((folder / "readings.parquet").read_bytes()).hexdigest()
    for written, refused in ((digest, False), ("0" * 64, True)):
        (folder / "exports" / "readings.json").write_text(json.dumps({"sha256": written}))
        for ask in (lambda: load.readings(str(folder)), lambda: database.connect(stored.find(str(folder)))):
            with pytest.raises(UserError, match="is not what the sweep wrote") if refused else nullcontext():
                ask()
