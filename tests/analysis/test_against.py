"""A sweep beside published values: known deviations come out as they were put in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis import against
from analysis.estimates import published as estimates
from analysis.estimates.published import AGREES, DIFFERS, NEAR, NO_INTERVAL, NOT_HERE, NOT_PUBLISHED, PARTLY, SEVERAL
from analysis.tables.errors import UserError
from analysis.tables.published import declared, read_published
from tests import synthetic_tables
from tests.shared_files import SHARED

REFERENCE = SHARED / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the authors' tables ($TUNNEL_SWEEP_SHARED)")
MAPPING = {
    "title": "Deviations that are known",
    "source": "nobody",
    "table": "A",
    "file": "known.csv",
    "cells": {
        "architecture": {"column": "net", "names": {"VGGm-11": "vggm11", "VGGm-17": "vggm17"}},
        "id_classes": {"value": 10},
        "seed": {"column": "seed"},
        "dataset": {"column": "set"},
    },
    "targets": {"retained": {"column": "kept", "times": 100, "decimals": 4}},
    "count": "n",
    "misprints": [{"where": {"dataset": ["DIGITS"]}, "what": "printed upside down"}],
}  # fmt: skip
PRINTED = {"vggm11": "VGGm-11", "vggm17": "VGGm-17"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    backbones = synthetic_tables.grid(architecture=list(PRINTED), seed=[0, 1])
    table = synthetic_tables.probe_table(backbones, varied={"architecture": "treatment", "seed": "replicate"})
    return synthetic_tables.write_sweep(tmp_path_factory.mktemp("sweep"), table)


def table_of(folder, rows):
    (folder / "map.yaml").write_text(yaml.safe_dump(MAPPING))
    pd.DataFrame(rows, columns=["net", "seed", "set", "kept", "n"]).to_csv(folder / "known.csv", index=False)
    return read_published(str(folder / "known.csv"), str(folder / "map.yaml"))


def test_known_deviations_come_out(sweep, tmp_path):
    own = estimates.own_experiments(str(sweep), "heldout")
    frame = own.frame.set_index(["architecture", "seed", "dataset"])
    glyphs = frame.loc[("vggm11", 0, "glyphs")]
    half = glyphs["retained_half"]
    assert half > 0.5
    wanted = {0.0: AGREES, 0.9: AGREES, -1.2: NEAR, 1.6: DIFFERS, -3.0: DIFFERS}
    rows = [["VGGm-11", 0, "Glyphs", (glyphs["retained"] - units * half) / 100, None] for units in wanted]
    rows += [
        ["VGGm-11", None, "gratings", 0.9, None],  # over both seeds
        ["VGGm-11", 1, "DIGITS", 0.8, None],
        ["VGGm-17", 7, "digits", 0.8, None],  # no such seed
        [None, 0, "glyphs", 0.8, None],  # two architectures
        ["VGGm-17", None, None, 0.8, 3],  # a mean over three cells with two seeds each
        [None, None, None, 0.8, 99],
    ]
    found = estimates.compare(own, [table_of(tmp_path, rows)])
    given = found[found["published"].notna()].reset_index(drop=True)
    for row, (units, expected) in zip(given.itertuples(), wanted.items(), strict=False):
        assert row.units == pytest.approx(units, abs=1e-6)
        assert row.difference == pytest.approx(units * half, abs=1e-6)
        assert given["class"][row.Index] == expected
    both = frame.xs(("vggm11", "gratings"), level=("architecture", "dataset"))["retained"]
    assert given["own"][5] == pytest.approx(both.mean())
    assert given["n_own"][5] == 2
    assert given["misprint"][6] == "printed upside down"
    assert list(given["class"][7:9]) == [NOT_HERE, SEVERAL]
    of_17 = own.frame[own.frame["architecture"] == "vggm17"]
    assert given["own"][9] == pytest.approx(of_17["retained"].mean())
    by_backbone = of_17.groupby("backbone")["retained"].mean()
    assert given["half_width"][9] == pytest.approx(12.7062047 * by_backbone.std() / np.sqrt(2), rel=1e-6)  # t, 1 df
    assert given["class"][10] == PARTLY
    rest = found[found["class"] == NOT_PUBLISHED]
    assert len(rest) == len(own.frame) - 5  # glyphs of one seed of two networks; gratings of two seeds, digits of one
    sums = estimates.summary(found).iloc[0]
    assert sums["cells"] == len(rows)
    assert sums[AGREES] + sums[NEAR] + sums[DIFFERS] + sums[NO_INTERVAL] == len(rows) - 3


def test_page_and_rows(sweep, tmp_path, capsys):
    table_of(tmp_path, [["VGGm-11", 0, "</script><b>", 0.9, None], ["VGGm-11", 0, "glyphs", 0.9, None]])
    call = [
        "--results",
        str(sweep),
        "--published",
        str(tmp_path / "known.csv"),
        "--mapping",
        str(tmp_path / "map.yaml"),
    ]
    assert against.main([*call, "--out", str(tmp_path / "out")]) == 0
    assert "1  not in the sweep" in capsys.readouterr().out
    page = (tmp_path / "out" / "against.html").read_text()
    assert "</script><b>" not in page
    assert "src=" not in page.split("DataTable")[0]
    rows = pd.read_csv(tmp_path / "out" / "against.csv")
    assert rows["published"].notna().sum() == 2
    assert set(rows["architecture"]) == set(PRINTED)
    assert against.main([*call[:4], "--out", str(tmp_path / "out")]) == 2
    assert "others need --mapping" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cells": None}, "key cells is missing"),
        ({"cells": {"dataset": {"names": {}}}}, "cells.dataset: must say"),
        ({"cells": {"architecture": {"column": "net", "names": {"A": "a"}}}}, "'VGGm-11' is none of A"),
        ({"targets": {"depth": {"column": "kept"}}}, "targets.depth: unknown"),
        ({"misprints": [{"where": {"colour": [1]}, "what": "?"}]}, "misprints: colour"),
        ({"rows": {"n": 17}}, "no row of the table has these values"),
    ],
)
def test_mistakes_are_named(tmp_path, change, said):
    table_of(tmp_path, [["VGGm-11", 0, "glyphs", 0.9, None]])
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAPPING | change))
    with pytest.raises(UserError, match=said):
        read_published(str(tmp_path / "known.csv"), str(tmp_path / "map.yaml"))


def test_what_is_not_shipped_is_asked_for(capsys):
    assert against.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert set(declared()) >= {"harun2024", "harun2024_text", *(f"harun2024_table{n}" for n in (4, 5, 6, 7))}
    assert "not at hand" in said
    text = read_published("harun2024_text").cells
    assert list(text["value"]) == [36, 73, 83, 64.26, 78.41]
    assert list(text["count"]) == [16, 16, 16, 256, 256]
    with pytest.raises(UserError, match="give their file"):
        read_published("harun2024_table5")


@needs_reference
def test_the_authors_tables():
    tables = {n: read_published(str(REFERENCE / f"harun2024_table{n}.csv")) for n in (4, 5, 6, 7)}
    key = ["architecture", "resolution", "augmentation", "dataset"]
    for number, table in tables.items():
        printed = pd.read_csv(REFERENCE / f"harun2024_table{number}.csv")
        printed = printed[printed["kind"] == "value"].reset_index(drop=True)
        assert len(table.cells) == 224
        assert not table.cells.duplicated(key).any()
        names = {"Oxford-Pets-37": "pets", "CIFAR-100": "cifar100", "STL-10": "stl10", "NINCO": "ninco"}
        known = printed["ood_dataset_resolved"].map(names)
        assert (table.cells["dataset"][known.notna()] == known.dropna()).all()
        assert (table.cells["misprint"] != "").sum() == (56 if number == 4 else 0)
    whole = read_published(str(REFERENCE / "harun2024_experiments.csv")).cells
    assert len(whole) == 3 * 512
    assert not whole.duplicated([*key, "id_dataset", "id_classes", "images_per_class", "metric"]).any()
    both = tables[5].cells.merge(whole[(whole["metric"] == "retained") & (whole["images_per_class"] == "all") &
                                       (whole["id_dataset"] == "imagenet100")], on=key)  # fmt: skip
    assert len(both) == 224
    assert ((both["value_x"] - both["value_y"]).abs() <= 0.011).mean() > 0.95
    mean = read_published("harun2024_text").cells["value"]
    of_11 = whole[(whole["metric"] == "retained") & (whole["architecture"] == "vggm11") & (whole["resolution"] == "32")]
    by = of_11[of_11["images_per_class"] == "all"].groupby("id_dataset")["value"].mean()
    assert [round(by[name]) for name in ("cifar10", "cifar100", "imagenet100")] == [36, 73, 83]
    kept = whole[whole["metric"] == "retained"].groupby("augmentation")["value"].mean()
    assert [kept["off"], kept["on"]] == pytest.approx(list(mean[3:]), abs=0.005)
