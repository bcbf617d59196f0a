import hashlib
import os
from types import SimpleNamespace

import pytest
from pyarrow.fs import LocalFileSystem

import analysis.tables.errors
import analysis.tables.storage
import sweep.base.store
from analysis.tables.storage import resolve
from sweep.base.errors import StorageError, UserError
from sweep.base.store import Store

LOCAL = LocalFileSystem()


def test_put_get_names_delete(tmp_path):
    store = Store(str(tmp_path / "out"))
    assert store.names() == []
    store.put("a/b/c.bin", b"12")
    store.put("a/d.bin", b"3")
    store.put("a/d.bin", b"34")
    assert store.names() == ["a/b/c.bin", "a/d.bin"]
    assert store.names("a/b") == ["a/b/c.bin"]
    assert store.get("a/d.bin") == b"34"
    assert store.exists("a/d.bin")
    assert not store.exists("a")
    store.delete("a/d.bin")
    store.delete("a/d.bin")
    assert store.names() == ["a/b/c.bin"]
    with pytest.raises(FileNotFoundError):
        store.get("a/d.bin")


@pytest.mark.parametrize("uri", ["{home}", "memory://bucket/digests"])
def test_the_digest_of_a_large_file_needs_a_part_of_it_at_a_time(tmp_path, monkeypatch, uri):
    store = Store(uri.format(home=tmp_path))
    monkeypatch.setattr("sweep.base.store._PART_BYTES", 3)
    for content in (b"", b"12", b"1234567890"):
        store.put("a.bin", content)
        assert store.sha256("a.bin") == hashlib.sha256(content).hexdigest()
    with pytest.raises(FileNotFoundError):
        store.sha256("b.bin")


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.put("x/f", b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.put("x/f", b"new")
    assert store.get("x/f") == b"old"
    assert os.listdir(tmp_path / "x") == ["f"]


def test_unfinished_temporaries_are_not_listed(tmp_path):
    store = Store(str(tmp_path))
    store.put("x/f", b"1")
    (tmp_path / "x" / ".tmp-1-abc").write_bytes(b"half")
    assert store.names() == ["x/f"]


def test_other_filesystems_through_fsspec():
    store = Store("memory://bucket/sweep")
    store.put("a/b.bin", b"12")
    assert store.names() == ["a/b.bin"]
    assert store.get("a/b.bin") == b"12"
    assert store.exists("a/b.bin")
    store.delete("a/b.bin")
    assert store.names() == []


def test_unknown_scheme_is_a_user_error():
    with pytest.raises(UserError, match="no filesystem"):
        Store("nosuch://x/y")


def test_travels_by_uri(tmp_path):
    import pickle

    Store(str(tmp_path)).put("f", b"1")
    assert pickle.loads(pickle.dumps(Store(str(tmp_path)))).get("f") == b"1"


def test_a_container_at_an_account_is_an_address_and_a_password_is_none(monkeypatch):
    asked = []
    for module in (sweep.base.store, analysis.tables.storage):
        there = SimpleNamespace(from_uri=lambda uri: asked.append(uri) or (LOCAL, "/x"))
        monkeypatch.setattr(module, "fs", SimpleNamespace(**vars(module.fs) | {"FileSystem": there}))
    uri = "abfs://container@account.dfs.core.windows.net/mine"
    Store(uri)
    resolve(uri)
    assert asked == [uri, uri]
    for secret in ("abfs://container:key@account.dfs.core.windows.net/mine", "sftp://me:word@host/mine"):
        with pytest.raises(UserError, match="in the environment") as refused:
            Store(secret)
        with pytest.raises(analysis.tables.errors.UserError, match="in the environment"):
            resolve(secret)
        assert "key@" not in str(refused.value)


def test_where_readers_see_a_file_grow_it_grows_aside(monkeypatch):
    """On fsspec's file system in memory, which stands for sftp, smb and hdfs."""
    store = Store("memory://mine/out")
    monkeypatch.setattr(sweep.base.store, "_DELAYS", ())
    store.put("a/f", b"old")
    store.put("a/f", b"newer")
    assert (store.get("a/f"), store.names()) == (b"newer", ["a/f"])
    monkeypatch.setattr(store._fs.handler.fs, "info", lambda path, **_: {"name": path, "type": "file", "size": 1})
    with pytest.raises(StorageError, match="3 bytes were written, 1 are there"):
        store.put("a/f", b"cut")
    monkeypatch.undo()
    assert store.get("a/f") == b"newer"
    store.delete("a/f")
