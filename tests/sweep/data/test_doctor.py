"""The doctor: damaged copies of every kind are told from whole ones; classes that two datasets share."""

import io
import shutil
import tarfile
from dataclasses import replace

import pytest
from PIL import Image

from sweep.data.__main__ import main
from sweep.data.copies import difference_hash, near_pairs, thumbnail
from sweep.data.doctor import examine, overlaps
from sweep.data.facts import Archive, Copy, sheets
from sweep.data.listing import hashlib
from sweep.data.looks import looks
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from tests.original_layouts import LAYOUTS, cub200, pixels, put_image
from tests.shared_files import STUDY, needs_study


def sheet_of(layout, **facts):
    """The sheet of a dataset with the numbers of its small copy."""
    _, classes, train, test = LAYOUTS[layout]
    small = {
        "classes": classes,
        "train": train,
        "test": test,
        "per_class": {},
        "unique": {"train": train, "test": test},
    }
    more = {"total": None, "sides": None, "archives": (), "copies": (), "class_names": (), "wnids": ()}
    return replace(sheets()[layout.split()[0]], **small | more | facts)


def said(root, tmp_path, sheet, **options):
    options = DatasetOptions("folder", path=str(root), **options)
    report = examine(sheet.name, options, cache_dir=tmp_path / "cache", sheet=sheet, everything=True)
    return report.is_sound, [f"{finding.level}: {finding.text}" for finding in report.findings]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_copy_of_every_layout_is_sound(layout, tmp_path):
    root = LAYOUTS[layout][0](tmp_path / "data")
    sound, lines = said(root, tmp_path, sheet_of(layout))
    assert sound, lines
    assert not [line for line in lines if line.startswith("warning")]


def images_of(root):
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def lose_a_class(root):
    shutil.rmtree(root / "CUB_200_2011/images/003.Sooty_Albatross")


def truncate_an_image(root):
    file = images_of(root)[0]
    file.write_bytes(file.read_bytes()[:200])


def follow_another_split(root):
    file = root / "CUB_200_2011/train_test_split.txt"
    rows = [line.split() for line in file.read_text().splitlines()]
    file.write_text("".join(f"{number} {int(int(number) % 3 > 0)}\n" for number, _ in rows))


def lose_a_line_of_the_split(root):
    file = root / "CUB_200_2011/train_test_split.txt"
    file.write_text(file.read_text().partition("\n")[2])


def copy_a_training_image(root):
    first, second = images_of(root)[:2]  # training and test alternate
    shutil.copy(first, second)


def turn_an_image_into_another_encoding(root):
    first, second = images_of(root)[:2]
    smooth = Image.fromarray(pixels(5, 6)).resize((120, 120), Image.Resampling.BICUBIC)
    smooth.save(first, quality=95)
    smooth.resize((100, 100)).save(second, quality=70)


@pytest.mark.parametrize(
    ("damage", "level", "says"),
    [
        (lose_a_class, "fault", "2 classes, the sheet has 3"),
        (lose_a_class, "warning", "1 classes of the sheet are not there, as 003.Sooty_Albatross"),
        (lose_a_class, "note", "left out: 1 classes of the lists without an image here"),
        (truncate_an_image, "fault", "1 of 9 images cannot be read: images/001.Black_footed_Albatross"),
        (follow_another_split, "fault", "train: 3 classes have not the sheet's 3 to 3 images"),
        (lose_a_line_of_the_split, "fault", "1 images of images.txt have no class or no part"),
        (copy_a_training_image, "fault", "1 test images are training images, to the byte"),
        (turn_an_image_into_another_encoding, "warning", "1 test images look like training images"),
    ],
)
def test_damage_is_found_and_named(tmp_path, damage, level, says):
    root = cub200(tmp_path / "data")
    damage(root)
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    facts = {"per_class": {"train": (3, 3), "test": (3, 3)}, "class_names": names}
    sound, lines = said(root, tmp_path, sheet_of("cub200", **facts))
    assert any(line.startswith(f"{level}: ") and says in line for line in lines), lines
    assert sound == (level == "warning" and damage is not lose_a_class)


def test_two_processes_see_what_one_sees(tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.data.parallel._TRIAL_SECONDS", 0.0)
    monkeypatch.setattr("sweep.data.parallel._WORTH_SECONDS", 1e-9)
    root = cub200(tmp_path / "data")
    truncate_an_image(root)
    Image.new("RGB", (40, 30), "red").save(images_of(root)[1])
    dataset = open_dataset("cub", DatasetOptions("folder", path=str(root)), cache_dir=tmp_path / "cache")
    found = [
        [look for part in (dataset.train, dataset.test) for look in looks(part, range(len(part)), processes=number)]
        for number in (1, 2)
    ]
    assert list(map(repr, found[0])) == list(map(repr, found[1]))
    assert [name for name, look in found[0] if isinstance(look, str)] == [split_name(root, 0)]
    assert [name for name, look in found[0] if not isinstance(look, str) and look.flat] == [split_name(root, 1)]


def split_name(root, number):
    return str(images_of(root)[number].relative_to(root / "CUB_200_2011"))


def test_upper_case_endings_and_macos_files_do_no_harm(tmp_path):
    root = LAYOUTS["imagenet_r"][0](tmp_path / "data")
    for file in images_of(root):
        file.rename(file.with_suffix(".JPG"))
        file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07 macOS")
    (root / "__MACOSX").mkdir()
    put_image(root / "__MACOSX/imagenet-r/n01443537/x.jpg", 1)
    sound, lines = said(root, tmp_path, sheet_of("imagenet_r"))
    assert sound, lines


def test_a_known_copy_that_is_not_the_official_set_is_named(tmp_path):
    root = LAYOUTS["pets"][0](tmp_path / "data")
    sheet = sheet_of("pets", train=10, test=8, unique={}, copies=(Copy("the Hub's copy", 12, 6),))
    sound, lines = said(root, tmp_path, sheet)
    assert not sound
    assert "fault: 12 + 6 images: not the official set but the Hub's copy" in lines


def test_exchanged_parts_and_a_jpeg_copy_of_a_lossless_set(tmp_path):
    root = tmp_path / "data"
    for part, count in (("train", 2), ("test", 3)):
        for label in range(10):
            for number in range(count):
                put_image(root / part / sheets()["cifar10"].class_names[label] / f"{number}.jpg", 50 * label + number)
    sheet = sheet_of("cifar10", classes=10, train=30, test=20, unique={})
    _, lines = said(root, tmp_path, sheet)
    assert "fault: the training and the test part are exchanged" in lines
    assert "warning: 50 images are JPEG: re-encoded, not the pixels of the original" in lines


def test_an_archive_of_another_hash_is_repacked_or_wrong(tmp_path):
    root = cub200(tmp_path / "data")
    archive = tmp_path / "CUB_200_2011.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, ".")
    size, digest = archive.stat().st_size, hashlib.sha256(archive.read_bytes()).hexdigest()
    right = Archive("CUB_200_2011.tgz", bytes=size, sha256=digest)
    assert said(archive, tmp_path, sheet_of("cub200", archives=(right,)))[0]
    other = replace(right, sha256="0" * 64)
    sound, lines = said(archive, tmp_path, sheet_of("cub200", archives=(other,)))
    assert sound
    assert any(line.startswith("warning: ") and "repacked by a host?" in line for line in lines)
    sound, lines = said(archive, tmp_path, sheet_of("cub200", archives=(replace(right, bytes=size + 1),), train=10))
    assert not sound
    assert any(line.startswith("fault: ") and "the publisher's has" in line for line in lines)


def test_near_pairs_are_the_same_picture_and_no_other():
    pictures = [Image.fromarray(pixels(seed, 7)).resize((160, 120), Image.Resampling.BICUBIC) for seed in range(60)]

    def marked(images):
        return [(str(number), difference_hash(image), thumbnail(image)) for number, image in enumerate(images)]

    def encoded(image):
        out = io.BytesIO()
        image.resize((96, 72)).save(out, "JPEG", quality=60)
        return Image.open(out)

    assert near_pairs(marked(pictures), marked(map(encoded, pictures))) == [(str(n), str(n)) for n in range(60)]
    assert near_pairs(marked(pictures[:30]), marked(pictures[30:])) == []
    flat = [Image.new("RGB", (20, 20), (grey,) * 3) for grey in (10, 200)]
    assert near_pairs(marked(flat), marked(flat)) == []


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("cifar10", "stl10", 9),
        ("imagenet100", "imagenet_r", 19),
        ("imagenet1k", "imagenet_r", 200),
        ("cifar10", "cinic10", 10),
        ("cifar10", "cifar100", 0),
        ("imagenet1k", "imagenet100", 100),
    ],
)
def test_classes_that_two_datasets_share(one, other, count):
    lines = [finding.text for finding in overlaps({one: None}, {other: None})]
    assert bool(lines) == bool(count)
    assert all(f"{other} shares {count} of its" in line for line in lines)


def test_pets_share_breeds_with_imagenet():
    """21 of the 25 dog breeds and two of the 12 of cats; each concept is a class of ImageNet-1K."""
    concepts = sheets()["pets"].concepts
    assert set(concepts) <= set(sheets()["pets"].class_names)
    assert set(concepts.values()) <= set(sheets()["imagenet1k"].wnids)
    assert len(set(concepts.values())) == len(concepts) == 23
    (finding,) = overlaps({"imagenet1k": None}, {"pets": None})
    assert "shares 23 of its 37 classes" in finding.text


def test_a_drawing_in_the_colour_of_its_background_is_noticed(tmp_path):
    root = LAYOUTS["imagenet_r"][0](tmp_path / "data")
    file = images_of(root)[0]
    file.unlink()
    Image.new("RGBA", (20, 20), (255, 255, 255, 0)).save(file.with_suffix(".png"))
    _, lines = said(root, tmp_path, sheet_of("imagenet_r"))
    assert any("images are of one flat colour, as" in line for line in lines), lines
    assert any("pixels 2 on white" in line for line in lines), lines


def test_the_doctor_fetches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", lambda self: pytest.fail("the doctor fetched files"))
    options = DatasetOptions("torchvision", generator="cifar10", path=str(tmp_path), download=True)
    (finding,) = examine("cifar10", options, cache_dir=tmp_path / "cache").findings
    assert "no directory cifar-10-batches-py" in finding.text
    (finding,) = examine("ninco", DatasetOptions("folder"), cache_dir=tmp_path / "cache").findings
    assert "python -m sweep.data fetch ninco --to DIR gets it" in finding.text


def test_exit_codes_for_scripts(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TUNNEL_SWEEP_CACHE", str(tmp_path / "cache"))
    root = LAYOUTS["imagenet_r"][0](tmp_path / "data")
    assert main(["ls"]) == 0
    assert "imagenet_r" in capsys.readouterr().out
    assert main(["check", "mine", "--path", str(root)]) == 0
    assert main(["check", "imagenet_r", "--path", str(root)]) == 1
    assert "3 classes, the sheet has 200" in capsys.readouterr().out
    assert main(["check"]) == 2
    assert main(["fetch", "nothing", "--to", str(tmp_path)]) == 2
    assert main(["cache"]) == 0
    assert "listings: 1 entries" in capsys.readouterr().out
    kept = tmp_path / "cache" / "embeddings" / "0a.train.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(bytes(2 * 10**7))
    assert main(["cache", "--keep", "-1"]) == main(["cache", "--older-than", "nan"]) == 2
    assert "--keep -1: it takes a number from 0 on" in capsys.readouterr().err
    assert main(["cache", "--keep", "0"]) == 0  # of images
    assert "embeddings: 1 entries, 0.02 GB" in capsys.readouterr().out
    assert main(["cache", "--older-than", "0"]) == 0
    assert not kept.exists()
    assert "listings: 0 entries" in capsys.readouterr().out


def test_a_config_is_examined_whole(tmp_path, capsys):
    for name in ("a", "b"):
        for label in ("cat", "dog", name):
            for number in range(4):
                put_image(tmp_path / name / label / f"{number}.png", hash((name, label)) % 1000 + number)
    (tmp_path / "c.yaml").write_text(
        f"name: t\ncache_dir: {tmp_path / 'cache'}\nprobe_datasets: [b]\n"
        f"datasets: {{a: {{path: {tmp_path / 'a'}}}, b: {{path: {tmp_path / 'b'}}}}}\n"
        "grid: [{architecture: vggm11, id_dataset: a}]\n"
    )
    assert main(["check", "--config", str(tmp_path / "c.yaml")]) == 0
    text = capsys.readouterr().out
    assert "a: sound" in text
    assert "warning: b shares 2 of its 3 classes with a: cat, dog" in text
    assert main(["check", "--config", str(tmp_path / "c.yaml"), "--strict"]) == 1


@needs_study
def test_the_doctor_on_a_real_copy_of_fifty_classes(tmp_path):
    path = STUDY / "images/cub200_first50_128px.tar.gz"
    report = examine("cub200", DatasetOptions("folder", path=str(path)), cache_dir=tmp_path)
    lines = [finding.text for finding in report.findings]
    assert not report.is_sound
    assert "50 classes, the sheet has 200" in lines
    assert any("150 classes of the sheet are not there" in line for line in lines)
    assert not any("cannot be read" in line for line in lines)
