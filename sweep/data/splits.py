"""Class and image subsets, held-out parts: stratified, seeded, nested.

Legend: N samples. Every order is the argsort of raw 64-bit draws, whose stream numpy guarantees for ever,
so that a subset is the same images on any machine and with any later numpy.
"""

from collections import Counter
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


def choose_classes(n_total: int, n_wanted: int, *, seed: int, skip: int = 0) -> np.ndarray:
    """``n_wanted`` of ``n_total`` class ids, sorted; 10 of a seed are among the 50 of the same seed.

    ``skip`` passes over so many that come first in the seed's order: parts of a dataset that share no class.

    Raises
    ------
    UserError
        More classes wanted than there are, or none.
    """
    if not 1 <= n_wanted <= n_total - skip:
        after = f" after {skip} others" if skip else ""
        raise UserError(
            f"cannot choose {n_wanted} classes{after}: the dataset has {n_total}; ask for 1 to {n_total - skip}"
        )
    return np.sort(_order(n_total, "classes", seed)[skip : skip + n_wanted]).astype(np.int64)


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
    labels_N: np.ndarray,
    *,
    fraction: float = 0.1,
    seed: int,
    class_names: Sequence[str] | None = None,
    groups_N: np.ndarray | None = None,
) -> np.ndarray:
    """Which samples to hold out: the rounded fraction of each class, at least one, never all.

    Parameters
    ----------
    groups_N
        Group of each sample: whole groups are held out then, as many as come closest to the fraction of each class.

    Returns
    -------
    np.ndarray
        bool, shape (N,); True = held out.

    Raises
    ------
    UserError
        A class has a single image, or lies in a single group, so that it cannot be in both parts.
    """
    if groups_N is not None:
        return hold_out_groups(labels_N, groups_N, fraction=fraction, seed=seed, class_names=class_names)
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


def folds(labels_N: np.ndarray, *, count: int, seed: int, groups_N: np.ndarray | None = None) -> np.ndarray:
    """Fold of each sample, int64 from 0 without gaps: stratified, seeded; no group is in two folds."""
    if groups_N is not None:
        return _close_up(folds_of_groups(labels_N, groups_N, count=count, seed=seed))
    fold_N, start = np.zeros(len(labels_N), dtype=np.int64), 0
    for label in np.unique(labels_N).tolist():
        members = np.flatnonzero(labels_N == label)
        fold_N[members[_order(len(members), "folds", seed, label)]] = (start + np.arange(len(members))) % count
        start += len(members)  # so that folds of many small classes are of one size
    return _close_up(fold_N)


def _close_up(fold_N: np.ndarray) -> np.ndarray:
    return np.unique(fold_N, return_inverse=True)[1].astype(np.int64)


def _by_scarcity(labels_N: np.ndarray, groups_N: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Classes with their groups, those in the fewest groups first."""
    own = [(label, np.unique(groups_N[labels_N == label])) for label in np.unique(labels_N).tolist()]
    return sorted(own, key=lambda each: (len(each[1]), each[0]))


def _classes_of(labels_N: np.ndarray, groups_N: np.ndarray) -> dict[int, Counter[int]]:
    """How many images of each class a group holds."""
    counts: dict[int, Counter[int]] = {}
    for group, label in zip(groups_N.tolist(), labels_N.tolist(), strict=True):
        counts.setdefault(group, Counter())[label] += 1
    return counts


def hold_out_groups(
    labels_N: np.ndarray, groups_N: np.ndarray, *, fraction: float, seed: int, class_names: Sequence[str] | None
) -> np.ndarray:
    """:func:`hold_out` by whole groups; a group may hold several classes."""
    counts = _classes_of(labels_N, groups_N)
    kept, held, chosen = Counter(labels_N.tolist()), Counter[int](), set[int]()
    for label, groups in _by_scarcity(labels_N, groups_N):
        wanted = max(1, int(fraction * (kept[label] + held[label]) + 0.5))
        for group in groups[_order(len(groups), "hold out groups", seed, label)].tolist():
            own = counts[group]
            if group in chosen or any(kept[c] == n for c, n in own.items()):
                continue  # a class must stay in both parts
            if held[label] and abs(held[label] + own[label] - wanted) >= abs(held[label] - wanted):
                continue
            chosen.add(group)
            held.update(own)
            kept.subtract(own)
        if not held[label]:
            raise UserError(
                f"{_class_name(label, class_names)} lies in {len(groups)} group{'s' * (len(groups) > 1)}, which cannot "
                "be parted into one to fit and one to hold out; add groups, name finer ones or leave the class out"
            )
    return np.isin(groups_N, sorted(chosen))


def folds_of_groups(labels_N: np.ndarray, groups_N: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """:func:`folds` by whole groups: each goes where its class has the fewest images so far, then where all have."""
    fold_of, counts = dict[int, int](), _classes_of(labels_N, groups_N)
    sizes = [Counter[int]() for _ in range(count)]
    for label, groups in _by_scarcity(labels_N, groups_N):
        for group in groups[_order(len(groups), "folds of groups", seed, label)].tolist():
            if group not in fold_of:
                fold_of[group] = min(range(count), key=lambda fold: (sizes[fold][label], sizes[fold].total(), fold))
                sizes[fold_of[group]].update(counts[group])
    return np.array([fold_of[group] for group in groups_N.tolist()], dtype=np.int64)
