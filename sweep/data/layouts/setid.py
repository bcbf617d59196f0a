"""Oxford Flowers-102: ``setid.mat`` and ``imagelabels.mat`` beside ``jpg/image_00001.jpg``.

The study uses the official training and validation parts, 1,020 images each ([H24]); the 6,149 of ``tstid`` are left
out.
"""

import numpy as np

from sweep.base.errors import UserError
from sweep.data.layouts.lists import listed_parts
from sweep.data.layouts.matlab import read_mat
from sweep.data.layouts.parts import Parts
from sweep.data.place import Place

_PARTS = {"train": "trnid", "test": "valid"}


def flowers(where: str, place: Place) -> Parts | None:
    """The parts of Flowers-102."""
    homes = place.homes("setid.mat", "imagelabels.mat")
    if not homes:
        return None
    place.load(homes[0] + "setid.mat", homes[0] + "imagelabels.mat")
    ids, labels_N = read_split(place.read(homes[0] + "setid.mat"), place.read(homes[0] + "imagelabels.mat"), where)
    listed = {
        part: [(f"jpg/image_{number:05d}.jpg", f"{labels_N[number - 1]:03d}") for number in numbers.tolist()]
        for part, numbers in ids.items()
    }
    return listed_parts(where, place, listed, layout="Flowers-102 (setid.mat: trnid and valid)", home=homes[0])


def read_split(setid: bytes, imagelabels: bytes, where: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Image numbers (from 1) of each part, and the class (from 1) of every image, shape (8189,)."""
    ids, labels = read_mat(setid, f"{where}: setid.mat"), read_mat(imagelabels, f"{where}: imagelabels.mat")
    if odd := [key for key in _PARTS.values() if key not in ids] + ["labels"] * ("labels" not in labels):
        raise UserError(f"{where}: setid.mat or imagelabels.mat has no {', '.join(odd)}; fetch them again")
    parts = {part: np.sort(ids[key].ravel().astype(np.int64)) for part, key in _PARTS.items()}
    labels_N = labels["labels"].ravel().astype(np.int64)
    if max(numbers.max() for numbers in parts.values()) > len(labels_N):
        raise UserError(f"{where}: setid.mat names images that imagelabels.mat has no class for; fetch both again")
    return parts, labels_N
