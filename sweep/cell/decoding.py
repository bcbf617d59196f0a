"""Decoding what cells will ask for, before they run: they would hold a GPU meanwhile, and wait for each other."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sweep import register
from sweep.base.errors import UserError
from sweep.base.line import duration
from sweep.base.spans import span
from sweep.base.store import Store
from sweep.cell.task import CellTask, library_of
from sweep.data import Library, Told, View
from sweep.study import Backbone, PlannedCell
from sweep.table import Progress
from sweep.train import cuts_crops


@dataclass(frozen=True)
class Wanted:
    """Images of a dataset under a view, or by a number (a resolution) those that random crops are cut from."""

    dataset: str
    view: View | int
    classes: int | None = None
    images_per_class: int | None = None

    @property
    def chosen(self) -> Mapping[str, int | None]:
        """Which classes and images."""
        return {"classes": self.classes, "images_per_class": self.images_per_class}

    @property
    def bytes_each(self) -> int:
        """Of an image, if all have one size; else 0."""
        return 3 * self.view.resolution**2 if isinstance(self.view, View) else 0


def wanted_images(cells: Iterable[PlannedCell]) -> list[Wanted]:
    """What these cells need, each once, in the order in which they need it."""
    found: dict[Wanted, None] = {}
    for cell in cells:
        backbone = cell.backbone
        if backbone.recipe is not None:
            found |= dict.fromkeys(_to_train(backbone))
        for planned in cell.curves:
            curve, view = planned.curve, planned.curve.backbone.view
            own = (
                curve.is_id or curve.shifted is not None
            )  # folders of shifted images are decoded when they are asked for
            found[_own(curve.backbone, view) if own else Wanted(curve.dataset, view)] = None
    return list(found)


def _own(backbone: Backbone, view: View | int) -> Wanted:
    return Wanted(backbone.id_dataset, view, backbone.id_classes, backbone.images_per_class)


def _to_train(backbone: Backbone) -> Iterable[Wanted]:
    yield _own(backbone, backbone.view)
    if cuts_crops(backbone):
        yield _own(backbone, backbone.resolution)


def decode(task: CellTask, cells: Iterable[PlannedCell], *, part: tuple[int, int] = (0, 1)) -> list[str]:
    """Decode on this machine what its cache lacks for these cells; returns why some could not be, for people.

    Parameters
    ----------
    part : which of how many parts of it; machines that share what they decode begin with different ones.

    Broken images are met again by the cells that need them, which record the failure. A cache with a limit is filled
    until what is needed first has made room: the rest is decoded by the cells when they get there.

    Raises
    ------
    UserError
        If the disk holds less than all of it, and the cache has no limit that would make room: nothing is decoded.
    """
    register.load(task.imports, task.import_path)
    library, wanted = library_of(task), wanted_images(cells)
    if task.cache_bytes is None:  # with a limit, what was used longest ago makes room
        _refuse_too_much(task, library, wanted)
    problems = []
    with Progress(Store(task.store_uri), f"decoding-{socket.gethostname()}", "images") as progress:
        told = replace(library, how=replace(library.how, told=_said(progress)))
        number, parts = part
        first_of_all: list[Wanted] = []
        for group in list(_of_one_selection(wanted))[number::parts]:
            if not all(_is_there(library, each) for each in first_of_all):  # it made room: it was used longest ago
                problems.append(f"{group[0].dataset} and what comes after it: cache_limit does not hold all at once")
                break
            try:
                with span("opening images", group[0].dataset):
                    told.decode(group[0].dataset, [each.view for each in group], **group[0].chosen)
                first_of_all = first_of_all or group
            except (UserError, OSError) as error:
                problems.append(f"{group[0].dataset}: {error}")
    return problems


def _of_one_selection(wanted: Iterable[Wanted]) -> Iterable[list[Wanted]]:
    """What differs in the view alone is decoded together: every image once, whatever the number of resolutions."""
    groups: dict[Wanted, list[Wanted]] = {}
    for each in wanted:
        groups.setdefault(replace(each, view=0), []).append(each)
    return groups.values()


def _is_there(library: Library, wanted: Wanted) -> bool:
    return not library.undecoded(wanted.dataset, wanted.view, **wanted.chosen)


def _said(progress: Progress) -> Told:
    def said(what: str, done: int, total: int, rate: float) -> None:
        """One note in a few seconds."""
        left = duration((total - done) / rate) if rate else "?"
        progress.say("decoding", done, total, detail=f"{what}: {rate:,.0f} images/s, {left} left")

    return said


def _refuse_too_much(task: CellTask, library: Library, wanted: Iterable[Wanted]) -> None:
    """What is known of the room that all of it takes, before hours are spent on a part."""
    needed = 0
    for each in wanted:
        try:
            missing = library.undecoded(each.dataset, each.view, **each.chosen)
        except (UserError, OSError):  # the cells that need it say so
            continue
        needed += each.bytes_each * sum(missing.values())
    place = Path(task.cache_dir)
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{socket.gethostname()}: the images of this sweep take {needed / 1e9:.3g} GB more in {place}, where "
            f"{free / 1e9:.3g} GB are free: make room (python -m sweep.data cache --keep GB) or set cache_dir elsewhere"
        )
