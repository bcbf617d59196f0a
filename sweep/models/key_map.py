"""A key map for a checkpoint whose names differ from a network's: by shape and order, and by what repeats.

Names are first compared as templates, ``layer1.0.conv2.weight`` as ``layer#.#.conv2.weight``: a template stands for all
its tensors, and the row of their shapes tells most templates apart. Where several have the same row, order decides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]
_NUMBER = re.compile(r"\d+")
_ROLES = (("running_mean",), ("running_var",), ("bias", "beta"), ("weight", "gamma", "kernel"))  # ends of names


@dataclass(frozen=True)
class Proposal:
    """Rules that give a file's tensors a network's names.

    Attributes
    ----------
    key_map : regular expression → replacement, to be applied in this order.
    tensors : that get a new name.
    by_order : of these, told apart from others of the same shapes by their order alone.
    """

    key_map: dict[str, str]
    tensors: int
    by_order: int


def propose(needed: Shapes, there: Shapes) -> Proposal | None:
    """Rules that give every tensor of a network one of the file; None if shape and order do not tell.

    Parameters
    ----------
    needed : name → shape of what a network needs, in its order.
    there : of what a file has, in its order; it may have more.
    """
    names, ordered = _paired(needed, there)
    if len(names) < len(needed):
        return None
    changed = {old: new for old, new in names.items() if old != new}
    for rules in (_compressed(names, there), {f"^{re.escape(old)}$": new for old, new in changed.items()}):
        if _apply(rules, names) == names and not _collides(rules, names, there):
            return Proposal(rules, len(changed), len(ordered & changed.keys()))
    return None


def _apply(rules: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {old: _renamed(old, rules) for old in names}


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def _collides(rules: Mapping[str, str], names: Mapping[str, str], there: Shapes) -> bool:
    """Whether a tensor that the network does not need would get the name of one that it does."""
    return any(_renamed(old, rules) in names.values() for old in there.keys() - names.keys())


# ------------------------------------------------------------------------------------------------- which is which


def _paired(needed: Shapes, there: Shapes) -> tuple[dict[str, str], set[str]]:
    """Name in the file → name in the network, and which of them only order told apart."""
    same = {name for name in needed if there.get(name) == needed[name]}
    names, ordered = {name: name for name in same}, set[str]()
    for group in (_by_template, _by_tensor):
        left = {name: shape for name, shape in needed.items() if name not in names.values()}
        free = {name: shape for name, shape in there.items() if name not in names}
        if group is _by_template and list(free.values())[: len(left)] == list(left.values()):
            return names | dict(zip(free, left, strict=False)), ordered  # the same network under other names
        own, files = group(left), group(free)
        for signature, rows in own.items():
            other = files.get(signature, [])
            if len(other) == len(rows):
                for mine, theirs in zip(rows, other, strict=True):
                    names |= dict(zip(theirs, mine, strict=True))
                    ordered |= set(theirs) if len(rows) > 1 else set()
    return names, ordered


def _by_template(shapes: Shapes) -> dict[Hashable, list[list[str]]]:
    """Rows of names of one template, by what tells templates apart."""
    rows: dict[str, list[str]] = defaultdict(list)
    for name in shapes:
        rows[_NUMBER.sub("#", name)].append(name)
    siblings: dict[str, set[Hashable]] = defaultdict(set)
    for template, row in rows.items():
        siblings[_module(template)].add((_role(template), tuple(shapes[name] for name in row)))
    found: dict[Hashable, list[list[str]]] = defaultdict(list)
    for template, row in rows.items():
        beside = frozenset(siblings[_module(template)]) if _role(template) is not None else None
        found[_role(template), tuple(shapes[name] for name in row), beside].append(row)
    return found


def _by_tensor(shapes: Shapes) -> dict[Hashable, list[list[str]]]:
    """Single names, by their shape and those of the tensors beside them."""
    siblings: dict[str, set[Hashable]] = defaultdict(set)
    for name, shape in shapes.items():
        siblings[_module(name)].add((_role(name), shape))
    found: dict[Hashable, list[list[str]]] = defaultdict(list)
    for name, shape in shapes.items():
        found[_role(name), shape, frozenset(siblings[_module(name)]) if _role(name) is not None else None].append(
            [name]
        )
    return found


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _role(name: str) -> int | None:
    """What a tensor is to its module, by the end of its name; None where that does not say."""
    return next((number for number, ends in enumerate(_ROLES) if name.endswith(ends)), None)


# --------------------------------------------------------------------------------------------------- short rules


def _compressed(names: Mapping[str, str], there: Shapes) -> dict[str, str]:
    """Rules for modules rather than tensors, with numbers carried over where they are the same."""
    pairs: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for old in there:
        if old in names:
            front, end = _split(old, names[old])
            if front != end:
                pairs[_NUMBER.sub("#", front), _NUMBER.sub("#", end)][front] = end
    rules: dict[str, str] = {}
    for _, found in sorted(pairs.items(), key=lambda item: not item[0][1]):  # what only loses a prefix comes last
        rules |= _rules(list(found.items()))
    return rules


def _split(old: str, new: str) -> tuple[str, str]:
    """Both names without the last parts that they share."""
    before, after = old.split("."), new.split(".")
    while len(before) > 1 and len(after) > 1 and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    if len(before) > 1 and before[-1] == after[-1]:
        return ".".join(before[:-1]) + ".", ""  # the file has a prefix more
    if len(after) > 1 and before[-1] == after[-1]:
        return "", ".".join(after[:-1]) + "."
    return ".".join(before), ".".join(after)


def _rules(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """One rule for pairs of one template if the numbers allow it, else one for each value of a number."""
    before = [_NUMBER.findall(old) for old, _ in pairs]
    after = [_NUMBER.findall(new) for _, new in pairs]
    varied = [place for place in range(len(before[0])) if len({numbers[place] for numbers in before}) > 1]
    written: list[str] = []
    for place in range(len(after[0])):
        values = [numbers[place] for numbers in after]
        known = next((v for v in varied if [numbers[v] for numbers in before] == values), None)
        if known is not None:
            written.append(f"\\{varied.index(known) + 1}")
        elif len(set(values)) == 1:
            written.append(values[0])
        else:
            return _divided(pairs, _telling(before, values, varied))
    return {_pattern(pairs[0][0], varied): _filled(pairs[0][1], written)}


def _telling(before: Sequence[Sequence[str]], values: Sequence[str], varied: Sequence[int]) -> int:
    """Place of the number that a number of the new names follows from, or else of the one with the fewest values."""

    def rank(place: int) -> tuple[bool, int]:
        both = {(numbers[place], value) for numbers, value in zip(before, values, strict=True)}
        distinct = len({numbers[place] for numbers in before})
        return len(both) > distinct, distinct

    return min(varied, key=rank)


def _divided(pairs: Sequence[tuple[str, str]], place: int) -> dict[str, str]:
    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for old, new in pairs:
        parts[_NUMBER.findall(old)[place]].append((old, new))
    rules: dict[str, str] = {}
    for part in parts.values():
        rules |= _rules(part)
    return rules


def _pattern(front: str, varied: Sequence[int]) -> str:
    """A regular expression for the front of a name, its varied numbers captured."""
    numbers = iter(_NUMBER.findall(front))
    pieces = [re.escape(piece) for piece in _NUMBER.split(front)]
    text = pieces[0]
    for place, piece in enumerate(pieces[1:]):
        number = next(numbers)
        text += (r"(\d+)" if place in varied else number) + piece
    return f"^{text}" if front.endswith(".") or not front else rf"^{text}(?=\.|$)"


def _filled(end: str, numbers: Sequence[str]) -> str:
    """The front of a new name with these in the place of its numbers."""
    written = iter(numbers)
    return _NUMBER.sub(lambda _: next(written), end)
