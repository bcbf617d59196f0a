"""Files under one URI, on any filesystem: whole-object reads and writes that are atomic.

Local writes go to a temporary file, are flushed to the disk and renamed; so it is, without the flush, on sftp, smb,
hdfs and the like. An object store gets one put, which is atomic there, and is asked for the size afterwards; there
every operation is tried again, a little later, when the network or the service fails. Nothing outside this file knows
which of the two it is.

Credentials come from the environment (see the documentation of the store), never from the URI.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from sweep.base.errors import StorageError, UserError

_TEMPORARY = ".tmp-"
_PART_BYTES = 16 << 20  # of a file of which only the digest is wanted
_ABANDONED_SECONDS = 86_400.0  # a writer that is alive is done long before, and no clock is so wrong
_DELAYS = (0.5, 2.0, 8.0)  # s, before each further attempt at a remote operation
_PARAMETERS = {  # of pyarrow's file systems, where the URI does not say otherwise
    "s3": "allow_delayed_open=true",  # one put, not a multipart upload, for each file
    "gs": "retry_limit_seconds=10",  # Google's library would try for a quarter of an hour
}
_NAMED = ("abfs", "abfss", "sftp", "ssh", "hdfs", "smb")  # CONTAINER@ACCOUNT, USER@HOST: no secret
_FOLDERS = ("sftp", "ssh", "smb", "hdfs", "webhdfs", "ftp", "memory")  # whose readers see a file while it grows
_OF_ONE_FILE = ("read", "delete")  # what may find that the file is not there; else it is the bucket
T = TypeVar("T")


class Store:
    """A directory on any filesystem, addressed by relative names such as ``fragments/ab12.parquet``.

    Every failing operation raises :class:`~sweep.base.errors.StorageError`, an OSError, but a read of what is not
    there: that is a FileNotFoundError.

    Parameters
    ----------
    uri : absolute or relative local path, or a URI that pyarrow or fsspec knows (``s3://bucket/sweep``).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().absolute())
        _refuse_credentials(self.uri)
        self._fs, root = _filesystem(self.uri)
        self._root = root.rstrip("/")
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        self._has_folders = urlsplit(self.uri).scheme in _FOLDERS

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    def path(self, name: str) -> str:
        """Path of a name for people: a URI, or a local path."""
        place, mark, query = self.uri.partition("?")
        return f"{place.rstrip('/')}/{name}{mark}{query}"

    def put(self, name: str, data: bytes | memoryview | pa.Buffer) -> None:
        """Write a whole file so that a reader sees all of it or nothing."""
        self._patiently("write", name, lambda: (self._put_local if self.is_local else self._put_remote)(name, data))

    def _put_remote(self, name: str, data: bytes | memoryview | pa.Buffer) -> None:
        """One put, which is atomic on an object store; elsewhere a file aside that takes the name once it is whole."""
        target = place = f"{self._root}/{name}"
        if self._has_folders:
            folder, _, own = target.rpartition("/")
            place = f"{folder}/{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}-{own}"
            self._fs.create_dir(folder, recursive=True)
        with self._fs.open_output_stream(place) as stream:
            stream.write(data)
        size, wanted = self._fs.get_file_info(place).size, memoryview(data).nbytes
        if size != wanted:
            raise OSError(f"{wanted} bytes were written, {size} are there")
        if place != target:
            if self._fs.get_file_info(target).type == fs.FileType.File:
                self._fs.delete_file(target)  # renaming onto a file fails there; a reader finds nothing for a moment
            self._fs.move(place, target)

    def _put_local(self, name: str, data: bytes | memoryview | pa.Buffer) -> None:
        target = f"{self._root}/{name}"
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

        def read() -> bytes:
            with self._fs.open_input_stream(f"{self._root}/{name}", compression=None) as stream:
                return stream.read()

        return self._patiently("read", name, read)

    def sha256(self, name: str) -> str:
        """Digest of a whole file, which is read a part at a time; FileNotFoundError if there is none."""

        def read() -> str:
            digest = hashlib.sha256()
            with self._fs.open_input_stream(f"{self._root}/{name}", compression=None) as stream:
                while part := stream.read(_PART_BYTES):
                    digest.update(part)
            return digest.hexdigest()

        return self._patiently("read", name, read)

    def exists(self, name: str) -> bool:
        """Whether a file of that name stands there."""
        info = self._patiently("look for", name, lambda: self._fs.get_file_info(f"{self._root}/{name}"))
        return info.type == fs.FileType.File

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is already gone."""
        try:
            self._patiently("delete", name, lambda: self._fs.delete_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return

    def names(self, prefix: str = "") -> list[str]:
        """All files below a folder, sorted, from one recursive listing; unfinished temporaries are left out."""
        return sorted(self.stamps(prefix))

    def stamps(self, prefix: str = "") -> dict[str, str]:
        """All files below a folder, each with its size and time of writing: what changes when it is written again."""
        base = f"{self._root}/{prefix}".rstrip("/")
        selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
        infos = self._patiently("list", prefix, lambda: self._fs.get_file_info(selector))
        start = len(self._root) + 1
        found = {info.path[start:]: f"{info.size} {info.mtime_ns}" for info in infos if info.type == fs.FileType.File}
        return {name: stamp for name, stamp in found.items() if not name.rsplit("/", 1)[-1].startswith(_TEMPORARY)}

    def tidy(self, folder: str) -> None:
        """Remove temporary files that killed writers left in a local folder at least a day ago."""
        if not self.is_local:
            return
        with contextlib.suppress(OSError):  # no such folder, a read-only disk: nothing depends on it
            with os.scandir(f"{self._root}/{folder}") as entries:
                found = [entry for entry in entries if entry.name.startswith(_TEMPORARY)]
            for entry in found:
                if time.time() - entry.stat().st_mtime > _ABANDONED_SECONDS:
                    os.unlink(entry.path)

    def _patiently(self, action: str, name: str, operation: Callable[[], T]) -> T:
        """Run an operation; a remote one again after a pause, a local one once: a full disk does not pass by itself."""
        for delay in () if self.is_local else _DELAYS:
            try:
                return operation()
            except OSError as error:
                if isinstance(error, FileNotFoundError) and action in _OF_ONE_FILE:
                    raise
                time.sleep(delay)
        try:
            return operation()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and action in _OF_ONE_FILE:
                raise
            raise StorageError(error.errno, f"cannot {action} {self.path(name)}: {error.strerror or error}") from error


def _refuse_credentials(uri: str) -> None:
    if "://" not in uri:
        return
    scheme, (before, _, _) = urlsplit(uri).scheme, urlsplit(uri).netloc.rpartition("@")
    if before and (":" in before or scheme not in _NAMED):
        raise UserError(
            f"--out {scheme}://…: the URI holds credentials, which would stand in logs and tables; give them in the "
            "environment (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role)"
        )


def _filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    ours = _PARAMETERS.get(urlsplit(uri).scheme)
    asked = [f"{uri}{'&' if '?' in uri else '?'}{ours}"] if ours and ours.partition("=")[0] not in uri else []
    for candidate in (*asked, uri):
        try:
            return fs.FileSystem.from_uri(candidate)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue  # a parameter that this pyarrow does not know, or a scheme that only fsspec may know
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{uri}: no filesystem for this URI ({error}); use a path, s3://, gs:// or an fsspec URI"
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), root
