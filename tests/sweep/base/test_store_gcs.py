"""A sweep's store on Google Cloud Storage: the protocol over HTTP, with faults; credentials from the environment."""

import pytest

from sweep import table
from sweep.base import store
from sweep.base.errors import StorageError
from sweep.base.store import Store
from sweep.driver import status
from tests.gcs_server import SECRET, gcs_server
from tests.sweep.table.test_fragments import failure, row


@pytest.fixture
def served(tmp_path, monkeypatch):
    with gcs_server(tmp_path, every=16) as (server, uri):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
        yield server, uri


def test_put_get_names_delete(served):
    server, uri = served
    server.every = 0
    found = Store(uri)
    assert found.names() == []
    found.put("a/b/c.bin", b"12")
    found.put("a/d.bin", b"x" * 300_000)
    assert found.names() == ["a/b/c.bin", "a/d.bin"]
    assert found.get("a/b/c.bin") == b"12"
    assert found.get("a/d.bin") == b"x" * 300_000
    assert (found.exists("a/d.bin"), found.exists("a/e.bin")) == (True, False)
    with pytest.raises(FileNotFoundError):
        found.get("a/e.bin")
    found.delete("a/d.bin")
    found.delete("a/d.bin")
    assert found.names() == ["a/b/c.bin"]
    assert list(server.objects) == ["deep/sweep/a/b/c.bin"]
    assert found.path("a").startswith("gs://bucket/deep/sweep/a?")


def test_a_sweep_is_kept_and_asked_through_faults(served):
    server, uri = served
    found = Store(uri)
    curves = tuple(table.PlannedCurve(key, "r", "b", "d") for key in ("k1", "k2", "k3"))
    table.publish_plan(found, table.Plan("mine", {0: [curve.key for curve in curves]}, curves))
    table.write_failure(found, failure("k1"))
    table.write_failure(found, failure("k2"))
    table.write_fragment(found, "k1", [row("k1")])
    assert table.listing(found) == table.Listing(frozenset({"k1"}), frozenset({"k2"}))
    assert table.read_fragments(found, ["k1"])["top1"].to_pylist() == [0.5]
    text = status.show(uri, None)
    assert "total     1        0       1        1        3" in text
    assert server.met >= 1
    assert SECRET not in text


def test_a_bucket_that_is_not_there_and_a_server_that_is_gone_are_said(served, monkeypatch):
    server, uri = served
    server.every = 0
    monkeypatch.setattr(store, "_DELAYS", (0.0,))
    elsewhere = Store(uri.replace("//bucket", "//nowhere"))
    with pytest.raises(StorageError, match="cannot write gs://nowhere"):
        elsewhere.put("x", b"1")
    server.shutdown()
    server.server_close()
    with pytest.raises(StorageError, match="cannot write gs://bucket") as caught:
        Store(uri + "&retry_limit_seconds=1").put("x", b"1")
    assert SECRET not in str(caught.value)
