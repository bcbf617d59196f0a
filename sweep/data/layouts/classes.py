"""Class directories: ``train/CLASS/*`` beside a test part, or ``CLASS/*`` alone, below any number of single tops.

Split directories go by many names: Train and Test, training_set and test_set, seg_train/seg_train, Training and
Validation. What looks like splits or like images beside masks and is not understood is refused with what was seen.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from sweep.base.errors import UserError
from sweep.data.layouts.parts import Parts, Sample
from sweep.data.listing import ImageFile
from sweep.data.place import Place
from sweep.data.tree import UNREAD, suffix

_TRAIN = frozenset({"train", "training", "trn"})
# the first that is there is the test part
_TESTS = (("test", "testing", "tst"), ("val",), ("valid",), ("validation",), ("dev",), ("eval", "evaluation"))
_TEST_NAMES = "test, val, valid, validation"  # for people
_FILLERS = frozenset({"set", "seg", "data", "dataset", "images", "image", "imgs", "img", "split", "folder", "dir"})
_MASKS = re.compile(
    r"(masks?|labels?|annotations?|segmentations?|segmentationclass|segmentationobject|groundtruth|gt|trimaps?|edges)"
)
_PICTURES = re.compile(r"(images?|imgs?|jpegimages|photos|pictures|inputs?|originals?)")
_PART = re.compile(r"train|test|val|fold|split|part")  # in names of directories that all hold the same ones

_SHOWN = 10  # directories that are named

Row = tuple[str, ImageFile]  # path from the dataset's root on, file


def split_word(directory: str) -> str | None:
    """The split that a directory's name stands for: "train", or the word of its test part; None for anything else."""
    words = [word for word in re.split(r"[^a-z]+", directory.lower()) if word and word not in _FILLERS]
    if len(words) != 1:
        return None
    word = next((words[0].removesuffix(end) for end in ("set", "images", "data") if words[0].endswith(end)), words[0])
    if word in _TRAIN:
        return "train"
    return word if any(word in names for names in _TESTS) else None


def below_root(files: list[ImageFile]) -> list[Row]:
    """Paths from the dataset's root on: a single top directory with directories in it is stepped over."""
    rows = [(file.path, file) for file in files]
    while len({path.split("/", 1)[0] for path, _ in rows if "/" in path}) == 1:
        if not any(path.count("/") >= 2 for path, _ in rows):
            break
        rows = [(path.split("/", 1)[1], file) for path, file in rows if "/" in path]
    return rows


def class_directories(where: str, place: Place) -> Parts:
    """Train and test samples of class directories; test is None where there are no split directories.

    Raises
    ------
    UserError
        The top level looks like splits, or like images beside masks, and cannot be understood.
    """
    rows = below_root(place.images)
    _refuse_masks(where, rows, 0)
    tops = {name.split("/")[0] for name, _ in rows if name.count("/") >= 2}
    train, test = _split_directories(where, rows, tops)
    if train is None:
        _refuse_unread(where, place, rows, 0)
        return Parts(_samples(rows, 0), None, "class directories", _without_images(place, rows, 0))
    found = [_samples(inside, depth) for inside, depth in (_inside(rows, train), _inside(rows, str(test)))]
    _refuse_masks(where, *_inside(rows, train))
    _refuse_unread(where, place, *_inside(rows, train))
    rest = sorted(tops - {train, test})
    notes = [f"left out: directories {', '.join(rest)} beside {train} and {test}"] if rest else []
    notes += _without_images(place, *_inside(rows, train))
    return Parts(found[0], found[1], f"class directories in {train} and {test}", tuple(notes))


def _split_directories(where: str, rows: list[Row], tops: set[str]) -> tuple[str | None, str | None]:
    """The directories of the training and of the test part; (None, None) where the top level holds classes."""
    flat = {name.split("/")[0] for name, _ in rows if name.count("/") == 1} - tops
    if flat and not tops and len(flat) > 1 and all(split_word(name) for name in flat):
        raise UserError(f"{where}: {_seen(flat)} hold images but no class directories; expected train/CLASS/*")
    trains = sorted(name for name in tops if split_word(name) == "train")
    tests = {name: split_word(name) for name in sorted(tops) if split_word(name) not in (None, "train")}
    if not trains:
        if any(split_word(name.split("/")[1]) == "train" for name, _ in rows if name.count("/") >= 2):
            raise UserError(f"{where}: train/ lies beside {_seen(tops)}; give the directory that holds it")
        if tests and len(tests) == len(tops) and len(tops) > 1:
            raise UserError(f"{where}: {_seen(tops)} look like test parts and there is no training part")
        _refuse_parts(where, rows, tops)
        return None, None
    for words in _TESTS:
        if chosen := [name for name, word in tests.items() if word in words]:
            return _only(where, trains, "train"), _only(where, chosen, words[0])
    raise UserError(
        f"{where}: there is {trains[0]}/ but no test part; valid names: {_TEST_NAMES} (seen: {_seen(tops)}; or give "
        "the folder that holds the class directories, to have it split)"
    )


def _refuse_parts(where: str, rows: list[Row], tops: set[str]) -> None:
    """Directories called trainA and trainB, X_train and X_test, fold1 and fold2, with the same classes in each."""
    inside: dict[str, set[str]] = {top: set() for top in tops}
    for top, below, *_ in (name.split("/") for name, _ in rows if name.count("/") >= 2):
        inside[top].add(below)
    classes = next(iter(inside.values()), set())
    alike = len(classes) > 1 and all(found == classes for found in inside.values())
    if alike and len(tops) > 1 and all(_PART.search(top.lower()) for top in tops):
        raise UserError(
            f"{where}: {_seen(tops)} hold the same directories ({_seen(classes)}): they look like parts, not like "
            "classes; call them train and test, or give one of them"
        )


def _only(where: str, names: list[str], plain: str) -> str:
    """The one directory that stands for a part: the plain name, if several do."""
    if len(names) > 1 and plain not in names:
        raise UserError(f"{where}: {_seen(names)} all look like the same part; leave one of them")
    return plain if plain in names else names[0]


def _inside(rows: list[Row], part: str) -> tuple[list[Row], int]:
    """Rows of a part and the depth of their class; a part that lies in itself (seg_train/seg_train) is stepped into."""
    inside = [row for row in rows if row[0].startswith(part + "/")]
    depth = 1
    while True:
        names = {name.split("/")[depth] for name, _ in inside if name.count("/") > depth}
        deeper = any(name.count("/") > depth + 1 for name, _ in inside)
        if len(names) != 1 or not deeper or split_word(next(iter(names))) != split_word(part):
            return inside, depth
        depth += 1


def _samples(rows: list[Row], depth: int) -> list[Sample]:
    """Samples whose class is directory ``depth`` of their path, sorted by name."""
    kept = [(name, file) for name, file in sorted(rows, key=lambda row: row[0]) if name.count("/") > depth]
    return [Sample(file, name, name.split("/")[depth]) for name, file in kept]


def _refuse_masks(where: str, rows: list[Row], depth: int) -> None:
    tops = {name.split("/")[depth] for name, _ in rows if name.count("/") > depth}
    words = {top: re.sub(r"[^a-z]", "", top.lower()) for top in tops}
    masks = sorted(top for top, word in words.items() if _MASKS.fullmatch(word))
    pictures = sorted(top for top, word in words.items() if _PICTURES.fullmatch(word))
    if masks and pictures and len(masks) + len(pictures) == len(tops):
        raise UserError(
            f"{where}: {_seen(tops)} look like images beside their masks, not like classes; give the directory whose "
            "directories are classes"
        )


def _refuse_unread(where: str, place: Place, rows: list[Row], depth: int) -> None:
    """A class whose pictures have an ending that is not read must not vanish."""
    unread = {name: found for name, found in _bare(place, rows, depth).items() if found.keys() & UNREAD}
    if unread:
        raise UserError(
            f"{where}: directories without an image that can be read: {_endings(unread)}; convert or remove them"
        )


def _without_images(place: Place, rows: list[Row], depth: int) -> tuple[str, ...]:
    """A note of the directories beside the classes that hold files and no image."""
    bare = _bare(place, rows, depth)
    return (f"left out: directories without an image: {_endings(bare)}",) if bare else ()


def _bare(place: Place, rows: list[Row], depth: int) -> dict[str, Counter[str]]:
    """Directories beside the classes without an image, and of their files how many have which ending."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    if not rows:
        return found
    name, file = rows[0]
    above = file.path.removesuffix(name) + "".join(part + "/" for part in name.split("/")[:depth])
    classes = {row[0].split("/")[depth] for row in rows if row[0].count("/") > depth}
    for path in place.others:
        inside = path.removeprefix(above).split("/")
        if path.startswith(above) and len(inside) > 1 and inside[0] not in classes:
            found[inside[0]][suffix(path) or "no ending"] += 1
    return found


def _endings(found: dict[str, Counter[str]]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(f"{name} ({_counted(endings)})" for name, endings in sorted(found.items())[:_SHOWN]) + more


def _counted(endings: Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common())


def _seen(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")
