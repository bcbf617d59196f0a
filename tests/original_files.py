"""Small files laid out like the originals of standard datasets, with the checksums that torchvision then expects."""

import hashlib
import io
import pickle

import numpy as np
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

PER_CLASS = {"train": 5, "test": 2}


def image(seed, side=16):
    return np.random.default_rng(abs(int(seed))).integers(0, 256, (side, side, 3), dtype=np.uint8)


def jpeg(seed):
    buffer = io.BytesIO()
    Image.fromarray(image(seed)).save(buffer, "JPEG")
    return buffer.getvalue()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def labels(part, classes):
    return np.repeat(np.arange(classes), PER_CLASS[part])


def _pickle(path, value):
    path.write_bytes(pickle.dumps(value))


def _cifar(home, monkeypatch, kind, names, key, train_files, test_file, meta):
    rows = {
        part: np.stack([image(seed, 32).transpose(2, 0, 1).ravel() for seed in labels(part, len(names))])
        for part in PER_CLASS
    }
    train = zip(train_files, np.array_split(np.arange(len(rows["train"])), len(train_files)), strict=True)
    for name, chosen in train:
        _pickle(home / name, {"data": rows["train"][chosen], key: labels("train", len(names))[chosen].tolist()})
    _pickle(home / test_file, {"data": rows["test"], key: labels("test", len(names)).tolist()})
    _pickle(home / meta, {kind.meta["key"]: names})
    monkeypatch.setattr(kind, "train_list", [[name, md5(home / name)] for name in train_files])
    monkeypatch.setattr(kind, "test_list", [[test_file, md5(home / test_file)]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(home / meta)})
    return len(names)


def cifar10(root, monkeypatch):
    home = root / "cifar-10-batches-py"
    home.mkdir(parents=True)
    files = [f"data_batch_{number}" for number in range(1, 6)]
    names = [f"class {number}" for number in range(10)]
    return _cifar(home, monkeypatch, datasets.CIFAR10, names, "labels", files, "test_batch", "batches.meta")


def cifar100(root, monkeypatch):
    home = root / "cifar-100-python"
    home.mkdir(parents=True)
    names = [f"fine {number}" for number in range(100)]
    return _cifar(home, monkeypatch, datasets.CIFAR100, names, "fine_labels", ["train"], "test", "meta")


def stl10(root, monkeypatch):
    home = root / "stl10_binary"
    home.mkdir(parents=True)
    for part in PER_CLASS:
        pixels = np.stack([image(seed, 96).transpose(2, 1, 0) for seed in labels(part, 10)])  # channel, column, row
        (home / f"{part}_X.bin").write_bytes(pixels.tobytes())
        (home / f"{part}_y.bin").write_bytes((labels(part, 10) + 1).astype(np.uint8).tobytes())
    (home / "unlabeled_X.bin").write_bytes(b"")
    (home / "class_names.txt").write_text("\n".join(f"thing {number}" for number in range(10)))
    for attribute in ("train_list", "test_list"):
        files = [[name, md5(home / name)] for name, _ in getattr(datasets.STL10, attribute)]
        monkeypatch.setattr(datasets.STL10, attribute, files)
    return 10


def flowers102(root, monkeypatch):
    home = root / "flowers-102"
    (home / "jpg").mkdir(parents=True)
    numbers = np.concatenate([labels(part, 102) for part in PER_CLASS])
    for number, label in enumerate(numbers, start=1):
        (home / "jpg" / f"image_{number:05d}.jpg").write_bytes(jpeg(label))
    split = 102 * PER_CLASS["train"]
    ids = np.arange(1, len(numbers) + 1)
    savemat(home / "imagelabels.mat", {"labels": numbers + 1})
    savemat(home / "setid.mat", {"trnid": ids[:split], "valid": ids[split:], "tstid": ids[:1]})
    files = datasets.Flowers102._file_dict
    own = {key: (files[key][0], md5(home / files[key][0])) for key in ("label", "setid")}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", files | own)
    return 102


def pets(root, monkeypatch):
    home = root / "oxford-iiit-pet"
    (home / "images").mkdir(parents=True)
    (home / "annotations" / "trimaps").mkdir(parents=True)
    for part, file in (("train", "trainval.txt"), ("test", "test.txt")):
        lines = []
        for number, label in enumerate(labels(part, 3)):
            name = f"{('Abyssinian', 'american_bulldog', 'Bombay')[label]}_{part}{number}"
            (home / "images" / f"{name}.jpg").write_bytes(jpeg(label))
            lines.append(f"{name} {label + 1} 1 1")
        (home / "annotations" / file).write_text("\n".join(lines))
    return 3


def aircraft(root, monkeypatch):
    home = root / "fgvc-aircraft-2013b" / "data"
    (home / "images").mkdir(parents=True)
    names = ["707-320", "A300B4", "Boeing 717"]
    (home / "variants.txt").write_text("\n".join(names))
    for part, file in (("train", "trainval"), ("test", "test")):
        lines = []
        for number, label in enumerate(labels(part, 3)):
            (home / "images" / f"{part}{number}.jpg").write_bytes(jpeg(label))
            lines.append(f"{part}{number} {names[label]}")
        (home / f"images_variant_{file}.txt").write_text("\n".join(lines))
    return 3


ORIGINALS = {made.__name__: made for made in (cifar10, cifar100, stl10, flowers102, pets, aircraft)}
