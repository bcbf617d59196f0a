"""Files in and out, on any filesystem: a local path, or a URI that pyarrow or fsspec knows."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.tables.errors import UserError

PROBES = "probes.parquet"
# what Parquet files of sweeps are read by: their pages have checksums
CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
_PIECE = 1 << 22  # bytes
_NAMED = ("abfs", "abfss", "sftp", "ssh", "hdfs", "smb")  # CONTAINER@ACCOUNT, USER@HOST: no secret
_FOLDERS = ("sftp", "ssh", "smb", "hdfs", "webhdfs", "ftp", "memory")  # without an atomic put
ROOT = Path(__file__).resolve().parents[2]


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Filesystem and path of a local path or URI; UserError if nobody knows the scheme, or it holds credentials."""
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    scheme, _, rest = uri.partition("://")
    before = rest.partition("/")[0].rpartition("@")[0]
    if before and (":" in before or scheme not in _NAMED):
        raise UserError(
            f"{scheme}://…: the URI holds credentials, which would stand in the report; give them in the environment "
            "(for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role)"
        )
    try:
        return fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # not a scheme of pyarrow: fsspec may know it
    except OSError as error:
        raise UserError(f"{uri}: cannot be reached ({error.strerror or error})") from None
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError(f"{uri}: no filesystem for this URI ({error}); use a path, s3://, gs:// …") from None
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def join(uri: str, name: str) -> str:
    """A name below a folder, as a path or URI; what stands after a question mark stays at the end."""
    place, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


def ending(uri: str) -> str:
    """The URI without what stands after a question mark, to be told apart by its ending."""
    return uri.partition("?")[0] if "://" in uri else uri


def folder(uri: str) -> str:
    """The folder that a file stands in."""
    place, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{place.rpartition('/')[0] or '.'}{mark}{query}"


@contextmanager
def _told(uri: str, what: str) -> Iterator[None]:
    """Say in one sentence which file could not be read, and why."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: {what} ({error})") from None
    except OSError as error:
        raise UserError(f"{uri}: cannot be read ({error.strerror or error})") from None


def sha256(uri: str) -> str:
    """SHA-256 of a file, read a piece at a time."""
    filesystem, path = resolve(uri)
    digest = hashlib.sha256()
    with _told(uri, "cannot be read"), filesystem.open_input_stream(path, compression=None) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def exists(uri: str) -> bool:
    """Whether a file or folder stands there."""
    filesystem, path = resolve(uri)
    with _told(uri, "cannot be looked for"):
        return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def names(uri: str) -> list[str]:
    """Names of the files below a folder, sorted; none if there is no folder."""
    return sorted(stamps(uri))


def stamps(uri: str) -> dict[str, str]:
    """Size and time of writing of the files below a folder, as a sweep notes them; none if there is no folder."""
    filesystem, path = resolve(uri)
    try:
        found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise UserError(
            f"{uri}: cannot be listed as a folder ({error.strerror or str(error).splitlines()[0]})"
        ) from None
    start = len(path.rstrip("/")) + 1
    files = {info.path[start:]: f"{info.size} {info.mtime_ns}" for info in found if info.type == fs.FileType.File}
    return {name: stamp for name, stamp in files.items() if not name.startswith(".") and "/." not in name}


def read(uri: str) -> bytes:
    """A whole file."""
    filesystem, path = resolve(uri)
    with _told(uri, "cannot be read"), filesystem.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


def write(uri: str, data: bytes | str | pa.Buffer) -> None:
    """Write a whole file, so that a reader sees all of it or nothing."""
    filesystem, path = resolve(uri)
    content = memoryview(data.encode() if isinstance(data, str) else data)
    try:
        if isinstance(filesystem, fs.LocalFileSystem):
            _write_local(filesystem, path, content)
        else:
            (_write_aside if uri.partition("://")[0] in _FOLDERS else _write_remote)(filesystem, path, content)
    except OSError as error:
        raise UserError(
            f"{uri}: cannot write there ({error.strerror or error}); choose another folder with --out"
        ) from None


def _write_local(_: fs.FileSystem, path: str, content: memoryview) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = Path(f"{os.path.dirname(path)}/.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_remote(filesystem: fs.FileSystem, path: str, content: memoryview) -> None:
    """One put, which is atomic on an object store; folders are made only where a store wants them."""
    try:
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
    except FileNotFoundError:
        filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)


def _write_aside(filesystem: fs.FileSystem, path: str, content: memoryview) -> None:
    """A file aside that takes the name once it is whole: here readers see a file while it grows."""
    folder, _, own = path.rpartition("/")
    place = f"{folder}/.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}-{own}"
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(place) as stream:
        stream.write(content)
    if filesystem.get_file_info(path).type == fs.FileType.File:
        filesystem.delete_file(path)  # renaming onto a file fails there
    filesystem.move(place, path)


def write_tables(uri: str, parts: Iterable[pa.Table], about: Mapping[str, object]) -> None:
    """Write Arrow tables of one schema as one Parquet file; ``about`` goes into its metadata, as ``tunnel_report``."""
    sink, writer = pa.BufferOutputStream(), None
    for part in parts:
        if writer is None:
            metadata = {**(part.schema.metadata or {}), b"tunnel_report": json.dumps(about).encode()}
            writer = pq.ParquetWriter(sink, part.schema.with_metadata(metadata), compression="zstd")
        writer.write_table(part.cast(writer.schema))
    if writer is not None:
        writer.close()
    write(uri, sink.getvalue())


def schema(uri: str) -> pa.Schema:
    """Schema of a Parquet file with its metadata; UserError if the file cannot be read as one."""
    filesystem, path = resolve(uri)
    with _told(uri, "not a Parquet file"):
        return pq.read_schema(path, filesystem=filesystem)


def read_parquet(uri: str, columns: Iterable[str] | None = None) -> pa.Table:
    """Read some columns of a Parquet file."""
    filesystem, path = resolve(uri)
    names = None if columns is None else list(columns)
    with _told(uri, "cannot be read as Parquet"), filesystem.open_input_file(path) as file:
        return pq.read_table(file, columns=names, page_checksum_verification=True)


def parquet_batches(uri: str, columns: Iterable[str], *, rows: int) -> Iterable[pa.RecordBatch]:
    """Stream some columns of a Parquet file, ``rows`` at a time, without holding the file in memory."""
    filesystem, path = resolve(uri)
    with _told(uri, "cannot be read as Parquet"), filesystem.open_input_file(path) as file:
        yield from pq.ParquetFile(file, page_checksum_verification=True).iter_batches(
            batch_size=rows, columns=list(columns)
        )


def newest_sweep() -> str:
    """The folder under ``results/`` (of the project, or of the current folder) whose table is newest."""
    roots = dict.fromkeys([ROOT / "results", Path.cwd() / "results"])
    tables = [table for root in roots for table in root.glob(f"*/{PROBES}")]
    if not tables:
        looked = " and ".join(str(root) for root in roots)
        raise UserError(
            f"no finished sweep (a folder with {PROBES}) in {looked}; run one first (python sweep/run.py), "
            "or say where it is: --results DIR, or bring your own table: --table FILE --mapping FILE.yaml"
        )
    return str(max(tables, key=lambda table: table.stat().st_mtime).parent)
