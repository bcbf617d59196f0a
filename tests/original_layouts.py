"""Small files laid out exactly like the originals of the study's datasets; each function returns the path to give."""

import io

import numpy as np
from PIL import Image
from scipy.io import savemat


def pixels(seed, side=12):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def put_image(path, seed):
    """An image that the seed decides; its bytes end with the seed, so that no two files are the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    out = io.BytesIO()
    Image.fromarray(pixels(seed)).save(out, kind)
    path.write_bytes(out.getvalue())


def put_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def cub200(root):
    """Three classes; training and test images alternate."""
    home = root / "CUB_200_2011"
    classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    names = [f"{name}/{name[4:]}_{number:04d}_{number}.jpg" for name in classes for number in range(1, 7)]
    for number, name in enumerate(names, 1):
        put_image(home / "images" / name, number)
    put_lines(home / "images.txt", [f"{i} {name}" for i, name in enumerate(names, 1)])
    put_lines(home / "image_class_labels.txt", [f"{i} {(i - 1) // 6 + 1}" for i in range(1, 19)])
    put_lines(home / "train_test_split.txt", [f"{i} {i % 2}" for i in range(1, 19)])
    put_lines(home / "classes.txt", [f"{i} {name}" for i, name in enumerate(classes, 1)])
    put_lines(home / "attributes/attributes.txt", ["1 has_bill_shape::curved_(up_or_down)"])
    put_lines(root / "attributes.txt", ["1 has_bill_shape::curved_(up_or_down)"])
    return root


def aircraft(root):
    """Two variants with a slash and one with a blank."""
    home = root / "fgvc-aircraft-2013b" / "data"
    variants = ["An-12", "F-16A/B", "F/A-18", "Boeing 717"]
    put_lines(home / "variants.txt", variants)
    rows = {part: [] for part in ("train", "val", "trainval", "test")}
    for number in range(32):
        put_image(home / "images" / f"{1000000 + number}.jpg", number)
        part = ("train", "val", "test", "test")[number // 4 % 4]
        rows[part].append(f"{1000000 + number} {variants[number % 4]}")
    rows["trainval"] = rows["train"] + rows["val"]
    for part, lines in rows.items():
        put_lines(home / f"images_variant_{part}.txt", lines)
        put_lines(home / f"images_{part}.txt", [line.split()[0] for line in lines])
    put_lines(root / "fgvc-aircraft-2013b" / "README.md", ["FGVC-Aircraft"])
    return root / "fgvc-aircraft-2013b"


def flowers102(root):
    """Three classes of six images: two in each of the three parts."""
    labels = np.repeat([1, 2, 3], 6)
    for number in range(1, 19):
        put_image(root / "jpg" / f"image_{number:05d}.jpg", number)
    ids = {key: np.array([[i for i in range(1, 19) if i % 3 == rest]]) for key, rest in PARTS_OF_SETID.items()}
    savemat(root / "setid.mat", ids)
    savemat(root / "imagelabels.mat", {"labels": labels[None]})
    return root


PARTS_OF_SETID = {"trnid": 1, "valid": 2, "tstid": 0}


def pets(root):
    breeds = ["Abyssinian", "american_bulldog", "yorkshire_terrier"]
    rows = {"trainval": [], "test": []}
    for label, breed in enumerate(breeds, 1):
        for number in range(1, 7):
            put_image(root / "images" / f"{breed}_{number}.jpg", 10 * label + number)
            rows["test" if number > 4 else "trainval"].append(f"{breed}_{number} {label} 1 {label}")
    for part, lines in rows.items():
        put_lines(root / "annotations" / f"{part}.txt", lines)
    put_lines(root / "annotations" / "list.txt", ["#Image CLASS-ID SPECIES BREED ID", *rows["trainval"], *rows["test"]])
    put_image(root / "annotations/trimaps/Abyssinian_1.png", 0)
    put_image(root / "annotations/trimaps/._Abyssinian_1.png", 0)
    return root


def ninco(root):
    """The three trees of its archive; class names with blanks."""
    home = root / "NINCO"
    for label, name in enumerate(["Caracal caracal caracal", "high heels", "waiter"]):
        for number in range(10):
            file = f"{name}_{number:03d}_{label}{number}.jpg"
            put_image(home / "NINCO_OOD_classes" / name / file, 100 * label + number)
    for number in range(4):
        put_image(home / "NINCO_OOD_unit_tests" / "uni" / f"uni_{number:03d}.png", number)
        put_image(home / "NINCO_popular_datasets_subsamples" / "Places" / f"Places_{number:03d}.jpg", 900 + number)
    put_lines(home / "NINCO_OOD_classes.csv", ["image_location,class"])
    return root


def imagenet_r(root):
    for label, wnid in enumerate(["n01443537", "n01484850", "n01494475"]):
        for number in range(5):
            put_image(
                root / "imagenet-r" / wnid / f"{['art', 'cartoon'][number % 2]}_{number}.jpg", 10 * label + number
            )
    put_lines(root / "imagenet-r" / "README.txt", ["n01443537 goldfish"])
    return root


WNIDS = ["n01440764", "n02869837", "n03062245", "n13037406"]  # the last three are among the 100 of CMC
_VALIDATION = [WNIDS[number % 4] for number in range(12)]


def _ilsvrc(train, val, *, sorted_into_classes=False):
    for label, wnid in enumerate(WNIDS):
        for number in range(5):
            put_image(train / wnid / f"{wnid}_{number}.JPEG", 10 * label + number)
    for number, wnid in enumerate(_VALIDATION, 1):
        place = val / wnid if sorted_into_classes else val
        put_image(place / f"ILSVRC2012_val_{number:08d}.JPEG", 500 + number)


def imagenet1k_kaggle(root):
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    _ilsvrc(data / "train", data / "val")
    put_image(data / "test" / "ILSVRC2012_test_00000001.JPEG", 7)
    put_lines(root / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", ["<annotation/>"])
    put_lines(root / "LOC_synset_mapping.txt", [f"{wnid} something, else" for wnid in WNIDS])
    rows = [f"ILSVRC2012_val_{i:08d},{wnid} 85 1 499 272 " for i, wnid in enumerate(_VALIDATION, 1)]
    put_lines(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *reversed(rows)])
    return root


def imagenet1k_devkit(root):
    _ilsvrc(root / "train", root / "val")
    devkit = root / "ILSVRC2012_devkit_t12" / "data"
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    order = [2, 0, 3, 1]  # the devkit's numbers are not in the order of the synsets
    rows = [(number, WNIDS[index], "words", "gloss", 0) for number, index in enumerate(order, 1)]
    rows.append((5, "n00001740", "entity", "all", 4))
    synsets = np.empty((len(rows), 1), dtype=kinds)
    for position, row in enumerate(rows):
        synsets[position, 0] = row
    devkit.mkdir(parents=True)
    savemat(devkit / "meta.mat", {"synsets": synsets})
    truth = [order.index(WNIDS.index(wnid)) + 1 for wnid in _VALIDATION]
    put_lines(devkit / "ILSVRC2012_validation_ground_truth.txt", truth)
    return root


def imagenet1k_folders(root):
    _ilsvrc(root / "train", root / "val", sorted_into_classes=True)
    return root


def stl10(root):
    home = root / "stl10_binary"
    home.mkdir(parents=True)
    for part, count in (("train", 4), ("test", 2)):
        labels = np.repeat(np.arange(3), count)
        first = 0 if part == "train" else 1000
        planes = [pixels(first + 100 * label + i, 96).transpose(2, 1, 0) for i, label in enumerate(labels.tolist())]
        (home / f"{part}_X.bin").write_bytes(np.stack(planes).tobytes())
        (home / f"{part}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    put_lines(home / "class_names.txt", ["airplane", "bird", "car"])
    (home / "unlabeled_X.bin").write_bytes(bytes(27648))
    put_lines(home / "fold_indices.txt", ["0 1 2"])
    return root


def _cifar(home, batches, prefix):
    home.mkdir(parents=True)
    seed = 0
    for name, count in batches.items():
        rows = []
        for number in range(count):
            label = number % 3
            rows.append(bytes([*prefix, label]) + pixels(seed, 32).transpose(2, 0, 1).tobytes())
            seed += 1
        (home / name).write_bytes(b"".join(rows))


def cifar10(root):
    batches = {**{f"data_batch_{number}.bin": 6 for number in range(1, 6)}, "test_batch.bin": 6}
    _cifar(root / "cifar-10-batches-bin", batches, ())
    put_lines(root / "cifar-10-batches-bin" / "batches.meta.txt", ["airplane", "automobile", "bird"])
    return root


def cifar100(root):
    _cifar(root / "cifar-100-binary", {"train.bin": 12, "test.bin": 6}, (19,))
    put_lines(root / "cifar-100-binary" / "fine_label_names.txt", ["apple", "aquarium_fish", "baby"])
    put_lines(root / "cifar-100-binary" / "coarse_label_names.txt", ["aquatic_mammals"])
    return root


def cinic10(root):
    for part, count in (("train", 4), ("valid", 3), ("test", 2)):
        for label, name in enumerate(["airplane", "automobile"]):
            for number in range(count):
                put_image(
                    root / part / name / f"cifar10-{part}-{label}{number}.png", 100 * label + number + 1000 * len(part)
                )
    put_lines(root / "synsets-to-cifar-10-classes.txt", ["n02690373 airplane"])
    put_lines(root / "imagenet-contributors.csv", ["synset,image_num,cinic_set,class"])
    return root


# name → (maker, classes, training images, test images)
LAYOUTS = {
    "cub200": (cub200, 3, 9, 9),
    "aircraft": (aircraft, 4, 16, 16),
    "flowers102": (flowers102, 3, 6, 6),
    "pets": (pets, 3, 12, 6),
    "ninco": (ninco, 3, 24, 6),
    "imagenet_r": (imagenet_r, 3, 12, 3),
    "imagenet1k (Kaggle)": (imagenet1k_kaggle, 4, 20, 12),
    "imagenet1k (devkit)": (imagenet1k_devkit, 4, 20, 12),
    "imagenet1k (folders)": (imagenet1k_folders, 4, 20, 12),
    "stl10": (stl10, 3, 12, 6),
    "cifar10": (cifar10, 3, 30, 6),
    "cifar100": (cifar100, 3, 12, 6),
    "cinic10": (cinic10, 2, 8, 4),
}
