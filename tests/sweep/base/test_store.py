import os

import pytest

from sweep.base.errors import UserError
from sweep.base.store import Store


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
