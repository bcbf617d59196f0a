"""What every layout gives: the samples of both parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sweep.data.dataset import Reader
from sweep.data.listing import ImageFile
from sweep.data.place import Place


class Sample(NamedTuple):
    """An image, its name below the root of the dataset, and its class."""

    file: ImageFile
    name: str
    class_name: str


class MakesReader(Protocol):
    """Gives the reader of some samples whose pixels stand in no image file."""

    def __call__(self, samples: Sequence[Sample]) -> Reader:
        """Their reader."""
        ...


@dataclass(frozen=True)
class Parts:
    """The samples of a dataset.

    Attributes
    ----------
    test : None where there is no split, so that one is cut.
    layout : how they were found, for people.
    notes : what a person should know.
    reader : where the samples are no image files.
    """

    train: list[Sample]
    test: list[Sample] | None
    layout: str
    notes: tuple[str, ...] = ()
    reader: MakesReader | None = None


class Layout(Protocol):
    """Finds a dataset's parts in a place, or None if the place is not laid out so."""

    def __call__(self, where: str, place: Place) -> Parts | None:
        """``where`` begins messages."""
        ...
