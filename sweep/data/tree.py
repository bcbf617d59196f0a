"""What lies below a folder: images, other files, links that lead nowhere; one pass, nothing is read."""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from sweep.base.errors import UserError

# What Pillow reads, fixed here: which files make a dataset must not depend on Pillow's version.
_READ = (
    ".apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico "
    ".iim .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm "
    ".psd .pxr .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm"
)
# Pictures that Pillow does not read, or not without another program: a class of these must not vanish.
_NOT_READ = (
    ".heic .heif .hif .jxl .svg .eps .ps .wmf .emf .ai .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .exr .hdr .npy "
    ".npz .mat .dcm .nii .mp4 .avi .mov .webm .mpg .mpeg .pdf .bufr .grib .djvu .h5 .hdf .hdf5"
)
EXTENSIONS, UNREAD = frozenset(_READ.split()), frozenset(_NOT_READ.split())


class Found(NamedTuple):
    """A file of a tree: path relative to its root, bytes, time of modification in ns."""

    path: str
    size: int
    time: int


class Tree(NamedTuple):
    """What :func:`scan` saw, each sorted by path.

    Attributes
    ----------
    dangling : symbolic links that lead nowhere.
    directories : every directory that was looked into, with the time of its modification in ns.
    """

    images: list[Found]
    others: list[Found]
    dangling: list[str]
    directories: list[tuple[str, int]]

    @property
    def state(self) -> str:
        """What tells one state of the tree's images from another: their paths, sizes and times."""
        return state_of(self.images)


def state_of(files: list[Found]) -> str:
    """A digest of the paths, sizes and times of files."""
    lines = "".join(f"{path}\0{size}\0{time}\n" for path, size, time in files)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def suffix(path: str) -> str:
    """The lower-case ending of a file's name with its dot, or ""."""
    name = path.rpartition("/")[2]
    before, dot, ending = name.rpartition(".")
    return (dot + ending).lower() if before else ""


def is_image(path: str) -> bool:
    """Image by its ending, and neither hidden nor below a hidden or ``__MACOSX`` directory."""
    return suffix(path) in EXTENSIONS and not is_hidden(path)


def is_hidden(path: str) -> bool:
    """Whether a part of a path is hidden, or macOS's."""
    return any(_skipped(part) for part in path.split("/"))


def _skipped(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def scan(root: Path) -> Tree:
    """Everything below a folder, links followed; hidden files and directories are passed by.

    Raises
    ------
    UserError
        A directory that may not be read, or a link that leads back to a directory above it.
    """
    tree = Tree([], [], [], [])
    _look(str(root), "", (), tree)
    for part in tree:
        part.sort()
    return tree


def _look(directory: str, relative: str, above: tuple[tuple[int, int], ...], tree: Tree) -> None:
    """Add what lies in a directory and below; ``above`` are those on the way, by device and inode."""
    try:
        here = os.stat(directory)
        with os.scandir(directory) as listing:
            entries = [entry for entry in listing if not _skipped(entry.name)]
    except OSError as error:
        raise UserError(f"{directory} cannot be read ({error.strerror}); mend its rights, or leave it out") from error
    way = (*above, (here.st_dev, here.st_ino))
    if way[-1] in above:
        raise UserError(f"{directory} is a link to a directory above it; remove it")
    tree.directories.append((directory, here.st_mtime_ns))
    for entry in entries:
        path = relative + entry.name
        if entry.is_dir():
            _look(entry.path, path + "/", way, tree)
            continue
        try:
            status = entry.stat()
        except OSError:  # a link to nowhere, or to itself
            tree.dangling.append(path)
            continue
        if stat.S_ISREG(status.st_mode):
            kept = tree.images if suffix(entry.name) in EXTENSIONS else tree.others
            kept.append(Found(path, status.st_size, status.st_mtime_ns))
