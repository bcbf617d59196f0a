"""Fragments without labels, as a running sweep leaves them: read under the plan's labels, as its export has them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest

from analysis import load
from analysis.tables import database, stored
from analysis.tables.sweep import read_sweep
from sweep import table
from sweep.base.store import Store
from sweep.table.schema import LABELS
from tests.synthetic_tables import grid, probe_table

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "store-0.1.0"


@pytest.fixture
def place(tmp_path):
    """A store that the sweep's own code wrote, of which one curve is not done yet."""
    probes = probe_table(grid(architecture=["vggm11", "vggm17"], seed=[0, 1])).drop_columns("skipped_images")
    store = Store(str(tmp_path / "out"))
    planned = []
    for key, part in itertools.groupby(probes.to_pylist(), key=lambda row: row["curve_key"]):
        curve = list(part)
        first = curve[0]
        labels = dict.fromkeys(LABELS) | {name: first[name] for name in LABELS if name in first}
        labels |= {"id_images": None, "overparametrization": None}
        planned.append(table.PlannedCurve(key, "run", first["weights_key"], first["dataset"], labels))
        rows = [
            {name: value for name, value in row.items() if name not in LABELS} | {"trained_images": 1800}
            for row in curve
        ]
        if key != "curve-003-digits":
            table.write_fragment(store, key, rows)
    plan = table.Plan(
        "mine",
        {0: [curve.key for curve in planned]},
        tuple(planned),
        {"seed": "replicate"},
        {"depth": ("stem", "overparametrization")},
    )
    table.publish_plan(store, plan)
    return tmp_path / "out", store, plan


def test_fragments_are_read_as_their_export(place):
    folder, store, plan = place
    running = stored.find(str(folder))
    assert running.uri.endswith("fragments")
    before = load.experiments(str(folder))
    rows = load.probes(str(folder))
    failures = database.connect(running).sql("SELECT curve_key, backbone, state FROM failures").fetchall()
    assert failures == [("curve-003-digits", "weights-003", "missing")]
    views = database.connect(running).sql("FROM experiments ORDER BY curve_key").df()
    table.export_probes(store, plan, done=table.listing(store).done)
    exported = load.probes(str(folder)).sort_values(["curve_key", "layer"], ignore_index=True)
    rows = rows.sort_values(["curve_key", "layer"], ignore_index=True)
    assert len(rows) == len(exported) > 0
    for name in ("architecture", "seed", "depth", "dataset", "is_id", "id_images", "overparametrization", "backbone"):
        assert rows[name].tolist() == exported[name].tolist(), name
    known = [frame.dropna(axis=1, how="all") for frame in (before, load.experiments(str(folder)))]
    pd.testing.assert_frame_equal(*known, check_dtype=False)
    assert views["retained"].tolist() == load.experiments(str(folder)).sort_values("curve_key")["retained"].tolist()
    assert stored.find(str(folder)).about["variables"] == running.about["variables"] == {"seed": {"role": "replicate"}}


def test_what_is_held_equal_is_what_the_config_declares(place):
    folder, store, plan = place
    assert table.read_plans(store)[0].adjust == {"depth": ["stem", "overparametrization"]}
    running = read_sweep(str(folder), accuracy="heldout")
    table.export_probes(store, plan, done=table.listing(store).done)
    exported = read_sweep(str(folder), accuracy="heldout")
    for found in (running, exported):
        assert found.adjust == {"depth": ("overparametrization",)}
        assert "adjust: stem size cannot be held equal for depth" in " ".join(found.notes)


def test_fragments_of_an_old_store_keep_their_labels():
    exported, fragments = load.probes(str(OLD)), load.probes(str(OLD / "fragments"))
    by = ["curve_key", "layer"]
    pd.testing.assert_frame_equal(
        exported.sort_values(by, ignore_index=True), fragments.sort_values(by, ignore_index=True), check_like=True
    )
