"""The tunnel along ID training: what is shown of it, and that kept checkpoints are analysed as without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from analysis import shap_report
from analysis.estimates import images
from analysis.page.figures import epochs
from analysis.tables.errors import UserError
from analysis.tables.sweep import read_sweep
from tests.synthetic_tables import grid, probe_table, write_sweep

EPOCHS = (0, 1, 2, 5, 20)
VARIED = {"id_classes": "treatment", "epoch": "treatment", "seed": "replicate"}


def growing(backbone: dict[str, Any]) -> float:
    """The tunnel grows over the first epochs; the kept checkpoint has all of it."""
    epoch = 20 if backbone["epoch"] is None else backbone["epoch"]
    return 0.4 * min(1.0, epoch / 5) * (1.0 if backbone["id_classes"] == 10 else 0.3)


def table_along(**values: Any) -> pa.Table:
    backbones = grid(**{"id_classes": [10, 50], "seed": [0, 1], "epoch": [None, *EPOCHS]} | values)
    for backbone in backbones:
        backbone["backbone_epoch"] = 20 if backbone["epoch"] is None else backbone["epoch"]
        backbone["backbone_test_top1"] = 0.1 + 0.03 * backbone["backbone_epoch"]
    return probe_table(backbones, drop=growing, varied=VARIED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("along"), table_along())


def test_experiments_are_those_of_kept_checkpoints_alone(folder: Path, tmp_path: Path) -> None:
    table = table_along()
    without = table.filter(pc.is_null(table["epoch"])).drop_columns(["epoch"])
    found = read_sweep(str(folder), accuracy="heldout")
    plain = read_sweep(str(write_sweep(tmp_path, without)), accuracy="heldout")
    assert plain.emergence is None
    assert found.variables == plain.variables
    assert "id_classes" in found.variables
    assert "epoch" not in found.variables
    assert found.constant == plain.constant
    # per-image bits are looked up by row of the table that was read: the same ones must be found
    one, other = (images.with_intervals(x).frame.drop(columns="_row") for x in (found, plain))
    assert "retained_low" in one
    pd.testing.assert_frame_equal(one, other)


def test_points_are_means_over_datasets_and_replicates(folder: Path) -> None:
    found = read_sweep(str(folder), accuracy="heldout").emergence
    assert found is not None
    points = found.points
    assert set(points["configuration"]) == {"vggm11, 10 classes", "vggm11, 50 classes"}
    assert points.groupby("kept").size().to_dict() == {False: 2 * len(EPOCHS), True: 2}
    assert set(points["n_backbones"]) == {2}
    assert set(points["n_datasets"]) == {3}
    kept = points[points["kept"]]
    assert set(kept["epoch"]) == {20}
    assert kept["backbone_top1"].tolist() == pytest.approx([0.7, 0.7])

    probes = table_along().to_pandas()
    own = probes[(probes["id_classes"] == 10) & (probes["epoch"] == 2) & ~probes["is_id"]]
    by_seed = []
    for _, run in own.groupby("seed"):
        ratios = []
        for _, curve in run.groupby("dataset"):
            peak = len(curve) - 1 - int(np.argmax(curve["heldout_top1"].to_numpy()[::-1]))
            ratios.append(100 * curve["top1"].iloc[-1] / curve["top1"].iloc[peak])
        by_seed.append(np.mean(ratios))
    row = points[(points["configuration"] == "vggm11, 10 classes") & (points["epoch"] == 2)].iloc[0]
    assert row["retained"] == pytest.approx(np.mean(by_seed))
    assert (row["retained_low"], row["retained_high"]) == pytest.approx((min(by_seed), max(by_seed)))

    layers = found.layers
    assert len(layers) == 2 * len(EPOCHS) * 2 * 10
    mine = layers[(layers["configuration"] == row["configuration"]) & (layers["epoch"] == 2) & ~layers["is_id"]]
    assert mine["accuracy"].to_numpy() == pytest.approx(own.groupby("layer")["top1"].mean().to_numpy())


def test_the_truth_is_seen(folder: Path) -> None:
    found = read_sweep(str(folder), accuracy="heldout").emergence
    assert found is not None
    strong = found.points[(found.points["configuration"] == "vggm11, 10 classes") & ~found.points["kept"]]
    kept = strong.set_index("epoch")["retained"]
    assert kept[0] > kept[1] > kept[2] > kept[5]
    assert kept[5] == pytest.approx(kept[20], abs=4)


def test_the_report_shows_it(folder: Path, tmp_path: Path) -> None:
    assert shap_report.main(["--results", str(folder), "--bootstrap", "0", "--jobs", "1"]) == 0
    out = folder / "report"
    report = json.loads((out / "report.json").read_text())
    assert len(report["emergence"]) == 2 * (len(EPOCHS) + 1)
    assert report["counts"]["backbones"] == 4
    assert {f"{name}.{kind}" for name in ("emergence", "emergence_layers") for kind in ("png", "svg")} <= {
        path.name for path in (out / "figures").iterdir()
    }
    assert len(pd.read_parquet(out / "emergence.parquet")) == len(report["emergence"])
    assert "How it came about" in (out / "index.html").read_text()
    plain = write_sweep(tmp_path, table_along(epoch=[None], id_classes=[10]).drop_columns(["epoch"]))
    assert shap_report.main(["--results", str(plain), "--bootstrap", "0", "--jobs", "1"]) == 0
    assert json.loads((plain / "report" / "report.json").read_text())["emergence"] == []
    assert "How it came about" not in (plain / "report" / "index.html").read_text()
    assert not (plain / "report" / "emergence.parquet").exists()


def test_runs_without_epochs_along_are_not_shown(tmp_path: Path) -> None:
    table = pa.concat_tables(
        [table_along(id_classes=[10]), _renamed(table_along(id_classes=[50], epoch=[None]))],
        promote_options="permissive",
    )
    found = read_sweep(str(write_sweep(tmp_path, table)), accuracy="heldout")
    assert found.frame["id_classes"].nunique() == 2
    assert found.emergence is not None
    assert found.emergence.points["configuration"].nunique() == 1


def _renamed(table: pa.Table) -> pa.Table:
    frame = table.to_pandas()
    for name in ("curve_key", "weights_key"):
        frame[name] = "other-" + frame[name]
    frame["epoch"] = frame["epoch"].astype("Int64")
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_incomplete_curves_along_the_way_are_listed(tmp_path: Path) -> None:
    frame = table_along(id_classes=[10], seed=[0], epoch=[None, 0, 1]).to_pandas()
    frame.loc[(frame["epoch"] == 1) & (frame["dataset"] == "digits") & (frame["layer"] == 2), "top1"] = np.nan
    frame["epoch"] = frame["epoch"].astype("Int64")
    found = read_sweep(str(write_sweep(tmp_path, pa.Table.from_pandas(frame))), accuracy="heldout")
    assert list(found.incomplete["dataset"]) == ["digits"]
    assert found.emergence is not None
    assert found.emergence.points.set_index(["epoch", "kept"])["n_datasets"].to_dict() == {
        (0, False): 3,
        (1, False): 2,
        (20, True): 3,
    }


def test_a_table_of_epochs_along_the_way_alone_is_refused(tmp_path: Path) -> None:
    uri = str(write_sweep(tmp_path, table_along(epoch=[0, 1])))
    with pytest.raises(UserError, match=r"no complete OOD curve of a kept checkpoint \(0 are incomplete, 0 failed\)$"):
        read_sweep(uri, accuracy="heldout")
    said = ("curve_key", "dataset", "stage", "exception", "message", "failed_at")
    rows = [
        ("a", "glyphs", "data", "OSError", "a first try", "2026-01-01"),
        ("a", "glyphs", "data", "UserError", "no class is left\nof it", "2026-01-02"),
        ("b", "glyphs", "data", "UserError", "no class is left", "2026-01-02"),
    ]
    for number, row in enumerate(rows):
        place = tmp_path / "failures" / row[0] / f"{number}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([dict(zip(said, row, strict=True))]).astype({"failed_at": "datetime64[us, UTC]"}).to_parquet(place)
    with pytest.raises(UserError, match=r"2 failed\)\n  2 × glyphs, data: UserError: no class is left$"):
        read_sweep(uri, accuracy="heldout")


def test_figures_choose_among_many_configurations() -> None:
    points = pd.DataFrame(
        {"configuration": [f"s{n:02d}" for n in range(20)], "epoch": 1, "kept": False, "retained": np.arange(20.0)}
    )
    names = epochs.chosen(points, 4)
    assert (len(names), names[0], names[-1]) == (4, "s00", "s19")
