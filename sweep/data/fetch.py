"""Fetch the archives of a dataset: mirrors in turn, resumed where a download broke off, compared with the checksums."""

import http.client
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from sweep.base.errors import UserError
from sweep.data.doctor import wrong_hash
from sweep.data.facts import Archive, Sheet

_CHUNK = 1 << 20
_SECONDS = 60.0  # without a byte
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def fetch(sheet: Sheet, to: Path, *, mirrors: Sequence[str] = (), each: Callable[[str], None]) -> list[Path]:
    """The needed archives of a dataset in a directory; those that are there and right are left alone.

    Parameters
    ----------
    mirrors : addresses of directories that hold the archives, tried before the sheet's.
    each : told how far it is.

    Raises
    ------
    UserError
        No address gives an archive, or what came is not the publisher's.
    """
    wanted = [archive for archive in sheet.archives if not archive.optional]
    if not mirrors and any(not archive.urls for archive in wanted):
        raise UserError(
            f"{sheet.name} cannot be fetched: {sheet.licence}. Get {', '.join(archive.file for archive in wanted)} "
            f"at {sheet.homepage}, or give a --mirror of yours"
        )
    to.mkdir(parents=True, exist_ok=True)
    return [_fetch_one(archive, to, mirrors, each) for archive in wanted]


def describe(sheet: Sheet) -> str:
    """Size and licence, before anything is fetched."""
    wanted = [archive for archive in sheet.archives if not archive.optional]
    known = [archive.bytes for archive in wanted if archive.bytes]
    size = f"{sum(known) / 1e9:.2f} GB" if len(known) == len(wanted) else "size not published"
    return f"{sheet.title}: {len(wanted)} files, {size}; licence: {sheet.licence}; cite: {sheet.citation}"


def unpack(archives: Sequence[Path], to: Path) -> None:
    """Unpack tar archives beside each other; nothing is written outside ``to``."""
    for archive in archives:
        if archive.name.endswith((".tar", ".tgz", ".tar.gz")):
            with tarfile.open(archive) as tar:
                tar.extractall(to, filter="data")


def _fetch_one(archive: Archive, to: Path, mirrors: Sequence[str], each: Callable[[str], None]) -> Path:
    file, partial = to / archive.file, to / f"{archive.file}.part"
    if file.exists() and not _wrong(file, archive):
        return file
    failures = []
    for url in (*(f"{mirror.rstrip('/')}/{archive.file}" for mirror in mirrors), *archive.urls):
        try:
            _download(url, partial, archive, each)
        except (*_BROKEN, OSError) as error:
            if not isinstance(error, _BROKEN):
                raise UserError(
                    f"{partial} cannot be written: {error}; look at the free space and the rights"
                ) from error
            failures.append(f"{url}: {error}")
            continue
        if wrong := _wrong(partial, archive):
            partial.unlink()  # resuming would keep what is wrong
            failures.append(f"{url}: {wrong}")
            continue
        os.replace(partial, file)
        return file
    kept = f"; {partial.stat().st_size:,} bytes are kept, the same command goes on" if partial.exists() else ""
    raise UserError(f"{archive.file} could not be fetched{kept}:\n  " + "\n  ".join(failures))


def _wrong(file: Path, archive: Archive) -> str | None:
    size = file.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        return f"{size:,} bytes, the publisher's has {archive.bytes:,}"
    return wrong_hash(file, archive)


def _download(url: str, partial: Path, archive: Archive, each: Callable[[str], None]) -> None:
    """Append to what is there already; a host that cannot resume begins anew."""
    start = partial.stat().st_size if partial.exists() else 0
    if archive.bytes is not None and start >= archive.bytes:
        if start == archive.bytes:
            return  # whole, and not yet compared
        start = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:  # 416: there is nothing after what we have
            raise
        return
    with response, open(partial, "ab" if start and response.status == 206 else "wb") as target:
        expected = response.headers.get("Content-Length")
        begun, done = target.tell(), 0
        while chunk := response.read(_CHUNK):
            target.write(chunk)
            done += len(chunk)
            total = f" of {archive.bytes / 1e6:,.0f}" if archive.bytes else ""
            each(f"{archive.file}: {(begun + done) / 1e6:,.0f}{total} MB")
    if expected is not None and done < int(expected):
        raise ConnectionError(f"broke off after {begun + done:,} bytes")
