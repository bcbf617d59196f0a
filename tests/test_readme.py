"""What the README promises: its commands, its config, its snippets and its data dictionary are the real ones."""

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from analysis.tables import database, stored
from analysis.tables.names import FURTHER
from sweep.config import INSTRUMENTS, READINGS
from sweep.study.check import read_config
from sweep.table.readings import readings_dictionary
from sweep.table.schema import data_dictionary
from tests.synthetic_tables import grid, probe_table, write_sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def snippet(language: str) -> str:
    """The first fenced block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {language} block"
    return found[1]


@pytest.fixture
def table(tmp_path, monkeypatch):
    probes = probe_table(grid(id_classes=[10, 40], seed=[0, 1]))
    write_sweep(tmp_path / "results" / "demo", probes.append_column("chosen", pa.array([True] * len(probes))))
    monkeypatch.chdir(tmp_path)


def test_the_data_dictionary_is_current():
    between = re.search(r"sweep.table columns -->\n(.*)\n<!-- end of data dictionary", README, re.DOTALL)
    assert between
    assert between[1].strip() == data_dictionary().strip(), "paste what python -m sweep.table columns prints"


def test_the_page_on_instruments_names_every_one_and_its_columns():
    page = (ROOT / "docs" / "instruments.md").read_text(encoding="utf-8")
    assert readings_dictionary() in page, "paste what python -m sweep.table columns --of readings prints"
    assert all(f"| `{name}` |" in page for name in (*INSTRUMENTS, *READINGS))
    assert all(f"`{name}`" in page for name in FURTHER)


def test_the_config_is_valid(tmp_path):
    (tmp_path / "my.yaml").write_text(snippet("yaml"))
    assert read_config(tmp_path / "my.yaml").name == yaml.safe_load(snippet("yaml"))["name"]


def test_the_pandas_snippet_runs(table, capsys):
    exec(snippet("python"), {})  # our own text
    assert "vggm11" in capsys.readouterr().out


def test_the_sql_snippet_agrees_with_pandas(table):
    found = database.connect(stored.find("results/demo")).sql(snippet("sql")).df()
    probes = pd.read_parquet("results/demo/probes.parquet")
    one = probes[(probes.id_classes == 10) & (probes.seed == 1) & (probes.dataset == "digits")].set_index("layer")
    kept = 100 * one.top1.iloc[-1] / one.top1[one.heldout_top1.idxmax()]
    row = found[(found.id_classes == 10) & (found.seed == 1) & (found.dataset == "digits")]
    assert row.retained.tolist() == [pytest.approx(kept)]


def test_every_file_that_it_names_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for command in re.findall(r"python ((?:sweep|analysis)/\w+\.py)", README):
        assert (ROOT / command).is_file(), command
