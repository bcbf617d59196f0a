"""The command, its files, and that its sentences are true for any table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from matplotlib.figure import Figure

from analysis import shap_report
from analysis.estimates.models import PROTOCOLS
from analysis.page import page, report_json, text_tables
from analysis.page.figures import style
from analysis.tables import storage
from analysis.tables.metrics import ACCURACY_TEXT
from tests.synthetic_courses import TRUTH, course_table
from tests.synthetic_tables import MAPPING, experiment_table, grid, probe_table, write_sweep

ROOT = Path(__file__).parents[3]
FEW = ["--bootstrap", "20", "--jobs", "1"]


def report_of(folder: Path, *arguments: str) -> dict[str, Any]:
    assert shap_report.main(["--results", str(folder), *FEW, *arguments]) == 0
    return audited(json.loads((folder / "report" / "report.json").read_text()))


def audited(report: dict[str, Any]) -> dict[str, Any]:
    """The report, after its sentences were held against its numbers."""
    if report["tunnel"]:
        assert sum(report["strengths"].values()) == report["tunnel"]["backbones"] <= report["counts"]["backbones"]
    texts = [found["text"] for found in report["findings"]]
    assert len(texts) == len(set(texts))
    assert [found["id"] for found in report["findings"]] == [f"finding-{n}" for n in range(1, len(texts) + 1)]
    for found in report["findings"]:
        assert found["kind"] in ("tunnel", "effect", "contrast", "interaction", "design", "fit", "quality")
        assert found["verdict"] in ("clear", "likely", "open", "cannot tell")
    if report["primary"] is None:
        assert not any(re.search("rises by|falls by|explain", text) for text in texts)
        return report
    effects = {effect["variables"][0]: effect for effect in report["targets"][report["primary"]]["effects"]}
    open_ = [
        name for f in report["findings"] if f["kind"] == "effect" and f["verdict"] == "open" for name in f["variables"]
    ]
    for found in report["findings"]:
        if found["kind"] != "effect" or found["verdict"] not in ("clear", "likely") or "survive" in found["text"]:
            continue
        effect = effects[found["variables"][0]]
        assert effect["verdict"] == found["verdict"]
        assert effect["p_adjusted"] < 0.05
        if moved := re.search(r"(rises|falls) by", found["text"]):
            own = effect["adjusted"]
            assert (own["value"] > 0) == (moved[1] == "rises")
            assert own["low"] * own["high"] > 0
            assert ("probably" in found["text"]) == (found["verdict"] == "likely")
        assert not set(found["variables"]) & set(open_)
    assert all(effects[name]["verdict"] == "open" for name in open_ if name in effects)
    return report


def demo_like() -> list[dict[str, Any]]:
    backbones = grid(
        architecture=["vggm11", "vggm17"], id_classes=[10, 100], augmentation=["off", "on"], seed=[0, 1, 2]
    )
    return [{**backbone, "images_per_class": 2000 // backbone["id_classes"]} for backbone in backbones]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    treatments = ("id_classes", "images_per_class", "augmentation", "architecture")
    varied = {**dict.fromkeys(treatments, "treatment"), "seed": "replicate"}
    folder = write_sweep(tmp_path_factory.mktemp("demo"), probe_table(demo_like(), varied=varied))
    course_table().to_parquet(folder / "continual.parquet")
    return folder, report_of(folder)


def test_everything_is_written(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, report = demo
    names = {path.relative_to(folder / "report").as_posix() for path in (folder / "report").rglob("*.*")}
    assert {
        "index.html",
        "report.json",
        "experiments.parquet",
        "shap_values.parquet",
        "slopes.parquet",
        "effects.parquet",
        "contrasts.parquet",
    } <= names
    for figure in ("strengths", "forest_retained", "by_dataset_retained", "outcomes_retained", "layer_curves",
                   "rank_curves", "beeswarm_retained", "dependence_retained", "interactions_retained",
                   "contrasts_retained", "association", "tasks_swaps", "tasks_layers", "tasks_forgetting"):  # fmt: skip
        assert {f"figures/{figure}.png", f"figures/{figure}.svg"} <= names
    assert {
        "tables/effects_retained.md",
        "tables/slopes_retained.md",
        "tables/slopes_retained.tex",
        "tables/backbones.md",
        "tables/fit.md",
    } <= names
    assert [row["combination"] for row in report["tasks"]["table"]] == [*TRUTH, *TRUTH]
    assert all(f"<td>{name}</td>" in (folder / "report" / "index.html").read_text() for name in TRUTH)
    experiments = pd.read_parquet(folder / "report" / "experiments.parquet")
    assert len(experiments) == report["counts"]["experiments"] == 72
    assert pq.read_table(folder / "report" / "shap_values.parquet").num_rows == 3 * 72
    assert not [name for name in names if "tmp" in name]


def test_every_output_says_which_accuracy_it_rests_on(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, report = demo
    said = ACCURACY_TEXT["heldout"]
    for file in (folder / "report" / "tables").iterdir():
        assert said in file.read_text(), file
    for file in (folder / "report").glob("*.parquet"):
        about = json.loads(pq.read_schema(file).metadata[b"tunnel_report"])
        assert (about["accuracy"], about["source"]) == (said, report["source"]), file
    plot = Figure()
    before = plot.get_size_inches()[1]
    style.sign(plot, f"Accuracy: {said}.")
    assert said in plot.texts[0].get_text().replace("\n", " ")
    assert plot.get_size_inches()[1] > before


def test_what_the_page_shows_is_in_the_report(demo: tuple[Path, dict[str, Any]]) -> None:
    _, report = demo
    row = report["backbones"][0]
    assert len(row["id_rank"]) == row["n_layers"]
    panel = report["layer_curves"][0]
    assert len(panel["id"]) == len(panel["layer"]) == len(panel["ood"]["glyphs"])
    entry = report["targets"]["retained"]
    assert entry["seeds"] == 20
    assert all(slope["seed_sd"] > 0 for slope in entry["slopes"].values())
    assert entry["effects"][0]["by_dataset"].keys() == {"glyphs", "gratings", "digits"}
    pairs = [c for c in report["contrasts"] if c["level"] == "backbone"]
    assert all(min(c["pair_differences"]) <= c["mean_difference"] <= max(c["pair_differences"]) for c in pairs)


def test_the_interface_that_scripts_rely_on(demo: tuple[Path, dict[str, Any]]) -> None:
    _, report = demo
    for name in ("retained", "pearson", "alignment"):
        entry = report["targets"][name]
        assert 0 < entry["r2_in_sample"] <= entry["r2_ceiling"] + 1e-9
        assert isinstance(entry["r2_out_of_fold"], float)
        for slope in entry["slopes"].values():
            assert slope["low"] <= slope["slope"] + 0.1
            assert slope["high"] >= slope["slope"] - 0.1
        for effect in entry["effects"]:
            assert {"adjusted", "pairs", "trees", "shap_slope", "verdict", "levels", "by_dataset"} <= set(effect)
    keys = {"target", "variable", "from", "to", "level", "n_pairs", "mean_difference", "p", "cliffs_delta"}
    assert report["contrasts"]
    assert all(keys <= set(contrast) for contrast in report["contrasts"])
    assert {contrast["level"] for contrast in report["contrasts"]} == {"experiment", "backbone"}


def test_the_known_truth_is_found(demo: tuple[Path, dict[str, Any]]) -> None:
    _, report = demo
    effects = {effect["variables"][0]: effect for effect in report["targets"]["retained"]["effects"]}
    assert effects["id_classes"]["variables"] == ["id_classes", "images_per_class"]
    assert effects["id_classes"]["adjusted"]["value"] == pytest.approx(15, abs=3)
    assert effects["augmentation"]["adjusted"]["value"] == pytest.approx(6, abs=3)
    assert effects["depth"]["adjusted"]["value"] == pytest.approx(-12, abs=3)
    assert effects["depth"]["adjusted"]["scope"] == "vggm11 against vggm17"
    assert effects["depth"]["verdict"] == "clear"
    assert effects["id_classes"]["verdict"] == "likely"  # seen within two architectures only
    text = " ".join(found["text"] for found in report["findings"])
    assert "ID classes and images per class always change together" in text
    assert "seed" not in report["targets"]["retained"]["slopes"]


def test_what_survives_is_shown_for_every_rule_and_dataset(demo: tuple[Path, dict[str, Any]]) -> None:
    _, report = demo
    row = next(row for row in report["survival"] if row["variable"] == "depth")
    assert set(row["variants"]) == {"accuracy: last", "accuracy: paper", "without one dataset"}
    assert [v["left_out"] for v in row["variants"]["without one dataset"]] == ["digits", "glyphs", "gratings"]
    assert all(v["survives"] for own in row["variants"].values() for v in own)


def test_the_page_stands_alone_and_says_which_accuracy(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, report = demo
    page = (folder / "report" / "index.html").read_text()
    told = dict(re.findall(r'<figure id="figure-([^"]+)"><img [^>]*alt="([^"]*)"', page))
    effect = max(report["targets"]["retained"]["effects"], key=lambda e: abs(e["adjusted"]["value"] or 0.0))
    number = f"{effect['adjusted']['value']:+.1f}".replace("-", "−")
    assert number in told["forest-retained"]  # an alternative text says what the picture shows
    assert all(re.search(r"\d", told[f"{name}-retained"]) for name in ("outcomes", "contrasts", "beeswarm"))
    outside = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']*)""", page)
    assert outside == ["browse.html"]  # which lies beside it
    assert "http://" not in page
    assert str(folder) not in page
    anchors = set(re.findall(r'href="#([\w-]+)"', page))
    assert anchors <= set(re.findall(r'id="([\w-]+)"', page))
    assert {f"finding-{n}" for n in range(1, len(report["findings"]) + 1)} <= anchors
    prose = re.sub(r"<style>.*?</style>|<[^>]*>|\b\d{4}-\d\d-\d\d\b", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?<![\w.])-\d", prose)  # a minus is a minus sign
    assert ACCURACY_TEXT["heldout"] in page
    for found in report["findings"]:
        assert found["text"].split(":")[0][:30] in page.replace("&#39;", "'").replace("&amp;", "&")


def test_a_warning_comes_first_where_probes_are_not_to_be_trusted(tmp_path: Path) -> None:
    table = probe_table(grid(id_classes=[10, 50, 100]))
    n = table.num_rows
    unfinished = table.append_column("epoch_chosen", pa.array([15] * n, pa.int32()))
    unfinished = unfinished.append_column("probe_epochs", pa.array([15] * n, pa.int32()))
    report = report_of(write_sweep(tmp_path, unfinished))
    assert report["findings"][0]["kind"] == "quality"
    assert "100 % of 120 probes were best in their last epoch" in report["findings"][0]["text"]
    assert report_of(write_sweep(tmp_path / "b", table))["findings"][0]["kind"] != "quality"


@pytest.mark.parametrize("accuracy", ["last", "paper"])
def test_choice_of_accuracy_is_stated(tmp_path: Path, accuracy: str) -> None:
    folder = write_sweep(tmp_path, probe_table(grid(id_classes=[10, 50, 100])))
    report = report_of(folder, "--accuracy", accuracy)
    assert report["accuracy"] == ACCURACY_TEXT[accuracy]
    assert "per-image record belongs to the epoch that held-out images chose" in " ".join(report["notes"])


def test_one_backbone_and_one_dataset(tmp_path: Path) -> None:
    report = report_of(write_sweep(tmp_path, probe_table(grid(), datasets=["glyphs"])))
    text = " ".join(found["text"] for found in report["findings"])
    assert "The one backbone keeps" in text
    assert "no variable takes more than one value" in text
    assert report["backbones"][0]["low"] is None
    assert report["contrasts"] == []


def test_no_tunnel_at_all(tmp_path: Path) -> None:
    table = probe_table(grid(id_classes=[10, 50], seed=[0, 1]), drop=lambda backbone: 0.0, n_test=4000)
    report = report_of(write_sweep(tmp_path, table))
    text = " ".join(found["text"] for found in report["findings"])
    assert "No backbone shows a tunnel worth the name" in text
    assert "strong" not in text


def test_two_backbones_of_each_value_are_compared_but_few(tmp_path: Path) -> None:
    report = report_of(write_sweep(tmp_path, probe_table(grid(augmentation=["off", "on"], seed=[0, 1]))))
    (effect,) = report["targets"]["retained"]["effects"]
    assert effect["adjusted"]["low"] is not None
    assert effect["adjusted"]["n_units"] == 4
    assert effect["verdict"] != "clear"


def test_missing_metric(tmp_path: Path) -> None:
    """Without ID curves only % retained can be had."""
    frame = probe_table(grid(id_classes=[10, 50, 100])).to_pandas()
    report = report_of(
        write_sweep(tmp_path, probe_table(grid(id_classes=[10, 50, 100])).filter((~frame.is_id).tolist()))
    )
    assert list(report["targets"]) == ["retained"]


def test_outcome_without_variance(tmp_path: Path) -> None:
    frame = experiment_table(n_backbones=12).assign(retained=80.0)
    report = _mapped(tmp_path, frame)
    assert report["targets"]["retained"]["problem"] == "the outcome is the same in every experiment"


def test_ten_rows(tmp_path: Path) -> None:
    report = _mapped(tmp_path, experiment_table(n_backbones=10, n_datasets=1, effects={"a": 0.3}))
    entry = report["targets"]["retained"]
    assert entry["problem"] is None
    assert entry["n_design_points"] <= 10
    assert all(effect["by_dataset"] == {} for effect in entry["effects"])
    text = " ".join(found["text"] for found in report["findings"])
    assert "cannot tell whether it is so on other datasets, since there is one only" in text
    assert "architectures" not in text  # nothing is known of them: nothing is said
    assert "no configuration was trained twice" in text


def _mapped(folder: Path, frame: pd.DataFrame, *arguments: str) -> dict[str, Any]:
    frame.to_parquet(folder / "t.parquet")
    (folder / "m.yaml").write_text(yaml.safe_dump(MAPPING))
    call = ["--table", str(folder / "t.parquet"), "--mapping", str(folder / "m.yaml"), "--out", str(folder / "out")]
    assert shap_report.main([*call, *FEW, *arguments]) == 0
    return audited(json.loads((folder / "out" / "report.json").read_text()))


def test_targets_variables_and_group_can_be_chosen(tmp_path: Path) -> None:
    frame = experiment_table(n_backbones=12)
    report = _mapped(tmp_path, frame, "--variables", "a,b", "--target", "retained")
    assert list(report["targets"]["retained"]["slopes"]) in (["a", "b"], ["b", "a"])


@pytest.mark.parametrize("seed", range(4))
def test_sentences_are_true_for_odd_tables(tmp_path: Path, seed: int) -> None:
    """Small random tables: few backbones, constant or copied variables, holes; nothing false may be said of them."""
    rng = np.random.default_rng(seed)
    frame = experiment_table(
        n_backbones=int(rng.integers(2, 14)), n_datasets=int(rng.integers(1, 4)), interaction=0.3 * (seed % 2),
        seed=seed, effects={"a": 0.4, "b": -0.3},
    )  # fmt: skip
    frame["d"] = frame["a"] if seed % 2 else 1
    frame.loc[rng.random(len(frame)) < 0.1, "retained"] = np.nan
    report = _mapped(tmp_path, frame)
    missing = int(frame.retained.isna().sum())
    assert (f"{missing} of {len(frame)} experiments have no value" in " ".join(report["notes"])) == (missing > 0)


def test_a_long_list_of_backbones_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_json, "MOST_LISTED", 4)
    monkeypatch.setattr(page, "MOST_LISTED", 4)
    report = _mapped(tmp_path, experiment_table(n_backbones=12, n_datasets=2), "--bootstrap", "0")
    kept = [row["retained"] for row in report["backbones"]]
    every = pd.read_parquet(tmp_path / "out" / "backbones.parquet").retained.sort_values().tolist()
    assert kept == [*every[:2], *every[-2:]]
    assert (report["tunnel"]["lowest"]["retained"], report["tunnel"]["highest"]["retained"]) == (kept[0], kept[-1])
    assert "Table of 4 backbones of 12" in (tmp_path / "out" / "index.html").read_text()
    assert "Of 12 backbones" in report["findings"][0]["text"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_names_itself(tmp_path: Path, protocol: str) -> None:
    frame = experiment_table(n_backbones=8, n_datasets=2)
    report = _mapped(tmp_path, frame, "--protocol", protocol, "--bootstrap", "2")
    assert report["protocol"]["name"] == protocol
    assert all(slope["low"] is None for slope in report["targets"]["retained"]["slopes"].values())  # too few resamples
    assert report["protocol"]["text"] == PROTOCOLS[protocol].text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "/nowhere"], "/nowhere/probes.parquet: no such file"),
        (["--table", "t.csv"], "--table and --mapping go together"),
        (["--table", "t.csv", "--mapping", "m.yaml", "--accuracy", "paper"], "--accuracy chooses among the columns"),
        (["--results", "RESULTS", "--jobs", "-1"], "--jobs -1: must be 0 or more"),
        (["--results", "RESULTS", "--variables", "depth"], "--variables depth: each has a single value"),
        (["--results", "RESULTS", "--target", "fun"], "--target fun: not in"),
        (["--results", "RESULTS", "--variables", "mood"], "--variables mood: not in"),
        (["--results", "RESULTS", "--group", "team"], "--group team: not in"),
        (["--results", "RESULTS", "--accuracy", "last"], "column top1_last is missing"),
    ],
)
def test_mistakes_end_with_code_2_and_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    folder = write_sweep(tmp_path, probe_table(grid(id_classes=[10, 50])).drop_columns(["top1_last"]))
    call = [str(folder) if argument == "RESULTS" else argument for argument in arguments]
    assert shap_report.main([*FEW, *call]) == 2
    assert message in capsys.readouterr().err


def test_damaged_and_foreign_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "probes.parquet").write_bytes(b"not parquet")
    assert shap_report.main(["--results", str(tmp_path)]) == 2
    assert "not a Parquet file" in capsys.readouterr().err
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "probes.parquet")
    assert shap_report.main(["--results", str(tmp_path)]) == 2
    assert "column curve_key is missing" in capsys.readouterr().err


def test_the_newest_finished_sweep_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["old", "new"]):
        folder = write_sweep(tmp_path / "results" / name, probe_table(grid()))
        import os

        os.utime(folder / "probes.parquet", (number, number))
    (tmp_path / "results" / "unfinished").mkdir()
    assert storage.newest_sweep() == str(tmp_path / "results" / "new")


def test_a_uri_is_as_good_as_a_path(tmp_path: Path) -> None:
    write_sweep(tmp_path, probe_table(grid(id_classes=[10, 50])))
    assert shap_report.main(["--results", f"file://{tmp_path}", "--out", f"file://{tmp_path}/elsewhere", *FEW]) == 0
    assert (tmp_path / "elsewhere" / "index.html").exists()


def test_the_script_runs_from_any_directory(tmp_path: Path) -> None:
    write_sweep(tmp_path, probe_table(grid()))
    script = [sys.executable, str(ROOT / "analysis" / "shap_report.py"), "--results", str(tmp_path), *FEW]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path}/report/index.html"


def test_latex_and_markdown_escape_what_they_must() -> None:
    head, rows = ["a_b", "50 %"], [["x|y", "→ γ"]]
    assert text_tables.latex(head, rows).splitlines()[2] == r"a\_b & 50 \% \\"
    assert r"$\to$ $\gamma$" in text_tables.latex(head, rows)
    assert text_tables.markdown(head, rows).splitlines()[2] == "| x\\|y | → γ |"


def test_the_same_table_gives_the_same_report(tmp_path: Path) -> None:
    first, second = (_mapped(tmp_path, experiment_table(n_backbones=12, n_datasets=2)) for _ in range(2))
    assert first == second
    assert np.isfinite(first["targets"]["retained"]["r2_in_sample"])
