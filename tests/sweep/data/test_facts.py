"""Fact sheets: one for every dataset of the study, complete and consistent in itself."""

from pathlib import Path

import pytest

from sweep.data.facts import DATASETS, sheets
from sweep.data.facts.sheet import read_sheet
from sweep.data.options import TORCHVISION
from sweep.study.check import read_config
from sweep.study.resolve import sizes

ROOT = Path(__file__).resolve().parents[3]
STUDY = {  # protocol §7: classes, training and test images
    "imagenet100": (100, 126_689, 5_000),
    "cifar10": (10, 50_000, 10_000),
    "cifar100": (100, 50_000, 10_000),
    "imagenet1k": (1000, 1_281_167, 50_000),
    "ninco": (64, 4_705, 1_174),  # [H24] prints 4,702 and 1,176; all 5,879 images of its list are used here
    "imagenet_r": (200, 24_000, 6_000),
    "cub200": (200, 5_994, 5_794),
    "aircraft": (100, 6_667, 3_333),
    "flowers102": (102, 1_020, 1_020),
    "pets": (37, 3_680, 3_669),
    "stl10": (10, 5_000, 8_000),
    "cinic10": (10, 90_000, 90_000),
}


def test_every_dataset_of_the_study_has_a_sheet():
    assert {name: (sheet.classes, sheet.train, sheet.test) for name, sheet in sheets().items()} == STUDY
    assert set(TORCHVISION) < set(STUDY) < set(DATASETS)


@pytest.mark.parametrize("name", STUDY)
def test_a_sheet_agrees_with_itself(name):
    sheet = sheets()[name]
    assert sheet.name == name
    assert all((sheet.title, sheet.split, sheet.licence, sheet.citation, sheet.homepage, sheet.sources, sheet.layouts))
    for part, (least, most) in sheet.per_class.items():
        total = getattr(sheet, part)
        assert least * sheet.classes <= total <= most * sheet.classes
    for names in filter(None, (sheet.class_names, sheet.wnids)):
        assert len(names) == len(set(names)) == sheet.classes
    assert sheet.total in (None, sheet.train + sheet.test)
    assert all(sheet.unique[part] <= getattr(sheet, part) for part in sheet.unique)
    assert {*sheet.concepts, *sheet.synonyms} <= set(sheet.class_names)
    assert all((copy.train, copy.test) != (sheet.train, sheet.test) for copy in sheet.copies)


def test_a_key_that_is_none_of_a_sheets_is_refused():
    text = next(Path(ROOT / "sweep/data/facts").glob("pets.yaml")).read_text(encoding="utf-8")
    assert read_sheet(text) == sheets()["pets"]
    with pytest.raises(TypeError, match="license"):
        read_sheet(text + "license: MIT\n")


def test_the_papers_imagenet_is_fifty_images_a_class():
    assert sizes(read_config(ROOT / "configs/paper.yaml"), "imagenet1k") == (1000, 50_000, 50_000)
