"""The images of a sweep by the names its config uses: which are chosen, which are held out, decoded once.

The choice depends on the dataset and the split seed only, so that every backbone that asks for the same subset
gets the same images.

Shapes: N images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweep.base.errors import UserError
from sweep.base.seeds import derive_seed
from sweep.config import Shifted
from sweep.data.corrupt import Corrupted
from sweep.data.dataset import Dataset
from sweep.data.decoded import ALONE, Decoding, part_of
from sweep.data.images import (
    EvalImages,
    TrainImages,
    decode_views,
    evaluation_images,
    is_decoded,
    training_images,
)
from sweep.data.open import opened
from sweep.data.options import DatasetOptions, Part
from sweep.data.splits import choose_classes, folds, hold_out, subset
from sweep.data.view import View


@dataclass(frozen=True)
class Images:
    """Training and test images of one dataset at one resolution, labels counted from 0 without gaps.

    Attributes
    ----------
    train_NHWC, test_NHWC : uint8, memory-mapped.
    heldout_N : bool; training images that only choose epochs.
    skipped : images that could not be read, with the reason.
    groups_N : group of each training image, where the dataset has groups; never parted.
    seed : of its splits.
    kept_N : place of each training image in the selection: broken ones are left out.
    split_note : "official", or how the test part was made.
    test_names : sample ids of the dataset's whole test part, in order.
    """

    train_NHWC: np.ndarray
    train_labels_N: np.ndarray
    heldout_N: np.ndarray
    test_NHWC: np.ndarray
    test_labels_N: np.ndarray
    classes: int
    fingerprint: str
    skipped: tuple[str, ...]
    split_note: str
    test_names: tuple[str, ...]
    groups_N: np.ndarray | None = None
    seed: int = 0
    kept_N: np.ndarray | None = None

    def folds(self, count: int) -> np.ndarray:
        """Fold of each training image, int64 from 0 without gaps: stratified, seeded, no group in two folds."""
        return folds(self.train_labels_N, count=count, seed=self.seed, groups_N=self.groups_N)


@dataclass(frozen=True)
class Selection:
    """Which images of a dataset take part: indices into its splits, and the class ids that count."""

    dataset: Dataset
    classes: np.ndarray
    train_N: np.ndarray
    heldout_N: np.ndarray
    test_N: np.ndarray
    seed: int


@dataclass(frozen=True)
class Library:
    """Datasets of a sweep, and how they are split.

    Parameters
    ----------
    options : dataset name → where and what it is.
    cache_dir : node-local directory of decoded images.
    split_seed, holdout : see :class:`sweep.config.Config`.
    how : images are decoded, where they are not yet.
    skip : classes, in the order of the split seed, that are passed over where some of a dataset's are chosen.
    """

    options: Mapping[str, DatasetOptions]
    cache_dir: str
    split_seed: int = 0
    holdout: float = 0.1
    how: Decoding = ALONE
    skip: int = 0

    def select(self, name: str, *, classes: int | None = None, images_per_class: int | None = None) -> Selection:
        """Choose classes, images and the held-out part; None takes all there are.

        Raises
        ------
        UserError
            If the dataset has too few classes or images.
        """
        dataset = opened(name, self.options[name], Path(self.cache_dir))
        total = len(dataset.class_names)
        wanted = total - self.skip if classes is None else classes
        if wanted > total:
            raise UserError(f"dataset {name} has {total} classes, {wanted} were asked for")
        seed = derive_seed("split", dataset.fingerprint, self.split_seed)
        chosen = choose_classes(total, wanted, seed=seed, skip=self.skip)
        names = dataset.class_names
        train_N = subset(
            dataset.train.labels, classes=chosen, images_per_class=images_per_class, seed=seed, class_names=names
        )
        test_N = subset(dataset.test.labels, classes=chosen, seed=seed, class_names=names)
        groups_N = None if dataset.train.groups is None else dataset.train.groups[train_N]
        heldout_N = hold_out(
            dataset.train.labels[train_N], fraction=self.holdout, seed=seed, class_names=names, groups_N=groups_N
        )
        return Selection(dataset, chosen, train_N, heldout_N, test_N, seed)

    def images(
        self, name: str, view: View, *, classes: int | None = None, images_per_class: int | None = None
    ) -> Images:
        """Evaluation images of a selection, as a view shows them."""
        chosen = self.select(name, classes=classes, images_per_class=images_per_class)
        shown: dict[str, Any] = {"view": view, "cache_dir": Path(self.cache_dir), "how": self.how}
        train = evaluation_images(chosen.dataset, "train", chosen.train_N, **shown)
        test = evaluation_images(chosen.dataset, "test", chosen.test_N, **shown)
        groups = chosen.dataset.train.groups
        return Images(
            train_NHWC=train.images_NHWC,
            train_labels_N=np.searchsorted(chosen.classes, train.labels_N),
            heldout_N=chosen.heldout_N[train.kept_N],
            test_NHWC=test.images_NHWC,
            test_labels_N=np.searchsorted(chosen.classes, test.labels_N),
            classes=len(chosen.classes),
            fingerprint=chosen.dataset.fingerprint,
            skipped=train.skipped + test.skipped,
            split_note=chosen.dataset.split_note,
            test_names=chosen.dataset.test.names,
            groups_N=None if groups is None else groups[chosen.train_N][train.kept_N],
            seed=chosen.seed,
            kept_N=train.kept_N,
        )

    def shifted(
        self, name: str, shifted: Shifted, view: View, *, own: str, classes: int | None, images_per_class: int | None
    ) -> Images:
        """Training images of an ID dataset, and test images that are shifted from it, under the same labels.

        Parameters
        ----------
        name : of the shifted dataset; all its images of the ID classes are tested on, whichever part they lie in.
        own : the ID dataset; ``classes`` and ``images_per_class`` choose from it as in :meth:`images`.

        Raises
        ------
        UserError
            If the shifted dataset has none of the ID classes, by name.
        """
        fitted = self.images(own, view, classes=classes, images_per_class=images_per_class)
        if shifted.corruption is not None:
            seed = derive_seed("corruption", fitted.fingerprint)
            made: Any = Corrupted(fitted.test_NHWC, shifted.corruption, shifted.severity, seed=seed)
            return replace(fitted, test_NHWC=made, split_note="official")
        chosen = self.select(own, classes=classes, images_per_class=images_per_class)
        label_of = {chosen.dataset.class_names[label]: place for place, label in enumerate(chosen.classes.tolist())}
        dataset = opened(name, self.options[name], Path(self.cache_dir))
        known = [label for label, word in enumerate(dataset.class_names) if word in label_of]
        if not known:
            raise UserError(
                f"dataset {name} has none of the classes of {own}: it has {', '.join(dataset.class_names[:5])} …, "
                f"these are {', '.join(list(label_of)[:5])} …; classes are matched by name"
            )
        parts = [self._all_of(dataset, part, known, view) for part in ("train", "test")]
        labels = [np.array([label_of[dataset.class_names[label]] for label in part.labels_N]) for part in parts]
        return replace(
            fitted,
            test_NHWC=np.concatenate([part.images_NHWC for part in parts]),
            test_labels_N=np.concatenate(labels),
            fingerprint=dataset.fingerprint,
            skipped=fitted.skipped + parts[0].skipped + parts[1].skipped,
            split_note="official",
            test_names=tuple(word for part in parts for word in part.names),
        )

    def _all_of(self, dataset: Dataset, part: Part, labels: Sequence[int], view: View) -> EvalImages:
        """All images of some classes in a part."""
        indices_N = np.flatnonzero(np.isin(part_of(dataset, part).labels, labels))
        return evaluation_images(dataset, part, indices_N, view=view, cache_dir=Path(self.cache_dir), how=self.how)

    def training_images(
        self, name: str, resolution: int, *, classes: int | None = None, images_per_class: int | None = None
    ) -> TrainImages:
        """Images to cut augmented crops from, in the order of :meth:`images`' training part.

        One that is too long to be resized for evaluation may be among them: ``kept_N`` tells where each comes from.
        """
        chosen = self.select(name, classes=classes, images_per_class=images_per_class)
        where: dict[str, Any] = {"cache_dir": Path(self.cache_dir), "how": self.how}
        return training_images(chosen.dataset, "train", chosen.train_N, resolution=resolution, **where)

    def decode(self, name: str, views: Sequence[View | int], **chosen: int | None) -> None:
        """Have the cache hold :meth:`images` by views and :meth:`training_images` by resolutions, each image decoded
        once for all of them.
        """
        selection, cache = self.select(name, **chosen), Path(self.cache_dir)
        whole = [view for view in views if isinstance(view, View)]
        parts: list[tuple[Part, np.ndarray, Sequence[View | int]]] = [
            ("train", selection.train_N, views),
            ("test", selection.test_N, whole),
        ]
        for part, indices, shown in parts:
            decode_views(selection.dataset, part, indices, views=shown, cache_dir=cache, how=self.how)

    def undecoded(self, name: str, view: View | int, **chosen: int | None) -> dict[Part, int]:
        """How many images the cache lacks, by part: of :meth:`images` by a view, else of :meth:`training_images`."""
        selection, cache = self.select(name, **chosen), Path(self.cache_dir)
        parts: dict[Part, np.ndarray] = {"train": selection.train_N}
        parts |= {"test": selection.test_N} if isinstance(view, View) else {}
        return {
            part: len(indices)
            for part, indices in parts.items()
            if not is_decoded(selection.dataset, part, indices, view=view, cache_dir=cache)
        }
