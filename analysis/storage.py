"""Files in and out, on any filesystem: a local path, or a URI that pyarrow or fsspec knows."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.errors import UserError

PROBES = "probes.parquet"
ROOT = Path(__file__).resolve().parents[1]


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Filesystem and path of a local path or URI; UserError if nobody knows the scheme."""
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    try:
        return fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # not a scheme of pyarrow: fsspec may know it
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError(f"{uri}: no filesystem for this URI ({error}); use a path, s3://, gs:// …") from None
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def join(uri: str, name: str) -> str:
    """A name below a folder, as a path or URI."""
    return f"{uri.rstrip('/')}/{name}"


def exists(uri: str) -> bool:
    """Whether a file or folder stands there."""
    filesystem, path = resolve(uri)
    return filesystem.get_file_info(path).type != fs.FileType.NotFound


def write(uri: str, data: bytes | str) -> None:
    """Write a whole file, so that a reader sees all of it or nothing."""
    filesystem, path = resolve(uri)
    content = data.encode() if isinstance(data, str) else data
    if not isinstance(filesystem, fs.LocalFileSystem):
        filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = Path(f"{os.path.dirname(path)}/.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write there ({error.strerror}); choose another folder with --out") from None


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
    try:
        return pq.read_schema(path, filesystem=filesystem)
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: not a Parquet file ({error})") from None


def read_parquet(uri: str, columns: Iterable[str] | None = None) -> pa.Table:
    """Read some columns of a Parquet file."""
    filesystem, path = resolve(uri)
    names = None if columns is None else list(columns)
    try:
        with filesystem.open_input_file(path) as file:
            return pq.read_table(file, columns=names)
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: cannot be read as Parquet ({error})") from None


def parquet_batches(uri: str, columns: Iterable[str], *, rows: int) -> Iterable[pa.RecordBatch]:
    """Stream some columns of a Parquet file, ``rows`` at a time, without holding the file in memory."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_file(path) as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=rows, columns=list(columns))


def read_any(uri: str) -> pa.Table:
    """Read a CSV or Parquet table, told apart by the ending of its name."""
    if uri.endswith((".parquet", ".pq")):
        return read_parquet(uri)
    if not uri.endswith((".csv", ".csv.gz")):
        raise UserError(f"{uri}: the name must end in .csv, .csv.gz or .parquet")
    filesystem, path = resolve(uri)
    try:
        with filesystem.open_input_stream(path, compression="gzip" if uri.endswith(".gz") else None) as stream:
            return pyarrow.csv.read_csv(stream)
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: cannot be read as CSV ({error})") from None


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
