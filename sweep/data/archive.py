"""A ``.tar`` or ``.tar.gz`` read in place: which files it holds, where their bytes start, whether it is whole."""

import gzip
import io
import posixpath
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from sweep.base.errors import UserError
from sweep.base.line import Line
from sweep.data.listing import ImageFile, Listing, OtherFile, file_state, image_file, in_path_order, listed
from sweep.data.tree import is_hidden, is_image

GZIP_MAGIC = b"\x1f\x8b"


def open_tar(path: Path) -> BinaryIO:
    """The uncompressed bytes of a ``.tar`` or ``.tar.gz``, told apart by content."""
    with open(path, "rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip else open(path, "rb")


def list_tar(path: Path, *, cache_dir: Path) -> Listing:
    """The files of an archive.

    Raises
    ------
    UserError
        Not a tar archive, damaged, cut short, or images stored as links.
    """
    return listed(str(path.absolute()), file_state(path), lambda: _read(path), cache_dir=cache_dir)


class _LastRead(io.RawIOBase):
    """A stream that remembers what was read last: of a whole archive, that is a block of zeros."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.last = stream, b""

    def read(self, size: int = -1, /) -> bytes:
        self.last = self.stream.read(size)
        return self.last

    def seek(self, position: int, whence: int = 0, /) -> int:
        return self.stream.seek(position, whence)

    def tell(self) -> int:
        return self.stream.tell()


def _read(path: Path) -> Listing:
    advice = "check that it is complete, or unpack it and give the folder"
    try:
        with open_tar(path) as stream:
            remembering = _LastRead(stream)
            with tarfile.open(fileobj=cast(BinaryIO, remembering), mode="r:") as archive:
                images, others = _members(path, archive)
            last = remembering.last
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as a .tar or .tar.gz ({type(error).__name__}: {error}); {advice}"
        ) from error
    if last != bytes(tarfile.BLOCKSIZE):
        raise UserError(f"{path} ends after {len(images):,} images without the mark that ends a tar archive; {advice}")
    return Listing(in_path_order(images), sorted(others), [])


def _members(path: Path, archive: tarfile.TarFile) -> tuple[list[ImageFile], list[OtherFile]]:
    images, others, line = [], [], Line()
    for member in archive:
        name = posixpath.normpath(member.name)
        if not is_image(name):
            if member.isreg() and not is_hidden(name):
                others.append(OtherFile(name, member.size, member.offset_data))
            continue
        if member.issym() or member.islnk():
            raise UserError(
                f"{path} holds {member.name!r} as a link; pack it with `tar --dereference --hard-dereference`"
            )
        if (content := archive.extractfile(member)) is not None:
            images.append(image_file(name, content.read(), offset=member.offset_data))
            line.show(f"reading {path} for the first time: {len(images):,} images")
    line.end()
    return images, others
