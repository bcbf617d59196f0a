"""A folder or a tar archive with its files listed: images are read in storage order, other files by name.

Legend: N images.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from sweep.base.errors import UserError
from sweep.data.archive import list_tar, open_tar
from sweep.data.dataset import Decode
from sweep.data.decode import decode_image
from sweep.data.listing import ImageFile, Listing, OtherFile, list_tree
from sweep.data.options import Background
from sweep.data.tree import suffix


@dataclass(frozen=True, eq=False)
class Place:
    """Where a dataset lies, and what lies there."""

    path: Path
    listing: Listing

    @property
    def images(self) -> list[ImageFile]:
        """Sorted by path."""
        return self.listing.images

    @cached_property
    def others(self) -> dict[str, OtherFile]:
        """Files that are no images, by path."""
        return {file.path: file for file in self.listing.others}

    @property
    def is_tree(self) -> bool:
        """A folder, or else an archive."""
        return self.path.is_dir()

    def homes(self, *marks: str) -> list[str]:
        """Directories (``""`` or with a final ``/``) that hold all these files, the topmost first."""
        first = marks[0]
        found = [path.removesuffix(first) for path in self.others if path == first or path.endswith("/" + first)]
        whole = [home for home in found if all(home + mark in self.others for mark in marks)]
        return sorted(whole, key=lambda home: (home.count("/"), home))

    @cached_property
    def _loaded(self) -> dict[str, bytes]:
        return {}

    def load(self, *names: str) -> None:
        """Have :meth:`read` find these files of an archive in one pass; a compressed one is slow to go back in."""
        if self.is_tree:
            return
        with open_tar(self.path) as stream:
            for name in sorted(names, key=lambda name: self.others[name].offset):
                stream.seek(self.others[name].offset)
                self._loaded[name] = stream.read(self.others[name].size)

    def read(self, name: str) -> bytes:
        """The bytes of a file that is no image."""
        if self.is_tree:
            return (self.path / name).read_bytes()
        if name not in self._loaded:
            self.load(name)
        return self._loaded.pop(name)  # read once: some are large

    def lines(self, name: str) -> list[str]:
        """The lines of a text file, without empty ones."""
        try:
            text = self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: {name} is no text in UTF-8; fetch it again") from error
        return [line.strip() for line in text.splitlines() if line.strip()]

    def left_out(self) -> tuple[str, ...]:
        """Sentences about files that no class got: links to nowhere, endings that are no image's."""
        endings = Counter(suffix(path) or "no ending" for path in self.others)
        listed = ", ".join(f"{count} with {ending}" for ending, count in endings.most_common(8))
        notes = [f"{len(self.others)} files are no images: {listed}"] if endings else []
        if dangling := self.listing.dangling:
            notes.append(f"{len(dangling)} images are links to nowhere, left out: {', '.join(dangling[:5])}")
        return tuple(notes)


def open_place(path: Path, *, cache_dir: Path) -> Place:
    """List a folder or archive; every image is read once, then its listing is cached.

    Raises
    ------
    UserError
        Nothing at ``path``, not a tar archive, damaged, or links that lead nowhere.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of an image folder or of a .tar / .tar.gz of one")
    listing = list_tree(path, cache_dir=cache_dir) if path.is_dir() else list_tar(path, cache_dir=cache_dir)
    return Place(path, listing)


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Decodes images of a folder or archive."""

    path: Path
    files: Sequence[ImageFile]
    background: Background = "white"

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        """Images with their indices in the order they are stored, or why one cannot be decoded."""
        return ((index, decode()) for index, decode in self.read_lazily(indices))

    def read_lazily(self, indices: Iterable[int]) -> Iterator[tuple[int, Decode]]:
        """Files of a folder are read by whoever decodes them, those of an archive in one pass before that."""
        order = sorted(indices, key=lambda index: (self.files[index].offset, self.files[index].path))
        if self.path.is_dir():
            for index in order:
                yield index, functools.partial(_decode_file, self.path / self.files[index].path, self.background)
            return
        with open_tar(self.path) as stream:
            for index in order:  # by offset: one pass forward through a compressed archive
                stream.seek(self.files[index].offset)
                yield index, functools.partial(decode_image, stream.read(self.files[index].size), self.background)


def _decode_file(file: Path, background: Background) -> Image.Image | Exception:
    """Of the module, not of a reader: what is sent to another process is a path, not a list of all files."""
    return decode_image(file.read_bytes(), background)
