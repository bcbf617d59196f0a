"""A sweep on a real S3 server: the same table through faults, clear words without credentials, no secret anywhere."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from sweep.base import store as store_module
from sweep.base.errors import StorageError, UserError
from sweep.base.store import Store
from sweep.table.schema import RUN_COLUMNS
from tests.s3_server import KEYS, Faults, clean_environment, s3_server
from tests.sweep.driver.test_end_to_end import ROOT, TWO_CURVES, command, rows, run

READ = (
    "import sys; from sweep.base.store import Store; sys.stdout.buffer.write(Store(sys.argv[1]).get('probes.parquet'))"
)


@pytest.fixture
def served(monkeypatch):
    """A server without faults, and this process's environment pointing at it."""
    faults = Faults()
    with s3_server(faults) as environment:
        for key in list(os.environ):
            if key.startswith("AWS_"):
                monkeypatch.delenv(key)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        yield faults


def test_put_get_names_delete(served):
    store = Store("s3://bucket/deep/sweep")
    assert store.names() == []
    before = served.requests
    store.put("a/b/c.bin", b"12")
    assert served.requests == before + 2  # one put, and a look at the size
    store.put("a/d.bin", b"34")
    assert store.names() == ["a/b/c.bin", "a/d.bin"]
    assert store.get("a/d.bin") == b"34"
    assert (store.exists("a/d.bin"), store.exists("a"), store.exists("a/e.bin")) == (True, False, False)
    with pytest.raises(FileNotFoundError):
        store.get("a/e.bin")
    store.delete("a/d.bin")
    store.delete("a/d.bin")
    assert store.names() == ["a/b/c.bin"]
    assert store.path("a") == "s3://bucket/deep/sweep/a"


def test_faults_are_outlived(served):
    served.every = 4
    store = Store("s3://bucket/sweep")
    for number in range(8):
        store.put(f"{number}.bin", bytes([number]) * 100)
        assert store.get(f"{number}.bin") == bytes([number]) * 100
    assert len(store.names()) == 8
    assert served.met >= 3


def test_revoked_credentials_are_said_and_kept_secret(served, monkeypatch):
    monkeypatch.setattr(store_module, "_DELAYS", (0.0, 0.0, 0.0))
    served.denied = True
    with pytest.raises(StorageError, match=r"cannot write s3://bucket/sweep/x: .*token has expired") as caught:
        Store("s3://bucket/sweep").put("x", b"1")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_no_bucket_and_no_network_are_said(served, monkeypatch):
    monkeypatch.setattr(store_module, "_DELAYS", ())
    elsewhere = Store("s3://nowhere/sweep")
    assert elsewhere.names() == []
    with pytest.raises(StorageError, match="cannot write s3://nowhere/sweep/x"):
        elsewhere.put("x", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"cannot read s3://bucket/sweep/x: .*NETWORK_CONNECTION"):
        Store("s3://bucket/sweep").get("x")


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/sweep", "s3://key@bucket/sweep"])
def test_a_uri_with_credentials_is_refused_without_repeating_them(uri):
    with pytest.raises(UserError, match="in the environment") as caught:
        Store(uri)
    assert "secret" not in str(caught.value).replace("AWS_SECRET", "")
    assert "key@" not in str(caught.value)


@pytest.mark.slow
def test_a_sweep_through_faults_gives_the_same_table(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(TWO_CURVES + f"cache_dir: {tmp_path / 'cache'}\n")
    run(file, tmp_path / "local")
    faults = Faults(every=9)
    with s3_server(faults) as environment:
        told = {**clean_environment(), **environment}
        first = run(file, "s3://bucket/sweep", env=told, timeout=300)
        again = run(file, "s3://bucket/sweep", env=told, timeout=300)
        asked = subprocess.run(
            [*command(file, "s3://bucket/sweep"), "--status"], env=told, capture_output=True, text=True, check=True
        )
        read = [sys.executable, "-c", READ, "s3://bucket/sweep"]
        data = subprocess.run(read, cwd=ROOT, env=told, capture_output=True, check=True)
        faults.denied = True
        denied = run(file, "s3://bucket/sweep", env=told, code=1, timeout=300)
    assert faults.met >= 5
    assert "(2 computed now" in first.stdout
    assert "(0 computed now" in again.stdout
    assert "total     2        0       0        0        2" in asked.stdout
    (tmp_path / "s3.parquet").write_bytes(data.stdout)
    table = pq.read_table(tmp_path / "s3.parquet").drop_columns(list(RUN_COLUMNS))
    assert table.to_pylist() == rows(tmp_path / "local")
    assert "token has expired" in denied.stderr
    assert "Traceback" not in denied.stderr
    everything = "".join([first.stdout, first.stderr, again.stderr, asked.stdout, denied.stderr]).encode() + data.stdout
    assert not any(secret.encode() in everything for secret in KEYS.values())
