"""The original files of the study's datasets, told by the list files that lie in them."""

from collections.abc import Mapping

from sweep.base.errors import UserError
from sweep.data.layouts.binaries import cifar_binaries, stl10_binaries
from sweep.data.layouts.imagenet import imagenet
from sweep.data.layouts.lists import listed_parts, pairs_of
from sweep.data.layouts.parts import Layout, Parts, Sample
from sweep.data.layouts.setid import flowers
from sweep.data.place import Place


def original(where: str, place: Place) -> Parts | None:
    """The parts of a place that is laid out like one of the originals; None if it is not."""
    for layout in LAYOUTS.values():
        if parts := layout(where, place):
            return parts
    return None


def cub(where: str, place: Place) -> Parts | None:
    """CUB-200-2011: numbered images, classes and parts in four lists."""
    lists = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    homes = place.homes(*lists)
    if not homes:
        return None
    home = homes[0]
    place.load(*(home + name for name in lists))
    path_of, label_of, is_train, class_of = (dict(pairs_of(where, place, home + name)) for name in lists)
    if odd := set(path_of) - set(label_of) | set(path_of) - set(is_train):
        raise UserError(
            f"{where}: {len(odd)} images of images.txt have no class or no part, the first is {path_of[min(odd)]}; "
            "fetch the four lists again"
        )
    listed: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for number, path in path_of.items():
        part = "train" if is_train[number] == "1" else "test"
        listed[part].append((f"images/{path}", class_of[label_of[number]]))
    parts = listed_parts(where, place, listed, layout="CUB-200-2011 (list files)", home=home)
    unknown = len(set(is_train) - set(path_of))
    note = (f"train_test_split.txt has {unknown} lines for images that images.txt does not name",) if unknown else ()
    return Parts(parts.train, parts.test, parts.layout, (*parts.notes, *note))


def aircraft(where: str, place: Place) -> Parts | None:
    """FGVC-Aircraft: a list of variants per part; two of their names hold a slash, so that they are no directories."""
    lists = {"train": "images_variant_trainval.txt", "test": "images_variant_test.txt"}
    homes = place.homes(*lists.values())
    if not homes:
        return None
    place.load(*(homes[0] + name for name in lists.values()))
    listed = {
        part: [(f"images/{number}.jpg", variant) for number, variant in pairs_of(where, place, homes[0] + name)]
        for part, name in lists.items()
    }
    return listed_parts(where, place, listed, layout="FGVC-Aircraft (variants)", home=homes[0])


def pets(where: str, place: Place) -> Parts | None:
    """Oxford-IIIT Pets: ``annotations/trainval.txt`` and ``test.txt``; the class is the name without its number."""
    lists = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
    homes = place.homes(*lists.values())
    if not homes:
        return None
    place.load(*(homes[0] + name for name in lists.values()))
    listed = {
        part: [(f"images/{row[0]}.jpg", row[0].rpartition("_")[0]) for row in pairs_of(where, place, homes[0] + name)]
        for part, name in lists.items()
    }
    return listed_parts(where, place, listed, layout="Oxford-IIIT Pets (list files)", home=homes[0])


def ninco(where: str, place: Place) -> Parts | None:
    """NINCO: of the three trees in its archive, the one of the 64 classes; it has no split."""
    tree = "NINCO_OOD_classes/"
    inside = [(file.path.partition(tree), file) for file in place.images]
    samples = [
        Sample(file, below, below.split("/")[0])
        for (above, found, below), file in inside
        if found and "/" in below and (not above or above.endswith("/"))
    ]
    if not samples:
        return None
    rest = len(place.images) - len(samples)
    note = (f"left out: {rest} images of the archive's other trees",) if rest else ()
    return Parts(sorted(samples, key=lambda sample: sample.name), None, "NINCO (its 64 classes)", note)


LAYOUTS: Mapping[str, Layout] = {
    "cub": cub,
    "aircraft": aircraft,
    "flowers": flowers,
    "pets": pets,
    "ninco": ninco,
    "imagenet": imagenet,
    "stl10": stl10_binaries,
    "cifar": cifar_binaries,
}
