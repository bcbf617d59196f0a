"""Which files a folder or archive holds, and a digest of each image: one sequential pass, cached.

The cache is keyed by (absolute path, size, modification time); for a tree, by the sizes and times of its images.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from sweep.base.errors import UserError
from sweep.base.line import Line
from sweep.data.decode import oddity
from sweep.data.files import aside, locked, publish
from sweep.data.tree import Tree, scan, suffix

_VERSION = 2  # of the cached listing
_ENDING = re.compile(r"\.(?=\d*[a-z])[a-z0-9]{1,8}")  # of a file; "St. Bernard" has none
_MAX_DANGLING = 0.01  # share of a tree's images that may be links to nowhere; one may always be


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
    odd
        What of it is decoded otherwise than before (:func:`sweep.data.decode.oddity`); mostly nothing.
    """

    path: str
    size: int
    offset: int
    digest: str
    odd: str = ""


class OtherFile(NamedTuple):
    """A file that is no image: where it is and where its bytes start."""

    path: str
    size: int
    offset: int


class Listing(NamedTuple):
    """Files of a folder or archive, sorted by path.

    Attributes
    ----------
    dangling : images that are links to nowhere; they are left out.
    """

    images: list[ImageFile]
    others: list[OtherFile]
    dangling: list[str]


def image_file(path: str, content: bytes, *, offset: int = 0) -> ImageFile:
    """An image by its bytes."""
    digest = hashlib.file_digest(io.BytesIO(content), "sha256").hexdigest()
    return ImageFile(path, len(content), offset, digest, oddity(content))


def list_tree(path: Path, *, cache_dir: Path) -> Listing:
    """The files of a folder; its images are read once.

    Raises
    ------
    UserError
        A directory that cannot be read, or links to what is not there.
    """
    tree = scan(path)
    dangling = _dangling_images(path, tree)
    digested = listed(
        str(path.absolute()), tree.state, lambda: Listing(_digest(path, tree), [], []), cache_dir=cache_dir
    )
    return Listing(digested.images, [OtherFile(file.path, file.size, 0) for file in tree.others], dangling)


def _dangling_images(path: Path, tree: Tree) -> list[str]:
    """Links to nowhere among the images; refused if they are many, or if one may stand for a whole directory."""
    directories = [link for link in tree.dangling if not _ENDING.fullmatch(suffix(link))]
    if directories:
        raise UserError(
            f"{path / directories[0]} is a link to {os.readlink(path / directories[0])}, which is not there: is a disk "
            f"not mounted? Remove the link to leave it out ({len(directories)} such links)"
        )
    if len(tree.dangling) > max(1, _MAX_DANGLING * len(tree.images)):
        raise UserError(
            f"{path}: {len(tree.dangling)} files are links to what is not there, the first is {tree.dangling[0]}; "
            "fetch their content (git annex get, dvc pull), or remove them"
        )
    return tree.dangling


def _digest(root: Path, tree: Tree) -> list[ImageFile]:
    line, files = Line(), []
    for number, found in enumerate(tree.images):
        if number % 500 == 0:
            line.show(f"reading {root} for the first time: {number:,} of {len(tree.images):,} images")
        try:
            files.append(image_file(found.path, (root / found.path).read_bytes()))
        except OSError as error:
            raise UserError(f"{root / found.path} cannot be read ({error.strerror}); mend or remove it") from error
    line.end()
    return files


def listed(where: str, state: str, read: Callable[[], Listing], *, cache_dir: Path) -> Listing:
    """The cached listing of ``where``; read anew, by one process at a time, if it is missing or of another state."""
    entry = cache_dir / "listings" / (hashlib.sha256(os.fsencode(where)).hexdigest()[:32] + ".json")
    listing = _load(entry, state)
    if listing is None:
        with locked(entry):
            listing = _load(entry, state)
            if listing is None:
                listing = read()
                _save(entry, state, listing)
    return listing


def file_state(path: Path) -> str:
    """What tells one state of a file from another: its size and its time of modification."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _load(entry: Path, state: str) -> Listing | None:
    """The cached listing, or None if there is none, it is of another state, or it is damaged."""
    try:
        saved = json.loads(entry.read_bytes())
        if (saved["version"], saved["state"]) == (_VERSION, state):
            images = [ImageFile(*row) for row in saved["images"]]
            return Listing(images, [OtherFile(*row) for row in saved["others"]], [])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # it is made anew
    return None


def _save(entry: Path, state: str, listing: Listing) -> None:
    saved = {"version": _VERSION, "state": state, "images": listing.images, "others": listing.others}
    aside(entry).write_text(json.dumps(saved))
    publish(entry)


def in_path_order(files: Iterable[ImageFile]) -> list[ImageFile]:
    """Sorted by path; of one path, as on unpacking, the last wins."""
    by_path = {file.path: file for file in files}
    return [by_path[path] for path in sorted(by_path)]
