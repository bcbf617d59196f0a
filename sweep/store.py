"""Files under one URI, on any filesystem: whole-object reads and writes that are atomic.

Local writes go to a temporary file, are flushed to the disk and renamed; an object store gets one put, which
is atomic there. Nothing outside this file knows which of the two it is.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from sweep.errors import UserError

_TEMPORARY = ".tmp-"


class Store:
    """A directory on any filesystem, addressed by relative names such as ``fragments/ab12.parquet``.

    Parameters
    ----------
    uri : absolute or relative local path, or a URI that pyarrow or fsspec knows (``s3://bucket/sweep``).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().absolute())
        self._fs, root = _filesystem(self.uri)
        self._root = root.rstrip("/")
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    def path(self, name: str) -> str:
        """Path of a name for people: a URI, or a local path."""
        return f"{self.uri.rstrip('/')}/{name}"

    def put(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a whole file so that a reader sees all of it or nothing."""
        target = f"{self._root}/{name}"
        if not self.is_local:
            with self._fs.open_output_stream(target) as stream:
                stream.write(data)
            return
        directory = os.path.dirname(target)
        os.makedirs(directory, exist_ok=True)
        temporary = f"{directory}/{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            with open(temporary, "wb") as file:
                file.write(memoryview(data))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def get(self, name: str) -> bytes:
        """Read a whole file; FileNotFoundError if there is none."""
        with self._fs.open_input_stream(f"{self._root}/{name}", compression=None) as stream:
            return stream.read()

    def exists(self, name: str) -> bool:
        """Whether a file of that name stands there."""
        return self._fs.get_file_info(f"{self._root}/{name}").type == fs.FileType.File

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is already gone."""
        try:
            self._fs.delete_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return

    def names(self, prefix: str = "") -> list[str]:
        """All files below a folder, sorted, from one recursive listing; unfinished temporaries are left out."""
        base = f"{self._root}/{prefix}".rstrip("/")
        selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
        found = [info.path for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File]
        start = len(self._root) + 1
        return sorted(p[start:] for p in found if not os.path.basename(p).startswith(_TEMPORARY))


def _filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        return fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # not a scheme of pyarrow: fsspec may know it
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{uri}: no filesystem for this URI ({error}); use a path, s3://, gs:// or an fsspec URI"
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), root
