"""Class and image subsets, held-out parts: stratified, seeded, nested.

Legend: N samples. Every order is the argsort of raw 64-bit draws, whose stream numpy guarantees for ever,
so that a subset is the same images on any machine and with any later numpy.
"""

from collections.abc import Sequence

import numpy as np

from sweep.base.errors import UserError
from sweep.base.seeds import derive_seed


def _order(n: int, *key: str | int) -> np.ndarray:
    """A permutation of ``range(n)`` that only the key decides."""
    draws = np.random.PCG64(derive_seed(*key)).random_raw(n)
    return np.argsort(draws, kind="stable")


def _class_name(label: int, class_names: Sequence[str] | None) -> str:
    return f"class {label}" if class_names is None else f"class {class_names[label]!r}"


def choose_classes(n_total: int, n_wanted: int, *, seed: int) -> np.ndarray:
    """``n_wanted`` of ``n_total`` class ids, sorted; 10 of a seed are among the 50 of the same seed.

    Raises
    ------
    UserError
        More classes wanted than there are, or none.
    """
    if not 1 <= n_wanted <= n_total:
        raise UserError(f"cannot choose {n_wanted} classes: the dataset has {n_total}; ask for 1 to {n_total}")
    return np.sort(_order(n_total, "classes", seed)[:n_wanted]).astype(np.int64)


def subset(
    labels_N: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    images_per_class: int | None = None,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Indices of a stratified subset.

    Parameters
    ----------
    labels_N
        Class of each sample.
    classes
        Class ids to keep; None keeps all.
    images_per_class
        Images of each class, nested (100 are among the 200 of the same seed); None takes all.
    seed
        Decides the images of a class, whatever other classes are asked for.
    class_names
        For messages.

    Returns
    -------
    np.ndarray
        int64 indices into ``labels_N``, sorted.

    Raises
    ------
    UserError
        A class has no image, or fewer than ``images_per_class``.
    """
    wanted = np.unique(labels_N) if classes is None else np.asarray(classes)
    parts = []
    for label in wanted.tolist():
        members = np.flatnonzero(labels_N == label)
        needed = 1 if images_per_class is None else images_per_class
        if len(members) < needed:
            raise UserError(
                f"{_class_name(label, class_names)} has {len(members)} images, {needed} are asked for; "
                f"lower images_per_class to {len(members)} or leave the class out"
            )
        parts.append(members[_order(len(members), "images", seed, label)[:images_per_class]])
    return np.sort(np.concatenate(parts)).astype(np.int64)


def capped(labels_N: np.ndarray, *, limit: int | None, seed: int) -> np.ndarray:
    """Sorted indices of at most ``limit`` samples of each class, nested in ``limit``; None keeps all."""
    orders = ((label, np.flatnonzero(labels_N == label)) for label in np.unique(labels_N).tolist())
    parts = [members[_order(len(members), "images", seed, label)[:limit]] for label, members in orders]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def hold_out(
    labels_N: np.ndarray, *, fraction: float = 0.1, seed: int, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Which samples to hold out: the rounded fraction of each class, at least one, never all.

    Returns
    -------
    np.ndarray
        bool, shape (N,); True = held out.

    Raises
    ------
    UserError
        A class has a single image, so that it cannot be in both parts.
    """
    held_N = np.zeros(len(labels_N), dtype=bool)
    for label in np.unique(labels_N).tolist():
        members = np.flatnonzero(labels_N == label)
        if len(members) < 2:
            raise UserError(
                f"{_class_name(label, class_names)} has a single image: it needs two, one to fit and one to "
                "hold out; add images or leave the class out"
            )
        n_held = min(max(1, int(fraction * len(members) + 0.5)), len(members) - 1)
        held_N[members[_order(len(members), "hold out", seed, label)[:n_held]]] = True
    return held_N
