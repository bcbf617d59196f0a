"""Which columns become variables, how they are coded, and what the design cannot tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from analysis.design import points
from analysis.estimates import pairs
from analysis.tables import mapped, sweep
from analysis.tables.errors import UserError
from analysis.tables.experiments import Experiments
from analysis.tables.variables import code, describe, level_text
from tests.synthetic_tables import MAPPING, experiment_table, grid, probe_table, write_sweep


def _read(folder: Path, table: pa.Table) -> Experiments:
    return sweep.read_sweep(str(write_sweep(folder, table)), accuracy="heldout")


def test_what_varies_becomes_a_variable_and_seeds_do_not(tmp_path: Path) -> None:
    found = _read(
        tmp_path,
        probe_table(grid(architecture=["vggm11", "vggm17"], augmentation=["off", "on"], lr=[0.01, 0.1], seed=[0, 1])),
    )
    assert found.variables == ("augmentation", "depth", "lr", "overparametrization")
    assert found.replicates == ("seed",)
    assert found.constant["resolution"] == 32
    assert any("architecture is not a variable of its own" in note for note in found.notes)


def test_roles_of_the_metadata_are_respected(tmp_path: Path) -> None:
    roles = {"augmentation": "treatment", "lr": "nuisance", "seed": "replicate"}
    found = _read(tmp_path, probe_table(grid(augmentation=["off", "on"], lr=[0.01, 0.1], seed=[0, 1]), varied=roles))
    assert found.variables == ("augmentation",)
    assert any("learning rate is declared a nuisance" in note for note in found.notes)


def test_a_variable_nobody_knew_needs_no_code(tmp_path: Path) -> None:
    frame = probe_table(grid(seed=[0, 1])).to_pandas().assign(mood=lambda f: np.where(f.seed == 0, "calm", "wild"))
    metadata = {"tunnel_sweep": '{"variables": {"mood": {"role": "treatment"}, "seed": {"role": "replicate"}}}'}
    found = _read(tmp_path, pa.Table.from_pandas(frame).replace_schema_metadata(metadata))
    assert found.variables == ("mood",)


def test_all_images_per_class_ranks_above_any_number(tmp_path: Path) -> None:
    found = _read(tmp_path, probe_table(grid(images_per_class=[50, None, 200])))
    variable = describe(found.frame, ["images_per_class"])[0]
    assert variable.levels == (50.0, 200.0, np.inf)
    assert level_text(variable.levels[-1]) == "all"


def test_codes_are_ranks_or_spacing() -> None:
    frame = pd.DataFrame({"x": [10.0, 20.0, 100.0, np.nan], "augmentation": ["strong", "off", "on", "off"]})
    ordinal, numeric = (describe(frame, ["x"], {"x": kind})[0] for kind in ("ordinal", "numeric"))
    np.testing.assert_allclose(code(ordinal, frame.x), [0, 0.5, 1, np.nan])
    np.testing.assert_allclose(code(numeric, frame.x), [0, 1 / 9, 1, np.nan])
    words = describe(frame, ["augmentation"])[0]
    assert (words.kind, words.levels) == ("ordinal", ("off", "on", "strong"))


@pytest.mark.parametrize(("rows", "levels"), [(50, 3), (2000, 4), (300, 1000)])
def test_distinct_rows_are_those_of_numpy(rows: int, levels: int) -> None:
    rng = np.random.default_rng(0)
    code_NV = rng.integers(0, levels, (rows, 5)) / levels
    code_NV[rng.random(code_NV.shape) < 0.1] = np.nan
    rows_PV, index = np.unique(np.where(np.isnan(code_NV), -1, code_NV), axis=0, return_inverse=True)
    found, own = points.distinct(code_NV)
    np.testing.assert_array_equal(np.where(np.isnan(found), -1, found), rows_PV)
    np.testing.assert_array_equal(own, index.reshape(-1))


def test_more_combinations_than_an_integer_holds() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.permutation(5000) for _ in range(8)]
    assert (points.combined(codes) == points.combined(codes[:1])).all()  # every row is its own, in the first's order


def test_one_hot_parts_belong_to_their_variable() -> None:
    frame = pd.DataFrame(
        {"backbone": list("abc"), "dataset": "x", "color": ["red", "green", "blue"], "n": [1, 2, 2], "y": [1.0, 2, 3]}
    )
    made = points.build(frame, describe(frame, ["color", "n"]), "y")
    x_PF, owner_F = points.features(made, full_one_hot=False)
    assert owner_F.tolist() == [0, 0, 0, 1]
    assert (x_PF[:, :3].sum(axis=1) == 1).all()


def test_a_variable_must_be_a_property_of_the_backbone() -> None:
    frame = pd.DataFrame({"backbone": ["a", "a"], "dataset": ["x", "y"], "depth": [1, 2], "y": [1.0, 2.0]})
    with pytest.raises(UserError, match="backbone a: its rows differ in column depth"):
        points.build(frame, describe(frame, ["depth"]), "y")


def _mapped(folder: Path, frame: pd.DataFrame, *, ending: str = "csv", **changes: object) -> Experiments:
    if ending == "csv":
        frame.to_csv(folder / "t.csv", index=False)
    else:
        frame.to_parquet(folder / "t.parquet")
    (folder / "m.yaml").write_text(yaml.safe_dump({**MAPPING, **changes}))
    return mapped.read_mapped(str(folder / f"t.{ending}"), str(folder / "m.yaml"))


def test_a_foreign_table_through_a_mapping(tmp_path: Path) -> None:
    found = _mapped(tmp_path, experiment_table(n_backbones=5))
    assert found.variables == ("a", "b", "c", "d")
    assert [target.name for target in found.targets] == ["retained"]
    assert found.curves is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": {"retained": {"column": "kept"}}}, "no column 'kept'"),
        ({"targets": {"fun": {"column": "a"}}}, "targets.fun: unknown; valid targets are retained"),
        ({"variables": {"a": "a"}}, "variables.a: must say which column"),
        ({"variables": {"a": {"column": "a", "kind": "odd"}}}, "'odd' is none of numeric, ordinal, categorical"),
        ({"colour": 1}, "unknown key colour"),
        ({"label": [["a"]]}, "label: must name columns"),
        ({"variables": {"a": {"column": "a", "knid": "ordinal"}}}, "variables.a.knid: unknown; valid keys are column"),
        ({"variables": {"a": {"column": "a", "scale": "odd"}}}, "'odd' is none of linear, log"),
        ({"variables": {"a": {"column": "a", "kind": "ordinal", "scale": "log"}}}, "log needs kind: numeric"),
        ({"variables": {"a": {"column": "dataset", "kind": "numeric", "scale": "log"}}}, "row 1: 0 has no logarithm"),
        ({"cluster": "team"}, r"no column 'team' \(mapping key cluster\)"),
        ({"cluster": "dataset"}, "column 'dataset', row 2: 1, but row 1 of the same backbone"),
        ({"adjust": {"z": []}}, "adjust.z: no such variable"),
        ({"adjust": {"a": ["z"]}}, "adjust.a: z is no other variable"),
        ({"adjust": {"a": "b"}}, "adjust.a: must be a list"),
        ({"variables": {"a": {"column": "a", "role": "odd"}}}, "'odd' is none of treatment, nuisance, replicate"),
        ({"targets": {"retained": {"column": "retained", "times": "x"}}}, "times: 'x' is not a number"),
        ({"pairing": ["team"]}, r"no column 'team' \(mapping key pairing\); the columns are backbone, dataset, a"),
        ({"label": ["team"]}, r"no column 'team' \(mapping key label\)"),
        ({"fill": {"z": {"each": 7}}}, "does not fit the 30 rows"),
        ({"fill": {"z": {"each": 0}}}, "fill.z: must be"),
        ({"fill": {"z": {"runs": [3]}}}, "fill.z: must be"),
    ],
)
def test_mistakes_in_a_mapping_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _mapped(tmp_path, experiment_table(n_backbones=5), **changes)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("retained", "n/a?", r"column 'retained', row 4: 'n/a\?' is not a number"),
        ("retained", np.inf, r"column 'retained', row 4: inf is not a finite number"),
        ("backbone", None, r"column 'backbone', row 4: is empty \(mapping key group\)"),
        ("dataset", None, r"column 'dataset', row 4: is empty \(mapping key dataset\)"),
        ("a", "deep", r"column 'a', row 4: 'deep' is not a number; an ordinal of words needs variables.a.levels"),
        ("b", 9, r"column 'b', row 4: 9, but row 1 of the same backbone \(backbone 0\) has \d"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_cell_that_cannot_be_is_named_by_column_and_row(
    tmp_path: Path, column: str, value: object, message: str, ending: str
) -> None:
    frame = experiment_table(n_backbones=5).astype({column: object})
    frame.loc[3, column] = value
    if ending == "parquet" and isinstance(value, str):
        frame[column] = frame[column].astype(str)
    with pytest.raises(UserError, match=message):
        _mapped(tmp_path, frame, ending=ending)


def test_a_word_that_is_no_level_is_named(tmp_path: Path) -> None:
    entry = {"column": "size", "kind": "ordinal", "levels": ["small", "large"]}
    frame = experiment_table(n_backbones=2, n_datasets=2).assign(size=["small", "small", "mid", "mid"])
    with pytest.raises(UserError, match=r"column 'size', row 3: 'mid' is none of the levels small, large"):
        _mapped(tmp_path, frame, variables={"size": entry})


def test_an_order_of_words_comes_from_the_mapping_not_from_the_alphabet(tmp_path: Path) -> None:
    frame = experiment_table(n_backbones=20).assign(
        size=lambda f: f.a.map({0: "small", 1: "mid", 2: "large", 3: "huge"})
    )
    entry = {"column": "size", "kind": "ordinal", "levels": ["small", "mid", "large", "huge", "giant"]}
    found = _mapped(tmp_path, frame, variables={"size": entry, "b": {"column": "b"}})
    variable = describe(found.frame, ["size"], found.kinds)[0]
    assert (variable.kind, variable.levels) == ("ordinal", ("small", "mid", "large", "huge"))
    np.testing.assert_allclose(code(variable, found.frame["size"]), frame.a / 3)
    assert ("small", "huge") in set(pairs.level_pairs(variable))


def test_roles_of_a_mapping(tmp_path: Path) -> None:
    roles = {"a": "treatment", "b": "nuisance", "c": "replicate"}
    variables = {name: {"column": name, "role": role} for name, role in roles.items()}
    found = _mapped(tmp_path, experiment_table(n_backbones=20), variables=variables)
    assert (found.variables, found.context, found.replicates) == (("a",), ("b",), ("c",))
    assert any("nuisance" in note for note in found.notes)


def test_shares_are_not_percentages(tmp_path: Path) -> None:
    frame = experiment_table(n_backbones=5).assign(retained=lambda f: f.retained / 100)
    with pytest.raises(
        UserError, match=r"these are shares and not percentages; say so: targets.retained: .*times: 100"
    ):
        _mapped(tmp_path, frame)
    found = _mapped(tmp_path, frame, targets={"retained": {"column": "retained", "times": 100}})
    assert found.frame.retained.mean() > 10


def test_what_is_missing_or_repeated_is_noted(tmp_path: Path) -> None:
    frame = experiment_table(n_backbones=6).astype({"a": float})
    frame.loc[frame.backbone == 2, "a"] = np.nan
    notes = " ".join(_mapped(tmp_path, pd.concat([frame, frame.iloc[:2]])).notes)
    assert "a is missing in 6 of 38 experiments: not applicable there" in notes
    assert "2 experiments have the backbone and dataset of an earlier row" in notes


def test_matched_pairs_agree_in_variables_that_are_not_attributed_to(tmp_path: Path) -> None:
    found = _mapped(tmp_path, experiment_table(n_backbones=40)).narrowed(variables=["b", "a"])
    assert (found.variables, found.context) == (("a", "b"), ("c", "d"))
    assert any("as --variables asked: c, d" in note for note in found.notes)
