"""A dataset that is some synsets of another: ImageNet-100 read from a copy of ImageNet-1K."""

from sweep.data.facts.sheet import sheets
from sweep.data.layouts.parts import Parts


def only_sheets_classes(name: str, parts: Parts) -> Parts:
    """The parts with the classes of the dataset's fact sheet, where its synsets are some of those that are there."""
    sheet = sheets().get(name)
    wanted = set(sheet.wnids) if sheet else set()
    found = {sample.class_name for sample in parts.train}
    if not wanted or not wanted < found:
        return parts
    train = [sample for sample in parts.train if sample.class_name in wanted]
    test = None if parts.test is None else [sample for sample in parts.test if sample.class_name in wanted]
    note = f"{len(wanted)} of {len(found)} class directories: the synsets of {name}"
    return Parts(train, test, parts.layout, (*parts.notes, note), parts.reader)
