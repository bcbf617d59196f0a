"""The ``hfds`` and ``wds`` kinds: Hugging Face datasets and webdataset shards, found by timm's readers.

timm's readers say which files make a split and which class an image has. The bytes are decoded here, because timm's
webdataset reader leaves broken images out without a word.

Legend: N samples of one part.
"""

import functools
import hashlib
import importlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sweep.base.errors import UserError
from sweep.data.archive import GZIP_MAGIC
from sweep.data.dataset import Dataset, Decode, Split
from sweep.data.decode import decode_image
from sweep.data.listing import Listing, file_state, image_file, listed
from sweep.data.options import Background, DatasetOptions
from sweep.data.pixels import pixels_identity
from sweep.data.splits import capped

_EXTRA = "pip install 'tunnel-sweep[hub]'"


class _Source(Protocol):
    """The samples of one split, in storage order."""

    @property
    def place(self) -> str:
        """What is read, whatever the config calls it."""
        ...

    @property
    def state(self) -> str:
        """What tells one state of the files from another."""
        ...

    def samples(self) -> Iterator[tuple[str, bytes]]:
        """Pairs (class, encoded image), one pass."""
        ...

    def at(self, indices: list[int]) -> Iterator[bytes]:
        """Encoded images at sorted indices."""
        ...

    def class_name(self, label: str) -> str:
        """What people call a class."""
        ...


@dataclass(frozen=True, eq=False)
class _HuggingFace:
    """A split of :func:`datasets.load_dataset`."""

    reader: Any
    place: str

    @property
    def state(self) -> str:
        data = self.reader.dataset
        files = [file_state(Path(file["filename"])) for file in data.cache_files]
        return json.dumps([data._fingerprint, self.reader.image_key, self.reader.label_key, files])

    def _image(self, index: int) -> tuple[bytes, Any]:
        stream, label = self.reader[index]
        with stream:
            return stream.read(), label

    def samples(self) -> Iterator[tuple[str, bytes]]:
        for index in range(len(self.reader)):
            content, label = self._image(index)
            yield str(label), content

    def at(self, indices: list[int]) -> Iterator[bytes]:
        return (self._image(index)[0] for index in indices)

    def class_name(self, label: str) -> str:
        names = {str(index): str(name) for name, index in self.reader.class_to_idx.items()}
        return names.get(label, label)


@dataclass(frozen=True, eq=False)
class _WebDataset:
    """The shards of a split, as its ``_info.json`` or a pattern names them."""

    reader: Any
    place: str

    @property
    def _shards(self) -> list[str]:
        return [str(Path(self.reader.root) / name) for name in self.reader.split_info.filenames]

    @property
    def state(self) -> str:
        files = [file_state(Path(shard)) for shard in self._shards]
        return json.dumps([files, self.reader.input_key, self.reader.target_key])

    def _stream(self) -> Iterator[dict[str, Any]]:
        tars = importlib.import_module("webdataset.tariterators")
        for shard in self._shards:
            self._refuse_cut_short(shard)
            with open(shard, "rb") as stream:
                try:
                    yield from tars.group_by_keys(tars.tar_file_expander([{"url": shard, "stream": stream}]))
                except (tarfile.TarError, ValueError) as error:
                    raise UserError(f"{self.place}: shard {shard} is damaged: {error.args[0]}") from error

    def _refuse_cut_short(self, shard: str) -> None:
        """A shard that ends at a member's border reads as a whole one; a block of zeros ends a tar archive."""
        with open(shard, "rb") as stream:
            if stream.read(2) == GZIP_MAGIC:
                return  # gzip ends with a checksum, which is read with the last sample
            stream.seek(-min(tarfile.BLOCKSIZE, os.path.getsize(shard)), os.SEEK_END)
            if stream.read() != bytes(tarfile.BLOCKSIZE):
                raise UserError(f"{self.place}: shard {shard} is damaged: the mark that ends a tar archive is missing")

    def _image(self, sample: dict[str, Any]) -> bytes:
        for key in self.reader.input_key.split(";"):
            if key in sample:
                return sample[key]
        raise UserError(
            f"{self.place}: sample {sample['__key__']} has no {self.reader.input_key}: it has {_keys(sample)}"
        )

    def samples(self) -> Iterator[tuple[str, bytes]]:
        """Pairs (class, encoded image), one pass through the shards."""
        key = self.reader.target_key or self.reader.split_info.alt_label
        for sample in self._stream():
            try:
                label = json.loads(sample["json"])[key] if key else int(sample["cls"])
            except (KeyError, ValueError) as error:
                wanted = f"json with a field {key}" if key else "cls with a number"
                message = f"sample {sample['__key__']} has no {wanted}: it has {_keys(sample)}; set label_key"
                raise UserError(f"{self.place}: {message}") from error
            yield str(label), self._image(sample)

    def at(self, indices: list[int]) -> Iterator[bytes]:
        wanted = set(indices)
        return (self._image(sample) for index, sample in enumerate(self._stream()) if index in wanted)

    def class_name(self, label: str) -> str:
        return label


def _keys(sample: dict[str, Any]) -> str:
    return ", ".join(key for key in sample if not key.startswith("__"))


@dataclass(frozen=True, eq=False)
class _Reader:
    source: _Source
    indices_N: np.ndarray
    background: Background

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        order = sorted(indices)
        for index, content in zip(order, self.source.at(self.indices_N[order].tolist()), strict=True):
            yield index, decode_image(content, self.background)

    def read_lazily(self, indices: Iterable[int]) -> Iterator[tuple[int, Decode]]:
        order = sorted(indices)
        for index, content in zip(order, self.source.at(self.indices_N[order].tolist()), strict=True):
            yield index, functools.partial(decode_image, content, self.background)


def _timm_reader(where: str, name: str, **arguments: Any) -> Any:
    """Timm's reader, or what is wrong in words: missing package, unknown split or column, no network."""
    try:
        return importlib.import_module("timm.data.readers").create_reader(name, **arguments)
    except UserError:
        raise
    except Exception as error:  # Hugging Face's many errors, RuntimeError of a missing package, KeyError of a column
        missing = isinstance(error, ImportError) or "install webdataset" in str(error)
        advice = f"; {_EXTRA}" if missing else ""
        raise UserError(f"{where}: {type(error).__name__}: {error}{advice}") from error


def _open(name: str, options: DatasetOptions, source_of: Callable[[str, str], _Source], *, cache_dir: Path) -> Dataset:
    """Both parts of a dataset: listed once with labels and digests, then capped."""
    sources, files, labels = {}, {}, {}
    for part, split in (("train", options.train_split), ("test", options.test_split)):
        sources[part] = source = source_of(f"dataset {name!r}, split {split}", split)
        read = functools.partial(_list, source)
        files[part] = listed(source.place, source.state, read, cache_dir=cache_dir).images
        labels[part] = [file.path.rpartition("/")[0] for file in files[part]]
    classes = _classes(f"dataset {name!r}", labels, options.classes)
    number_of = {label: number for number, label in enumerate(classes)}
    total, splits, odd = hashlib.sha256(), {}, set()
    for part, limit in (("train", options.train_per_class), ("test", options.test_per_class)):
        labels_N = np.array([number_of[label] for label in labels[part]], dtype=np.int64)
        kept_N = capped(labels_N, limit=limit, seed=options.seed)
        for index in kept_N.tolist():
            total.update(f"{part} {labels[part][index]} {files[part][index].digest}\n".encode())
            odd |= {files[part][index].odd} - {""}
        names = tuple(f"{part}/{index:07d}" for index in kept_N.tolist())
        reader = _Reader(sources[part], kept_N, options.background)
        digests = tuple(files[part][index].digest for index in kept_N.tolist())
        splits[part] = Split(labels_N[kept_N], names, reader, digests)
    class_names = tuple(sources["train"].class_name(label) for label in classes)
    pixels = pixels_identity(odd, options.background)
    return Dataset(name, total.hexdigest(), class_names, splits["train"], splits["test"], "official", pixels)


def _list(source: _Source) -> Listing:
    """Label and digest of every sample; the label stands as the directory of its path."""
    samples = enumerate(source.samples())
    return Listing([image_file(f"{label}/{index:07d}", content) for index, (label, content) in samples], [], [])


def _classes(where: str, labels: dict[str, list[str]], declared: int | None) -> list[str]:
    """Classes of the training part, numbers in the order of numbers; those of the test part must be the same."""
    found = {part: set(values) for part, values in labels.items()}
    if odd := found["train"] ^ found["test"]:
        hint = "; -1 means that the labels are withheld: choose another test_split" if "-1" in odd else ""
        raise UserError(
            f"{where}: in only one of the train and test splits: classes {', '.join(sorted(odd)[:10])}{hint}"
        )
    if len(found["train"]) < 2:
        raise UserError(f"{where}: {len(found['train'])} classes found, at least 2 are needed; set label_key")
    if declared is not None and declared != len(found["train"]):
        raise UserError(f"{where}: classes is declared as {declared}, but {len(found['train'])} are there; correct it")
    numbers = all(label.isdecimal() for label in found["train"])
    return sorted(found["train"], key=int if numbers else None)


def _check_columns(where: str, reader: Any) -> None:
    """Image and label have a column; timm's reader invents the image's, empty, where there is none."""
    invented = {reader.image_key} if len(reader) and reader.dataset[0][reader.image_key] is None else set()
    columns = [column for column in reader.dataset.column_names if column not in invented]
    for key, column in (("image_key", reader.image_key), ("label_key", reader.label_key)):
        if column not in columns:
            raise UserError(f"{where} has no column {column}; set {key} to one of {', '.join(columns)}")


def open_hugging_face(name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
    """Open a dataset of the Hugging Face hub, or a directory that ``datasets.load_dataset`` understands."""
    asked = options.path if options.generator is None else options.generator
    if options.generator and not options.download:
        raise UserError(f"dataset {name!r}: {asked} of the hub comes over the network; set download: true")

    def source(where: str, split: str) -> _Source:
        """One split, its columns checked."""
        reader = _timm_reader(
            where,
            f"hfds/{asked}",
            root=str(cache_dir / "downloads" / "huggingface"),
            split=split,
            input_key=options.image_key,
            target_key=options.label_key,
        )
        _check_columns(where, reader)
        return _HuggingFace(reader, f"hfds/{asked}, split {split}")

    return _open(name, options, source, cache_dir=cache_dir)


def open_webdataset(name: str, options: DatasetOptions, *, cache_dir: Path) -> Dataset:
    """Open a directory of webdataset shards."""

    def source(where: str, split: str) -> _Source:
        """One split, its shards all there."""
        reader = _timm_reader(
            where, "wds/", root=options.path, split=split, input_key=options.image_key, target_key=options.label_key
        )
        found = _WebDataset(reader, f"wds at {options.path}, split {split}")
        missing = [shard for shard in found._shards if not Path(shard).is_file()]
        if missing:
            raise UserError(f"{where}: {len(missing)} shards are not there, the first is {missing[0]}")
        return found

    return _open(name, options, source, cache_dir=cache_dir)
