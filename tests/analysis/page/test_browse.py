"""The browsing page without a browser: its charts, its packed numbers, what it takes from a report, its command."""

from __future__ import annotations

import base64
import gzip
import json
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert
import yaml

from analysis import browse as command
from analysis import load
from analysis.page import browse, browse_charts, browse_data, browse_marks, browse_report
from analysis.tables import epochs
from tests.synthetic_tables import MAPPING, experiment_table, grid, probe_table, write_sweep

ROLES = {"architecture": "treatment", "id_classes": "treatment", "seed": "replicate"}


def small(folder, **options):
    table = probe_table(
        grid(architecture=["vggm11", "vggm17"], id_classes=[10, 40], seed=[0, 1]), varied=ROLES, **options
    )
    return write_sweep(folder, table)


def packed(*places):
    return browse_data.pack(command.sweeps(*map(str, places)), {})


def unpacked(text):
    """The page's own way to its numbers, in Python."""
    raw = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    columns = {name: np.frombuffer(raw, "<f8", n, 8 + length + 8 * at) for name, (at, n) in header["at"].items()}
    return header, columns


def test_the_numbers_are_those_of_the_table(tmp_path):
    small(tmp_path)
    header, columns = unpacked(packed(tmp_path).text())
    table = pd.read_parquet(tmp_path / "probes.parquet").sort_values(["curve_key", "layer"], ignore_index=True)
    for name in ("top1", "top1_last", "top1_best", "heldout_top1", "rank", "layer"):
        np.testing.assert_array_equal(columns[name], table[name].astype(float), err_msg=name)
    curves = header["curves"]
    assert [table.curve_key[start] for start in curves["start"]] == curves["curve_key"]
    for rule in ("heldout", "last", "paper"):
        ours = load.experiments(str(tmp_path), accuracy=rule).set_index(["backbone", "dataset"])
        names = [header["backbones"]["backbone"][b] for b in header["experiments"]["backbone"]]
        at = list(zip(names, header["experiments"]["dataset"], strict=True))
        assert header["values"][rule]["retained"] == ours.loc[at, "retained"].tolist()
        means = load.backbones(str(tmp_path), accuracy=rule).set_index("backbone")
        assert header["summaries"][rule]["low"] == means.loc[header["backbones"]["backbone"], "low"].tolist()
    kinds = {v["name"]: (v["kind"], v["levels"]) for v in header["variables"]}
    assert kinds["architecture"] == ("word", ["vggm11", "vggm17"])
    assert kinds["id_classes"] == ("number", [10, 40])
    # architecture tells depth, so that it cannot be held equal in a pair of depths; the seed can
    assert "architecture" not in header["kept"]["depth"]
    assert {"seed", "id_classes"} <= set(header["kept"]["depth"])


def test_two_sweeps_keep_their_names(tmp_path):
    header = packed(small(tmp_path / "a"), small(tmp_path / "b", seed=1)).header
    assert len(set(header["backbones"]["backbone"])) == 16
    assert "sweep" in {v["name"] for v in header["variables"]}
    assert len(header["curves"]["start"]) == 2 * 8 * 4


def test_more_probes_than_a_page_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(browse_data, "MOST_PROBES", 100)
    found = packed(small(tmp_path))
    assert (found.header["curves"], found.columns) == ({}, {})
    assert found.header["n_probes"] == 8 // 2 * 4 * (10 + 16)
    assert len(found.header["experiments"]["dataset"]) == 24


def test_a_running_sweep_with_failures(tmp_path):
    """Fragments only: what is not there is listed, with the reason, and counted at its backbone."""
    small(tmp_path)
    table = pq.read_table(tmp_path / "probes.parquet")
    (tmp_path / "probes.parquet").unlink()
    (tmp_path / "fragments").mkdir()
    curves, rows = {}, table.to_pandas()
    for key, part in rows.groupby("curve_key"):
        curves[key] = [f"plan's {part.weights_key.iloc[0]}", part.dataset.iloc[0], "run"]
        if key not in ("curve-000-glyphs", "curve-001-digits"):
            fragment = pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata(None)
            pq.write_table(fragment, tmp_path / "fragments" / f"{key}.parquet")
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "demo.json").write_text(json.dumps({"blocks": {}, "curves": curves}))
    (tmp_path / "failures" / "curve-000-glyphs").mkdir(parents=True)
    record = {"curve_key": ["curve-000-glyphs"], "stage": ["probe"], "exception": ["MemoryError"], "message": ["full"]}
    record["failed_at"] = [datetime(2026, 1, 1, tzinfo=UTC)]
    pq.write_table(pa.table(record), tmp_path / "failures" / "curve-000-glyphs" / "a.parquet")
    (tmp_path / "running").mkdir()
    note = {"stage": "embed", "done": 2, "total": 4, "host": "node", "time": time.time()}
    for name, changed in {
        "fresh": {"backbone": "plan's weights-001"},
        "stale": {"backbone": "plan's weights-000", "time": time.time() - 3600},  # its worker is gone
        "other": {"backbone": "images"},  # decoding, of no backbone
        "damaged": {"done": "two"},
    }.items():
        (tmp_path / "running" / f"{name}.json").write_text(json.dumps(note | changed))
    header = packed(tmp_path).header
    found = {row["curve"]: row for row in header["failures"]}
    assert header["under_way"] == ["plan's weights-001"]
    assert found["curve-001-digits"]["reason"] == "under way when this page was made: embed, 2 of 4, on node"
    assert found["curve-000-glyphs"]["reason"] == "MemoryError: full"
    assert (found["curve-000-glyphs"]["state"], found["curve-000-glyphs"]["stage"]) == ("failed", "probe")
    assert found["curve-001-digits"]["state"] == "missing"
    assert found["curve-001-digits"]["dataset"] == "digits"
    lost = dict(zip(header["backbones"]["backbone"], header["backbones"]["n_lost"], strict=True))
    assert lost["weights-000@32"] == lost["weights-001@32"] == 1
    assert sum(lost.values()) == 2
    assert header["planned"] == 32


COLOUR = browse_marks.fill(browse_marks.colour_of("nominal"), {"order": ["s", "t"], "series": "s", "legend_columns": 1})
WORDS = {
    "title": "a title", "x": "x title", "y": "y title", "series": "series title", "rows": ["one", "two"],
    "order": ["s", "t"], "panels": ["p", "q"], "columns": 2, "width": 300, "height": 200, "legend_columns": 2,
    "step": 1, "format": "~s", "zero": True, "angle": 0,
    "strengths": ["strong", "weak"],
    "offset": browse_marks.OFFSET, "label_limit": 300, "shade": 0.1,
    "colours": browse_marks.COLOURS, "shapes": browse_marks.SHAPES, "dashes": browse_marks.DASHES,
    "x_type": "ordinal", "x_order": ["1", "2"],
    "x_scale": {}, "diagonal": [{"v": 0}, {"v": 1}], "colour": COLOUR, "shape": {"value": "circle"},
}  # fmt: skip
ROWS = [
    {
        "label": label, "value": 1.5 + k, "low": 1.0, "high": 4.0, "strength": "strong", "panel": "pq"[k],
        "series": "st"[k], "line": k, "x": k + 1, "y": 2.0 * k, "from": None, "to": None, "tunnel": False,
        "jitter": 0.1, "dataset": "d", "text": "12", "light": True, "pair": None, "side": "st"[k], "other": "one",
        "code": 0.5, "sure": True, "layer": 1, "depth": 11 + k,
    }
    for k, label in enumerate(["one", "two"])
]  # fmt: skip
SEEN = {
    "strengths": ["a title", "one"],
    "layers": ["x title", "y title", "p", "series title"],
    "layers_alone": ["x title", "y title", "q"],
    "variables": ["x title", "q"],
    "variables_alone": ["y title", "q"],
    "heat": ["one", "12"],
    "estimates": ["x title", "two", "series title"],
    "pairs": ["x title", "y title"],
    "beeswarm": ["one", "high"],
    "dependence": ["series title"],
    "interactions": ["two", "a title"],
    "best": ["a title", "two"],
    "against": ["x title", "y title"],
    "tasks_layers": ["last layer of the extractor", "accuracy, %", "q", "parts"],
    "tasks_forgetting": ["depth of the network, layers", "forgotten, points", "classifier"],
}


@pytest.mark.parametrize("name", sorted(browse_charts.charts()))
def test_every_chart_draws_its_rows(name):
    spec = browse_marks.fill(browse_charts.charts()[name], WORDS)
    assert not [word for word in json.dumps(spec).split('"') if word.startswith("$") and word != "$schema"]
    picture = vl_convert.vegalite_to_svg(json.dumps({**spec, "data": {"values": ROWS}}))
    for text in SEEN[name]:
        assert f">{text}<" in picture, text
    assert picture.count("<path") > 2


def test_what_a_report_lacks_leaves_its_part_empty():
    assert browse_report.adapt({}, None)["contrasts"] == []
    slope = {"slope": -0.1, "low": -0.2, "high": -0.05, "from": 11, "to": 17}
    contrast = {"target": "retained", "variable": "depth", "from": 11, "to": 17, "mean_difference": -12.0}
    targets = {"retained": {"slopes": {"depth": slope, "stem": {"slope": None}}}}
    report = {"targets": targets, "contrasts": [contrast], "findings": ["a sentence"]}
    found = browse_report.adapt(report, None)
    (slope,) = found["targets"]["retained"]["estimates"]
    assert (slope["value"], slope["low"], slope["scale"], slope["kind"]) == (-10.0, -20.0, "11 → 17", "SHAP slope")
    assert slope["verdict"] == "interval excludes zero"
    assert found["contrasts"][0]["verdict"] == "no interval"
    assert found["findings"] == [{"text": "a sentence"}]


def test_a_report_with_effects_gives_each_kind_of_estimate():
    """Version 2 of report.json: effects in the outcome's unit; the verdict of matched pairs is their contrast's."""
    estimate = {"value": -12.0, "low": -20.0, "high": -4.0, "verdict": "open", "n_units": 6, "unit": "backbones"}
    effect = {"variables": ["depth", "stem"], "from": "11", "to": "17", "adjusted": estimate | {"verdict": "clear"}}
    effect |= {"pairs": estimate, "trees": {"value": None}, "shap_slope": {"value": -0.1}}
    found = browse_report.adapt({"targets": {"retained": {"effects": [effect], "slopes": {}}}}, None)
    matched, adjusted = found["targets"]["retained"]["estimates"]
    assert (matched["kind"], matched["value"], matched["sure"]) == ("matched pairs", -12.0, False)
    assert (adjusted["kind"], adjusted["verdict"], adjusted["sure"]) == ("adjusted effect", "clear", True)
    assert (adjusted["together"], adjusted["basis"]) == (["stem size"], "6 backbones")
    # trees and pairs were not corrected: "cannot tell"; of the pairs the contrast says more
    plain = estimate | {"verdict": "cannot tell"}
    effect |= {"pairs": plain, "trees": plain | {"low": None, "high": None}, "adjusted": plain | {"high": 4.0}}
    contrast = {"target": "retained", "variable": "depth", "from": "11", "to": "17", "verdict": "likely"}
    contrasts = [contrast | {"mean_difference": value} for value in (-12.0, -13.0)]
    contrasts[1]["verdict"] = "open"  # of other pairs
    report = {"targets": {"retained": {"effects": [effect]}}, "contrasts": contrasts}
    said = [row["verdict"] for row in browse_report.adapt(report, None)["targets"]["retained"]["estimates"]]
    assert said == ["likely", "interval includes zero", "cannot tell"]


def test_the_command(tmp_path, capsys, monkeypatch):
    small(tmp_path / "a")
    assert command.main(["--results", str(tmp_path / "a")]) == 0
    page = tmp_path / "a" / "report" / "browse.html"
    assert capsys.readouterr().out == f"page: {page}\n"
    assert page.stat().st_size < 3_000_000
    assert 'href="index.html"' not in page.read_text()  # there is no report to link to
    (tmp_path / "a" / "report" / "index.html").write_text("a report")
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    assert command.main(["--results", str(tmp_path / "a" / "probes.parquet"), "--open"]) == 0
    assert opened == [page.as_uri()]
    assert 'href="index.html"' in page.read_text()
    table = experiment_table(n_backbones=4, n_datasets=2)
    table.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(MAPPING))
    mapped = [
        "--table",
        str(tmp_path / "t.csv"),
        "--mapping",
        str(tmp_path / "m.yaml"),
        "--report",
        str(tmp_path / "r"),
    ]
    assert command.main([*mapped, "--out", str(tmp_path / "t.html")]) == 0
    assert (tmp_path / "t.html").exists()
    for call, words in (
        (["--table", "t.csv"], "go together"),
        ([*mapped, "--results", "x"], "stands alone"),
        (["--results", str(tmp_path / "nothing")], "no such file"),
    ):
        assert command.main(call) == 2
        assert words in capsys.readouterr().err


def test_without_the_libraries_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    small(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    assert command.main(["--results", str(tmp_path)]) == 2
    assert "pip install 'tunnel-sweep[browse]'" in capsys.readouterr().err


def test_a_script_cannot_end_early():
    assert browse.inline("a</script>b<!--c") == "a<\\/script>b<\\!--c"


def test_curves_are_found_by_the_sweeps_own_key(tmp_path):
    table = probe_table(grid(architecture=["vggm11", "vggm17"]))
    keys = pa.array([f"key-{name}" for name in table["weights_key"].to_pylist()])
    write_sweep(tmp_path, table.append_column("backbone_key", keys))
    header = browse_data.pack([command.sweep(str(tmp_path))], {}).header
    assert header["backbones"]["backbone"] == ["key-weights-000", "key-weights-001"]
    assert sorted(set(header["curves"]["backbone"])) == [0, 1]
    assert set(load.probes(str(tmp_path), ["layer"])["backbone"]) == set(header["backbones"]["backbone"])


def test_weights_along_training_stand_under_their_run():
    """Each epoch is a backbone of its own in the table; whose it is the grid tells, if it tells."""
    rows = [("k0", None, 0), ("a", 1, 0), ("k1", None, 1), ("b", 1, 1), ("twin", None, 1), ("c", 1, 7)]
    table = pd.DataFrame(rows, columns=["backbone", "epoch", "seed"])
    assert epochs.runs(table, ["seed"]) == {"a": "k0"}
    assert epochs.runs(table.iloc[:2], []) == {"a": "k0"}
