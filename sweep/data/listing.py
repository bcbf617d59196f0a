"""Which images a folder or archive holds, and a digest of each: one sequential pass, cached.

The cache is keyed by (absolute path, size, modification time); for a tree, by the sizes and times of its files.
"""

import gzip
import hashlib
import json
import os
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from sweep.base.errors import UserError
from sweep.data.files import aside, locked, publish

_VERSION = 1  # of the cached listing
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".webp")
_GZIP_MAGIC = b"\x1f\x8b"


class ImageFile(NamedTuple):
    """One image file.

    Attributes
    ----------
    path
        Relative to the folder or to the top of the archive, with ``/``.
    size
        Bytes.
    offset
        Where the bytes start in the uncompressed archive; 0 in a tree.
    digest
        SHA-256 of the bytes, hexadecimal.
    """

    path: str
    size: int
    offset: int
    digest: str


def _is_image(path: str) -> bool:
    """Image by extension, and neither hidden nor below a hidden or ``__MACOSX`` directory."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.split("/"))
    return path.lower().endswith(_EXTENSIONS) and not hidden


def list_images(path: Path, *, cache_dir: Path) -> list[ImageFile]:
    """The image files of a folder or tar archive, sorted by path.

    Raises
    ------
    UserError
        Nothing at ``path``, not a tar archive, damaged, or images stored as links.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of an image folder or of a .tar / .tar.gz of one")
    is_tree = path.is_dir()
    found = _walk(path) if is_tree else []
    state = _tree_state(found) if is_tree else file_state(path)
    read = (lambda: [_digest_file(path, *item) for item in found]) if is_tree else (lambda: _read_tar(path))
    return listed(str(path.absolute()), state, read, cache_dir=cache_dir)


def listed(where: str, state: str, read: Callable[[], list[ImageFile]], *, cache_dir: Path) -> list[ImageFile]:
    """The cached listing of ``where``; read anew, by one process at a time, if it is missing or of another state."""
    entry = cache_dir / "listings" / (hashlib.sha256(os.fsencode(where)).hexdigest()[:32] + ".json")
    files = _load(entry, state)
    if files is None:
        with locked(entry):
            files = _load(entry, state)
            if files is None:
                files = read()
                _save(entry, state, files)
    return files


def file_state(path: Path) -> str:
    """What tells one state of a file from another: its size and its time of modification."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _tree_state(found: list[tuple[str, os.stat_result]]) -> str:
    lines = "\n".join(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}" for path, stat in found)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _walk(root: Path) -> list[tuple[str, os.stat_result]]:
    found = []
    for directory, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(directory, name)
            relative = path.relative_to(root).as_posix()
            if _is_image(relative):
                found.append((relative, path.stat()))
    return sorted(found, key=lambda item: item[0])


def _digest_file(root: Path, relative: str, stat: os.stat_result) -> ImageFile:
    with open(root / relative, "rb") as file:
        return ImageFile(relative, stat.st_size, 0, hashlib.file_digest(file, "sha256").hexdigest())


def open_tar(path: Path) -> BinaryIO:
    """The uncompressed bytes of a ``.tar`` or ``.tar.gz``, told apart by content."""
    with open(path, "rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip else open(path, "rb")


def _read_tar(path: Path) -> list[ImageFile]:
    try:
        with open_tar(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            by_path = {file.path: file for file in _members(path, archive)}  # as on unpacking, the last wins
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as a .tar or .tar.gz ({type(error).__name__}: {error}); "
            "check that it is complete, or unpack it and give the folder"
        ) from error
    return [by_path[name] for name in sorted(by_path)]


def _members(path: Path, archive: tarfile.TarFile) -> Iterator[ImageFile]:
    for member in archive:
        name = posixpath.normpath(member.name)
        if not _is_image(name):
            continue
        if member.issym() or member.islnk():
            raise UserError(
                f"{path} holds {member.name!r} as a link; pack it with `tar --dereference --hard-dereference`"
            )
        content = archive.extractfile(member)
        if content is not None:
            digest = hashlib.file_digest(cast(BufferedReader, content), "sha256").hexdigest()
            yield ImageFile(name, member.size, member.offset_data, digest)


def _load(entry: Path, state: str) -> list[ImageFile] | None:
    """The cached listing, or None if there is none, it is of another state, or it is damaged."""
    try:
        saved = json.loads(entry.read_bytes())
        if (saved["version"], saved["state"]) == (_VERSION, state):
            return [ImageFile(*row) for row in saved["files"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # it is made anew
    return None


def _save(entry: Path, state: str, files: list[ImageFile]) -> None:
    saved = {"version": _VERSION, "state": state, "files": files}
    aside(entry).write_text(json.dumps(saved))
    publish(entry)
