"""The words that findings are made of: amounts, intervals, lists, and what makes a slope certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.tables.names import TARGETS

Report = Mapping[str, Any]


def finding(text: str, *, number: str = "", interval: str = "", sure: str = "", basis: str = "") -> dict[str, str]:
    """One finding; empty parts are not printed."""
    return {"text": text, "number": number, "interval": interval, "sure": sure, "basis": basis}


def amount(target: str, value: float, *, sign: bool = True) -> str:
    """An effect in the target's printed unit."""
    about = TARGETS[target]
    text = f"{value * about.factor:{'+' if sign else ''}.{about.decimals}f}"
    return f"{text} {about.unit}".strip()


def span(target: str, low: float | None, high: float | None) -> str:
    """A 95 % interval in the target's printed unit; empty without one."""
    if low is None or high is None:
        return ""
    about = TARGETS[target]
    return f"{low * about.factor:+.{about.decimals}f} to {high * about.factor:+.{about.decimals}f}"


def listing(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def count(n: int, word: str) -> str:
    """'1 backbone', '2 backbones'."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def leading(report: Report) -> str | None:
    """The target that the findings speak of: the first that could be attributed."""
    return next((name for name, entry in report["targets"].items() if not entry["problem"]), None)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
