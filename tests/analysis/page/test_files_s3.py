"""The report on a real S3 server: table and mapping read there, everything written there, no secret anywhere."""

import json
import os

import pytest
import yaml
from fsspec.implementations.memory import MemoryFileSystem

from analysis import shap_report
from analysis.tables import storage
from analysis.tables.errors import UserError
from tests.s3_server import KEYS, Faults, s3_server
from tests.synthetic_tables import MAPPING, experiment_table, grid, probe_table, write_sweep

FAST = ["--bootstrap", "0", "--jobs", "1", "--target", "retained"]


@pytest.fixture
def served(monkeypatch):
    faults = Faults()
    with s3_server(faults) as environment:
        for key in list(os.environ):
            if key.startswith("AWS_"):
                monkeypatch.delenv(key)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        yield faults


def test_a_report_from_s3_to_s3(served, tmp_path, capsys):
    experiment_table(n_backbones=8, n_datasets=2, effects={"a": 0.3}).to_parquet(tmp_path / "t.parquet")
    storage.write("s3://bucket/in/t.parquet", (tmp_path / "t.parquet").read_bytes())
    storage.write("s3://bucket/in/m.yaml", yaml.safe_dump(MAPPING))
    places = ["--table", "s3://bucket/in/t.parquet", "--mapping", "s3://bucket/in/m.yaml", "--out", "s3://bucket/out/r"]
    assert shap_report.main([*places, *FAST]) == 0
    report = json.loads(storage.read("s3://bucket/out/r/report.json"))
    assert report["source"] == "s3://bucket/in/t.parquet"
    assert report["targets"]["retained"]["slopes"]["a"]["slope"] > 0.1
    assert storage.read_parquet("s3://bucket/out/r/shap_values.parquet").num_rows == 16
    page = storage.read("s3://bucket/out/r/index.html").decode() + capsys.readouterr().out
    assert not any(secret in page for secret in KEYS.values())


def test_a_sweep_on_s3_has_its_report_beside_it(served, tmp_path):
    write_sweep(tmp_path, probe_table(grid(id_classes=[10, 50]), datasets=["glyphs"]))
    storage.write("s3://bucket/alone/probes.parquet", (tmp_path / "probes.parquet").read_bytes())
    assert shap_report.main(["--results", "s3://bucket/alone", *FAST]) == 0
    assert storage.exists("s3://bucket/alone/report/index.html")


def test_what_the_server_refuses_is_one_sentence(served, capsys):
    assert shap_report.main(["--results", "s3://bucket/nothing", *FAST]) == 2
    assert "s3://bucket/nothing/probes.parquet: no such file" in capsys.readouterr().err
    served.denied = True
    with pytest.raises(UserError, match=r"s3://bucket/x: cannot write there \(.*token has expired"):
        storage.write("s3://bucket/x", b"1")
    with pytest.raises(UserError, match=r"s3://bucket/x: cannot be read \(.*ACCESS_DENIED"):
        storage.read("s3://bucket/x")


def test_a_uri_with_credentials_is_refused_without_repeating_them(capsys):
    assert shap_report.main(["--results", "s3://key:hidden@bucket/sweep"]) == 2
    told = capsys.readouterr().err
    assert "give them in the environment" in told
    assert "hidden" not in told


def test_other_filesystems_make_their_folders_and_show_whole_files_only(monkeypatch):
    opened, really = [], MemoryFileSystem._open

    def noting(system, path, mode="rb", **more):
        opened.append((path, mode))
        return really(system, path, mode=mode, **more)

    monkeypatch.setattr(MemoryFileSystem, "_open", noting)
    uri = "memory://deep/down/report.json"
    storage.write(uri, "{}")
    assert [name.rpartition("/")[2][:5] for name, mode in opened if mode == "wb"] == [".tmp-"]  # and then renamed
    storage.write(uri, "[]")
    assert storage.read(uri) == b"[]"
    assert storage.names("memory://deep") == ["down/report.json"]
    assert storage.join("s3://bucket/a?region=x", "b") == "s3://bucket/a/b?region=x"
    assert storage.folder("s3://bucket/a/t.parquet?region=x") == "s3://bucket/a?region=x"
