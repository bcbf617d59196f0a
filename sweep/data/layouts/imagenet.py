"""ILSVRC 2012: training images in class directories, validation images flat, their classes in a file.

That file is ``LOC_val_solution.csv`` (Kaggle) or the devkit's ground truth. Samples are named as in a copy with class
directories, ``val/n01440764/ILSVRC2012_val_00000293.JPEG``, so that all three are one dataset with one fingerprint.
"""

import re

from sweep.base.errors import UserError
from sweep.data.layouts.matlab import read_mat
from sweep.data.layouts.parts import Parts, Sample
from sweep.data.listing import ImageFile
from sweep.data.place import Place

_VAL = re.compile(r"(?:^|.*/)val/(ILSVRC2012_val_(\d{8})\.JPEG)$", re.IGNORECASE)
_TRAIN = re.compile(r"(?:^|.*/)train/((n\d{8})/[^/]+)$")
_SOLUTION, _TRUTH, _META = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def imagenet(where: str, place: Place) -> Parts | None:
    """The parts of ILSVRC with a flat ``val/``; None where validation images lie in class directories."""
    flat = [(match, file) for file in place.images if (match := _VAL.match(file.path))]
    if not flat:
        return None
    train = [Sample(file, f"train/{match[1]}", match[2]) for file in place.images if (match := _TRAIN.match(file.path))]
    class_of, how = _validation_classes(where, place)
    test = [_validation_sample(where, match[1], int(match[2]), file, class_of, how) for match, file in flat]
    kept = {sample.class_name for sample in train}
    by_name = [sorted(samples, key=lambda sample: sample.name) for samples in (train, test)]
    only = [sample for sample in by_name[1] if sample.class_name in kept]
    note = (f"left out: {len(test) - len(only)} validation images of classes without training images",)
    return Parts(by_name[0], only, f"ILSVRC 2012 ({how})", note if len(only) < len(test) else ())


def _validation_sample(
    where: str, name: str, number: int, file: ImageFile, class_of: dict[int, str], how: str
) -> Sample:
    if number not in class_of:
        raise UserError(f"{where}: {how} has no class for {file.path}; fetch that file again")
    return Sample(file, f"val/{class_of[number]}/{name}", class_of[number])


def _validation_classes(where: str, place: Place) -> tuple[dict[int, str], str]:
    """Synset of every validation image by its number, and where that stands."""
    if homes := place.homes(_SOLUTION):
        rows = [line.split(",", 1) for line in place.lines(homes[0] + _SOLUTION)[1:]]
        if any(len(row) < 2 or not re.match(r"n\d{8}", row[1]) for row in rows):
            raise UserError(f"{where}: {_SOLUTION} is not as Kaggle publishes it (ImageId,PredictionString)")
        return {int(row[0].rpartition("_")[2]): row[1][:9] for row in rows}, _SOLUTION
    if homes := place.homes(_TRUTH, _META):
        place.load(homes[0] + _TRUTH, homes[0] + _META)
        wnid_of = _synsets(where, place.read(homes[0] + _META))
        numbers = [int(line) for line in place.lines(homes[0] + _TRUTH)]
        return {image: wnid_of[number] for image, number in enumerate(numbers, 1)}, "the devkit's ground truth"
    raise UserError(
        f"{where}: val/ has no class directories; put {_SOLUTION} (Kaggle) or ILSVRC2012_devkit_t12/ (unpacked) beside "
        "it, or sort the images into class directories"
    )


def _synsets(where: str, meta: bytes) -> dict[int, str]:
    """ILSVRC2012_ID → wnid of the 1,000 leaves, from the devkit's meta.mat."""
    synsets = read_mat(meta, f"{where}: the devkit's meta.mat", squeeze_me=True).get("synsets", ())
    try:
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if not row["num_children"]}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{where}: the devkit's meta.mat holds no synsets ({error}); fetch it again") from error
