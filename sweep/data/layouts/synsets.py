"""A dataset that is some classes of another: ImageNet-100 read from a copy of ImageNet-1K, or a branch of WordNet.

ILSVRC's synsets are numbered as WordNet's files list them, so that many branches are a range of sorted names: domestic
dogs are n02085620 to n02113978 (118 classes), animals all up to n02655020 (398).
"""

from collections.abc import Sequence

from sweep.base.errors import UserError
from sweep.data.facts.sheet import sheets
from sweep.data.layouts.parts import Parts


def only_sheets_classes(name: str, parts: Parts) -> Parts:
    """The parts with the classes of the dataset's fact sheet, where its synsets are some of those that are there."""
    sheet = sheets().get(name)
    wanted = set(sheet.wnids) if sheet else set()
    found = {sample.class_name for sample in parts.train}
    if not wanted or not wanted < found:
        return parts
    return _kept(parts, wanted, f"{len(wanted)} of {len(found)} class directories: the synsets of {name}")


def only_asked_classes(where: str, parts: Parts, only: Sequence[str]) -> Parts:
    """The parts with the classes that a config names, each alone or as first..last in the order of names; none: all.

    Raises
    ------
    UserError
        If a name or range means none of the classes.
    """
    found = sorted({sample.class_name for sample in parts.train})
    wanted: set[str] = set()
    for word in only:
        first, dots, last = word.partition("..")
        own = [name for name in found if first <= name <= last] if dots else [word] if word in found else []
        if not own:
            raise UserError(f"{where}: only: {word} is none of its {len(found)} classes: {', '.join(found[:5])} …")
        wanted |= set(own)
    return _kept(parts, wanted, f"{len(wanted)} of {len(found)} classes, as only: says") if only else parts


def _kept(parts: Parts, wanted: set[str], note: str) -> Parts:
    train = [sample for sample in parts.train if sample.class_name in wanted]
    test = None if parts.test is None else [sample for sample in parts.test if sample.class_name in wanted]
    return Parts(train, test, parts.layout, (*parts.notes, note), parts.reader)
