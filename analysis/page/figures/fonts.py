"""Fonts for what names hold: the house's own, another one for characters that it lacks, or a word about them."""

from __future__ import annotations

import functools
import sys
import warnings

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

OWN = "DejaVu Sans"
_BOXES = "lastresort"  # fonts of this name have all characters, and draw a box for each


def fit(made: Figure) -> None:
    """Show all text of a figure as it is: no mark-up, and in fonts that have its characters as far as any here does."""
    texts = made.findobj(Text)
    for text in texts:
        text.set_parse_math(False)
    unknown = {sign for text in texts for sign in text.get_text() if sign.isprintable()} - _signs(_own())
    if not unknown:
        return
    others = _others(frozenset(unknown))
    for text in texts:
        if unknown & set(text.get_text()):
            text.set_fontfamily([OWN, *others])


@functools.cache
def _others(unknown: frozenset[str]) -> tuple[str, ...]:
    """Further fonts of this machine, those with most of these characters first; says which no font has."""
    left, found = set(unknown), []
    known = {entry.fname: entry.name for entry in font_manager.fontManager.ttflist if _draws(entry.name)}
    having = {name: signs for file, name in known.items() if (signs := left & _signs(file))}
    while left and having:
        best = max(having, key=lambda name: (len(having[name] & left), name))
        if not having[best] & left:
            break
        found.append(best)
        left -= having[best]
    if left:
        shown = " ".join(sorted(left)[:20])
        print(
            f"notice: no font on this machine has {len(left)} characters of the names, which figures show as boxes: "
            f"{shown}; a font that has them (for Chinese, Japanese and Korean: Noto Sans CJK) mends it",
            file=sys.stderr,
        )
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)  # it is said
    return tuple(found)


def _draws(name: str) -> bool:
    """Whether a font is another than the house's own, and one that shows what it has."""
    return name != OWN and not name.lower().replace(" ", "").startswith(_BOXES)


@functools.cache
def _own() -> str:
    return str(font_manager.findfont(OWN))


@functools.cache
def _signs(file: str) -> frozenset[str]:
    """Characters that a font file has; none where it cannot be read."""
    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (RuntimeError, OSError):
        return frozenset()
