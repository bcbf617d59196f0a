"""SQL views and Python frames over one sweep: the metrics of the report, the documents' own words, odd tables."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import load, sql
from analysis.tables import database, metrics, stored
from analysis.tables.errors import UserError
from tests.synthetic_courses import course_table
from tests.synthetic_tables import grid, probe_table, write_sweep

ROOT = Path(__file__).resolve().parents[2]
METRICS = (
    "n_layers", "n_choosing", "peak_layer", "peak_accuracy", "final_accuracy", "retained", "retained_paper", "tunnel",
    "tunnel_start", "tunnel_length", "pearson", "alignment", "id_final_accuracy", "id_start_95", "id_start_98",
)  # fmt: skip


def awkward() -> pd.DataFrame:
    """A sweep with ties, a constant curve, zeros, NaN, a gap, no ID curve, unchosen probes and an earlier epoch."""
    table = probe_table(grid(architecture=["vggm11", "vggm17"], id_classes=[10, 40], seed=[0, 1])).to_pandas()
    rng = np.random.default_rng(0)
    table[["top1", "heldout_top1", "top1_best", "top1_last"]] = table[
        ["top1", "heldout_top1", "top1_best", "top1_last"]
    ].round(1)  # many ties, of which the loss of the images that choose breaks some
    table["heldout_loss"] = rng.integers(0, 3, len(table)) / 2
    crossed = table["dataset"] == "gratings"
    table["crossfit_top1"] = np.where(crossed, rng.integers(3, 7, len(table)) / 10, np.nan)
    table["crossfit_loss"] = np.where(crossed, rng.integers(0, 3, len(table)) / 2, np.nan)
    table.loc[(table["curve_key"] == "curve-005-gratings") & (table["layer"] == 3), "crossfit_top1"] = (
        np.nan
    )  # so: none
    table["n_heldout"] = pd.array(np.where(table["seed"] == 0, 43, 430), dtype="Int32")
    at = {name: table["curve_key"] == f"curve-{name}" for name in ("000-glyphs", "001-digits", "002-glyphs")}
    table.loc[at["000-glyphs"], ["top1", "heldout_top1", "top1_best", "top1_last"]] = 0.3
    table.loc[at["001-digits"], ["top1", "top1_best", "top1_last"]] = 0.0
    table.loc[at["002-glyphs"] & (table["layer"] == 2), ["top1", "top1_best", "top1_last"]] = np.nan
    table = table[~((table["curve_key"] == "curve-003-digits") & (table["layer"] == 4))]
    table = table[~((table["weights_key"] == "weights-004") & table["is_id"])]
    table = table.assign(chosen=True, epoch=pd.array([None] * len(table), dtype="Int32"))
    unchosen = table.assign(chosen=False, top1=rng.uniform(size=len(table)))
    earlier = table.assign(epoch=pd.array([1] * len(table), dtype="Int32"), curve_key=table["curve_key"] + "-1")
    earlier["top1"] = earlier["top1"] / 2
    return pd.concat([unchosen, table, earlier], ignore_index=True)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The awkward sweep as fragments that differ in their columns, with a plan and failures, and as one file."""
    folder = tmp_path_factory.mktemp("sweep") / "results" / "demo"
    table = pa.Table.from_pandas(awkward(), preserve_index=False)
    write_sweep(folder.parent / "whole", table)
    (folder / "fragments").mkdir(parents=True)
    for number, (key, part) in enumerate(awkward().groupby("curve_key")):
        part = part.sort_values("layer", kind="stable")  # as a fragment has them
        rows = pa.Table.from_pandas(part, schema=table.schema, preserve_index=False)
        rows = rows.append_column("extra", pa.array([1.0] * len(rows))) if number % 2 else rows
        pq.write_table(rows, folder / "fragments" / f"{key}.parquet")
    curves = {key: ["some backbone", "glyphs", "run"] for key in [*awkward().curve_key.unique(), "gone", "broke"]}
    (folder / "plans").mkdir()
    (folder / "plans" / "demo.json").write_text(json.dumps({"blocks": {"0": list(curves)}, "curves": curves}))
    for attempt, message in enumerate(["first", "last"]):
        when = datetime(2026, 1, 1 + attempt, tzinfo=UTC)
        record = {"curve_key": ["broke"], "exception": ["OSError"], "message": [message], "failed_at": [when]}
        place = folder / "failures" / "broke" / f"{attempt}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(record), place)
    return folder


def same(ours: pd.DataFrame, theirs: pd.DataFrame, columns, keys=("backbone", "dataset")) -> None:
    both = ours.merge(theirs, on=list(keys), suffixes=("", "_sql"))
    assert len(both) == len(ours) == len(theirs) > 0
    for name in columns:
        first, second = (pd.to_numeric(both[c]).astype(float).to_numpy() for c in (name, f"{name}_sql"))
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-12, equal_nan=True, err_msg=name)


@pytest.mark.parametrize(
    ("place", "accuracy"),
    [
        *((place, accuracy) for place in ("demo", "whole") for accuracy in metrics.ACCURACIES),
        ("demo/fragments", "heldout"),  # other ways to say the same place
        ("whole/probes.parquet", "heldout"),
    ],
)
def test_the_views_are_the_metrics(sweep, place, accuracy):
    uri = str(sweep.parent / place)
    connection = database.connect(stored.find(uri), accuracy=accuracy)
    ours = load.experiments(uri, accuracy=accuracy)
    assert len(ours) == 22  # of 24; one broken, one with a gap
    assert ours[["pearson", "retained", "id_start_95"]].isna().any().all()  # the awkward cases are among them
    same(ours, connection.sql("FROM experiments").df(), METRICS)
    names = ("retained", "retained_paper", "n_datasets", "n_choosing", "tunnels", "tunnel_start")
    means = load.backbones(uri, accuracy=accuracy).assign(retained=lambda table: table["retained_own"])
    theirs = connection.sql("FROM backbones").df()
    same(means, theirs, names, ["backbone"])
    own_class = (
        theirs["retained"].map(metrics.strength).where(theirs["n_choosing"] >= metrics.FEW_CHOOSING, metrics.OPEN)
    )
    assert theirs["strength"].tolist() == own_class.tolist()
    few = means["n_choosing"] < metrics.FEW_CHOOSING
    assert ((means["strength"] == metrics.OPEN) == few).all()
    assert few.any() == (accuracy != "paper")  # which has 400 test images to choose on
    curves = connection.sql("FROM curves WHERE epoch IS NULL AND incomplete IS NULL").df()
    known = load.curves(uri, accuracy=accuracy).query("incomplete.isna()")
    same(known, curves, ("peak_layer", "retained", "tunnel", "is_id"))
    assert connection.sql("FROM epochs").df()["epoch"].tolist() == [1] * 22


def test_failures_say_what_is_not_there(sweep):
    found = database.connect(stored.find(str(sweep))).sql("FROM failures").df().set_index("curve_key")
    assert found.loc["broke", ["state", "exception", "reason"]].tolist() == ["failed", "OSError", "last"]
    assert found.loc["gone", ["state", "backbone", "dataset"]].tolist() == ["missing", "some backbone", "glyphs"]
    assert found.loc["curve-002-glyphs", "reason"] == "a layer has no accuracy"
    assert found.loc["curve-003-digits", "reason"] == "layers are missing"
    assert len(found) == 6  # two of them along training too


def with_costs(folder: Path) -> None:
    table = probe_table(grid(architecture=["vggm11", "vggm17"], id_classes=[10, 40], seed=[0, 1]))
    for name in ("pretrain_seconds", "embed_seconds", "probe_seconds"):
        table = table.append_column(name, pa.array([1.5] * len(table)))
    write_sweep(folder / "results" / "demo", table.append_column("chosen", pa.array([True] * len(table))))
    course_table().to_parquet(folder / "results" / "demo" / "continual.parquet")


def blocks(name: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / name).read_text(), re.DOTALL)
    assert found
    return found


def test_every_query_of_the_document_runs(tmp_path):
    with_costs(tmp_path)
    place = str(tmp_path / "results" / "demo")
    connection = database.connect(stored.find(place))
    rows = {query: connection.sql(query).df() for query in blocks("sql.md", "sql")}
    empty = [query for query, found in rows.items() if not len(found)]
    assert [query.split("FROM ")[-1].split()[0] for query in empty] == ["failures", "epochs"]  # nothing to tell here
    pairs = next(found for query, found in rows.items() if "shallow" in query)
    assert pairs["pairs"].tolist() == [4, 4, 4]
    # the synthetic tunnel takes ten points more of the peak from the deep network
    assert (pairs["difference"] < -5).all()
    cost = next(found for query, found in rows.items() if "embed_seconds" in query)
    assert cost.loc[0, ["curves", "embed", "pretrain"]].tolist() == [16, 24.0, 6.0]
    forgotten = next(found for query, found in rows.items() if "continual" in query)
    assert forgotten.to_numpy().tolist() == [["vggm17", 4, 41.5], ["vggm11", 4, 21.5]]
    ours, theirs = load.continual(place), connection.sql("FROM continual").df()
    assert ours["configuration"].tolist() == theirs["configuration"].tolist()


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    with_costs(tmp_path)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    exec("\n".join(blocks("notebook.md", "python")), {})  # our own text
    assert "12 pairs, 17 layers instead of 11: -" in capsys.readouterr().out
    assert (tmp_path / "layers.png").stat().st_size > 10_000


def test_a_plot_shows_the_curves(sweep):
    uri = str(sweep)
    curves = load.layers(uri)
    name = curves["backbone"].iloc[-1]
    axis = load.plot_layers(uri, name, datasets=["gratings"], x="position")
    line = axis.get_lines()[0]
    own = curves[(curves["backbone"] == name) & (curves["dataset"] == "gratings")]
    np.testing.assert_array_equal(line.get_xdata(), own["position"])
    np.testing.assert_allclose(line.get_ydata(), 100 * own["accuracy"])
    matplotlib.pyplot.close(axis.figure)
    with pytest.raises(UserError, match="no dataset 'nothing'; there are digits, "):
        load.plot_layers(uri, name, datasets=["nothing"])


def test_the_command(sweep, capsys, monkeypatch):
    uri = str(sweep)
    assert (
        sql.main([uri, "-c", "SET VARIABLE accuracy = 'paper'; SELECT avg(retained) AS r FROM experiments", "--csv"])
        == 0
    )
    assert float(capsys.readouterr().out.split()[-1]) == load.experiments(uri, accuracy="paper").retained.mean()
    assert sql.main([uri, "-c", "FROM nothing"]) == 2
    assert "nothing does not exist" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no continual\.parquet; a sweep whose grid has tasks"):
        load.continual(uri)
    assert sql.main([str(sweep / "plans"), "-c", "FROM probes"]) == 2
    assert "no such file, and no fragments" in capsys.readouterr().err
    assert sql.main([str(sweep / "plans" / "demo.json")]) == 2  # a file that is no table
    assert "cannot be listed as a folder" in capsys.readouterr().err
    typed = iter(["SELECT count(*) AS n", "FROM backbones;", "FROM nothing;"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed, None) or (_ for _ in ()).throw(EOFError))
    assert sql.main([uri]) == 0
    said = capsys.readouterr()
    assert "8 │" in said.out
    assert "nothing does not exist" in said.err
