"""Tables as Excel, R, DuckDB and pandas write them: read as the plain one is, or answered with file, column and row."""

from decimal import Decimal
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.page.figures import fonts, style
from analysis.page.text_tables import markdown
from analysis.tables.errors import UserError
from analysis.tables.mapped import read_mapped

MAP = """targets: {retained: {column: retained}}
variables: {depth: {column: depth}, family: {column: family}, seed: {column: seed, role: replicate}}
group: net
dataset: dataset
"""
ROWS = [
    {"net": f"net{n // 2}", "dataset": data, "depth": depth, "family": family, "seed": seed, "retained": 60 + n / 4}
    for n, (depth, family, seed, data) in enumerate(product((11, 17, 34), ("CNN", "ViT"), (0, 1), ("birds", "cars")))
]
TABLE = pd.DataFrame(ROWS)
GERMAN = TABLE.replace({"birds": "Vögel"})
DATES = TABLE.assign(depth=TABLE.depth.map(lambda depth: f"20{depth}-01-01"))
SOME = TABLE.net.isin(["net3"])


def text(frame=TABLE, end="", head="", **options):
    """Writes a table as text."""
    encoding = options.pop("encoding", "utf-8")

    def write(file):
        file.write_bytes((head + frame.to_csv(index=False, **options) + end).encode(encoding))

    return write


def parquet(frame, index=False):
    return lambda file: frame.to_parquet(file, index=index)


def read(folder, write, mapping=MAP, name="t.csv"):
    (folder / "m.yaml").write_text(mapping)
    write(folder / name)
    return read_mapped(str(folder / name), str(folder / "m.yaml"))


def dated(*written):
    """The table with these instead of its three depths."""
    return text(TABLE.assign(depth=TABLE.depth.map(dict(zip((11, 17, 34), written, strict=True)))))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (("9/4/2014", "12/10/2015", "10/22/2020"), "month first, in order of time: 9/4/2014 to 10/22/2020"),
        (("22/10/2014", "9/4/2015", "1/2/2020"), "day first, in order of time: 22/10/2014 to 1/2/2020"),
        (("04.09.2014", "10.12.2015", "1.2.2020"), "day first, in order of time: 04.09.2014 to 1.2.2020"),
        (("9/4/2014", "12/10/2015", "1/2/2020"), "in order of time: 9/4/2014 to 1/2/2020"),  # both ways
    ],
)
def test_dates_of_spreadsheets_are_in_order_of_time(tmp_path, written, said):
    found = read(tmp_path, dated(*written))
    assert found.kinds["depth"] == "ordinal"
    assert tuple(found.frame["depth"].cat.categories) == written
    assert said in " ".join(found.notes)


def test_dates_that_nobody_can_tell_are_names_and_said(tmp_path):
    found = read(tmp_path, dated("2/3/2014", "3/2/2014", "1/1/2020"))
    assert found.kinds["depth"] == "categorical"
    assert "nobody can tell" in " ".join(found.notes)


LEVELS = {11: "small", 17: "medium", 34: "large"}
COMMAS = {11: "5,000", 17: "50,000", 34: "1,281,167"}
DOTTED = TABLE.assign(depth=TABLE.depth.map(COMMAS).str.replace(",", "."))
BLANK, NA = (TABLE.assign(family=TABLE.family.mask(SOME, word)) for word in ("", "NA"))
MISSING = TABLE.assign(family=TABLE.family.mask(SOME))
INDEXED = TABLE.set_index(["net", "dataset", "family"])
ORDERED = TABLE.assign(depth=pd.Categorical(TABLE.depth.map(LEVELS), list(LEVELS.values()), ordered=True))
YES = TABLE.assign(family=np.where(TABLE.family == "CNN", "no", "yes"))


@pytest.mark.parametrize(
    ("write", "name", "changed", "noted"),
    [
        (text(), "T.CSV", {}, []),
        (text(sep="\t"), "t.tsv", {}, ["tabs separate"]),
        (text(sep=";", decimal=","), "t.csv", {}, ["semicolons separate", "a comma is the decimal sign"]),
        (text(encoding="utf-8-sig"), "t.csv", {}, []),
        (text(sep="\t", encoding="utf-16"), "t.csv", {}, ["UTF-16", "tabs"]),
        (text(end=",,,,,\n" * 3), "t.csv", {}, ["3 rows without any value"]),
        (text(GERMAN, encoding="cp1252"), "t.csv", {"dataset": {"birds": "Vögel"}}, ["cp1252"]),
        (text(lineterminator="\r\n"), "t.csv", {}, []),
        (text(BLANK), "t.csv", {"family": MISSING.family}, ["family is missing in 2 of 24"]),
        (text(NA), "t.csv", {"family": MISSING.family}, ["family is missing in 2 of 24"]),
        (parquet(MISSING), "t.parquet", {"family": MISSING.family}, ["family is missing in 2 of 24"]),
        (text(TABLE.assign(depth=TABLE.depth.map(COMMAS))), "t.csv", {"depth": COMMAS}, ["5,000 is 5000"]),
        (text(DOTTED, sep=";", decimal=","), "t.csv", {"depth": COMMAS}, ["5.000 is 5000", "decimal sign"]),
        (text(TABLE.assign(retained=TABLE.retained.astype(str) + " %")), "t.csv", {}, ["60.0 % is 60.0"]),
        (parquet(TABLE.assign(depth=TABLE.depth.map(lambda d: Decimal(d)))), "t.pq", {}, []),
        (parquet(TABLE.assign(depth=TABLE.depth.astype(str))), "t.parquet", {}, []),
        (parquet(INDEXED, index=True), "t.parquet", {}, []),
        (text(head="sep=;\r\n", sep=";"), "t.csv", {}, ["semicolons"]),
        (text(head="# made by us, in May\n# 3\n"), "t.csv", {}, ["2 lines above the first row begin with #"]),
        (text(head="\n\n"), "t.csv", {}, []),
    ],
)  # fmt: skip
def test_the_same_table_written_otherwise(tmp_path, capsys, write, name, changed, noted):
    plain = read(tmp_path, text())
    found = read(tmp_path, write, name=name)
    for column in ("backbone", "dataset", "depth", "family", "seed", "retained"):
        expected = plain.frame[column]
        if isinstance(change := changed.get(column), dict):
            expected = expected.map(lambda v, to=change: str(to.get(v, v)).replace(",", "")).astype(expected.dtype)
        elif change is not None:
            expected = change
        assert found.frame[column].isna().equals(expected.isna()), column
        filled = expected.notna()
        assert found.frame[column][filled].tolist() == expected[filled].tolist(), column
    assert found.kinds == plain.kinds
    said = " ".join(found.notes)
    assert all(part in said for part in noted), said
    printed = capsys.readouterr().err
    assert all(part in printed or "missing" in part for part in noted)


@pytest.mark.parametrize(
    ("write", "name", "levels"),
    [
        (parquet(ORDERED), "t.parquet", ["small", "medium", "large"]),
        (parquet(DATES.assign(depth=pd.to_datetime(DATES.depth))), "t.parquet", ["2011", "2017", "2034"]),
        (text(DATES), "t.csv", ["2011", "2017", "2034"]),
    ],
)  # fmt: skip
def test_what_the_file_orders_is_ordered(tmp_path, write, name, levels):
    found = read(tmp_path, write, name=name)
    assert found.kinds["depth"] == "ordinal"
    kept = [level.removesuffix("-01-01") for level in found.frame["depth"].cat.categories]  # dates without a midnight
    assert kept == levels


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (text(end="Mean,,,,,63.2\n"), r"t\.csv: column 'dataset', row 25: is empty.*; mend it, or remove the row"),
        (text(end="Mean,Mean,20.7,Mean,0.5,63.2\n"), r"t\.csv: row 25 says Mean in several columns: remove rows of"),
        (text(end="Mean,all,,,,63.2\n"), r"t\.csv: row 25 \(Mean\) has none of the variables depth, family, seed"),
        (text(pd.concat([TABLE, TABLE[["depth"]]], axis=1)), r"column 'depth' stands twice \(columns 3 and 7\)"),
        (text(TABLE.assign(depth=TABLE.depth.astype(str).mask(SOME, "n.d."))), "'depth', row 7: 'n.d.' is not a"),
        (text(TABLE.assign(retained="60,5")), "'retained', row 1: '60,5' is not a number; write numbers with a point"),
        (text(TABLE, head="Results,,,,,\n"), "first row must hold the names of the columns"),
        (text(end="net9,birds,11\n"), r"t\.csv: cannot be read as CSV with commas between 6 columns: .*#25"),
        (lambda file: file.write_bytes(b"net,\0\0dataset"), "no text in UTF-8"),
        (lambda file: file.write_bytes("net,ä\n".encode() + b"\x81\x8d"), "neither UTF-8 nor cp1252"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_answered_with_its_place(tmp_path, write, expected):
    with pytest.raises(UserError, match=expected):
        read(tmp_path, write)


def test_words_of_the_mapping_are_words(tmp_path):
    names = MAP.replace("family: {column: family}", "augmentation: {column: family, names: {no: off, yes: on}}")
    assert sorted(read(tmp_path, text(YES), names).frame["augmentation"].unique()) == ["off", "on"]
    renamed = TABLE.rename(columns={"retained": "2024"})
    assert len(read(tmp_path, text(renamed), MAP.replace("column: retained", "column: 2024")).frame) == 24
    lacking = text(TABLE.assign(depth=TABLE.depth.mask(SOME)))
    depth = read(tmp_path, lacking, MAP.replace("{column: depth}", "{column: depth, levels: [11, 17, 34]}"))
    assert list(depth.frame["depth"].cat.categories) == ["11", "17", "34"]
    odd = MAP.replace("{depth: {column: depth}", '{"depth [10^{-3}]": {column: depth}')
    assert read(tmp_path, text(), odd).frame["label"].str.contains(r"depth [10^{-3}] 11", regex=False).any()


def test_names_are_drawn_as_they_are(capsys):
    """A dollar sign is no formula; a character that the house's font lacks comes from another, or is said."""
    made, axes = style.figure(3, 2)
    axes.set_title("ViT $$10^{2 日本")
    axes.legend([axes.plot([0, 1])[0]], ["CNN ($2/h)"])
    assert style.save(made, "png").startswith(b"\x89PNG")
    said = capsys.readouterr().err
    assert ("no font on this machine has 2 characters" in said) == (not fonts._others(frozenset("日本")))
    assert not [name for name in fonts._others(frozenset("虫日")) if "Resort" in name]  # it would draw boxes
    lent = next(iter(fonts._signs(fonts.font_manager.findfont("STIXGeneral")) - fonts._signs(fonts._own())))
    other = Figure()
    other.text(0, 0, lent)
    fonts.fit(other)
    assert len(other.texts[0].get_fontfamily()) == 2


def test_a_markdown_table_holds_no_markup_of_names():
    table = markdown(["a|b"], [["<img src=x onerror=alert(1)>"], ["*x* & `y` $z$\nnext"], ["id_classes"]])
    assert "<img" not in table
    assert r"a\|b" in table
    assert r"\*x\* &amp; \`y\` \$z\$ next" in table
    assert "| id_classes |" in table
