"""Where a number becomes words: amounts, intervals, lists. Minus is a minus sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.estimates.estimate import Estimate, Verdict
from analysis.tables.names import Target, label, plural

Kind = Literal["tunnel", "effect", "contrast", "interaction", "design", "fit", "quality"]
DASH, MINUS = "–", "−"


@dataclass(frozen=True)
class Finding:
    """One thing that the page says, with what it rests on.

    Attributes
    ----------
    verdict : how far it may be relied on; facts of the table itself are clear.
    variables : what it speaks of.
    number, interval, sure, basis : the small print below the sentence; empty parts are not printed.
    n_units, unit : what was taken as independent.
    """

    kind: Kind
    verdict: Verdict
    text: str
    variables: tuple[str, ...] = ()
    number: str = ""
    interval: str = ""
    sure: str = ""
    basis: str = ""
    n_units: int | None = None
    unit: str = ""


def minus(text: str) -> str:
    """The text with true minus signs."""
    return text.replace("-", MINUS)


def signed(target: Target, value: float | None) -> str:
    """A signed effect in the outcome's own unit, without naming it; a dash if unknown."""
    if value is None:
        return DASH
    text = f"{value:+.{target.decimals}f}"
    return minus(text if float(text) else text.replace("-", "+"))


def amount(target: Target, value: float | None) -> str:
    """A signed effect with its unit."""
    return f"{signed(target, value)} {target.unit}".strip()


def size(target: Target, value: float) -> str:
    """How large an effect is, without its sign, with its unit."""
    return f"{abs(value):.{target.decimals}f} {target.unit}".strip()


def span(target: Target, low: float | None, high: float | None) -> str:
    """A 95 % interval, 'low … high'; a dash without one."""
    return DASH if low is None or high is None else f"{signed(target, low)} … {signed(target, high)}"


def percent(share: float) -> str:
    """A share in per cent."""
    return minus(f"{100 * share:.0f} %")


def listing(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def labels(names: Sequence[str]) -> str:
    """Variables by their names for people."""
    return listing([label(name) for name in names])


def count(n: int, word: str) -> str:
    """'1 backbone', '2 backbones', '2 pairs of backbones'."""
    first, _, rest = word.partition(" of ")
    return f"{n} {plural(first, n)}{f' of {rest}' if rest else ''}"


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def p_value(value: float | None) -> str:
    """A p-value: '< 0.001' below that."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def units(estimate: Estimate) -> str:
    """'8 architectures'."""
    return count(estimate.n_units, estimate.unit) if estimate.unit else ""


def certainty(estimate: Estimate) -> str:
    """The verdict and why it is no more than that."""
    words = str(estimate.verdict)
    if estimate.p_adjusted is not None:
        words += f": p {'' if estimate.p_adjusted < 0.001 else '= '}{p_value(estimate.p_adjusted)} after correction"
    why = [*estimate.against, *estimate.doubts]
    if estimate.verdict == "likely" and not why:
        why = [f"{units(estimate)} are few"]
    return words + (f"; {listing(why)}" if why else "")
