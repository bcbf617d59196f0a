"""``python -m tests.bench.findings STORE [NAME …]``: tables and figures of ``docs/findings.md``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from .. import machine
from . import figures, numbers
from .catalogue import FINDINGS
from .claims import Claim, Finding, agrees
from .layout import Difference

DOC = machine.ROOT / "docs" / "findings.md"
KEPT = DOC.with_suffix(".json")
FIGURES = machine.ROOT / "docs" / "figures"
HEAD = ("finding", "claim", "papers", "ours", "agrees?")


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the claims of the findings that the store has, keep all their numbers, and draw them."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.findings", description=__doc__)
    parser.add_argument("store", help="folder that the configs of configs/findings filled")
    parser.add_argument("names", nargs="*", help="only these findings", metavar="|".join(f.name for f in FINDINGS))
    parser.add_argument("--print", action="store_true", help="write nothing, print the rows")
    options = parser.parse_args(arguments)
    asked = [found for found in FINDINGS if not options.names or found.name in options.names]
    made = {found.name: numbers.measured(found, found.frame(options.store)) for found in asked}
    print(*(row for found in asked for row in rows_of(found, made[found.name])), sep="\n")
    if not options.print:
        kept = numbers.read(KEPT) | made
        numbers.write(KEPT, {found.name: kept[found.name] for found in FINDINGS if found.name in kept})
        for found in asked:
            figures.draw(found.name, options.store).savefig(FIGURES / f"finding-{found.name}.png", dpi=100)
        _write([row for found in FINDINGS if found.name in kept for row in rows_of(found, kept[found.name])])
    return 0


def rows_of(found: Finding, own: numbers.Numbers) -> list[str]:
    """A Markdown row for every claim of a finding, from its numbers."""
    told = zip(found.claims, own["claims"], strict=True)
    return [_row(found, claim, numbers.difference(each)) for claim, each in told]


def _row(found: Finding, claim: Claim, ours: Difference) -> str:
    digits = {"of ‖W₀‖": 2, "a weight": 3}.get(claim.unit, 1)
    interval = f"{ours.low:+.{digits}f} … {ours.high:+.{digits}f}"
    number = f"{ours.value:+.{digits}f} {claim.unit} ({interval}; {ours.n} {found.unit})"
    link = f"[{found.title}](#{_anchor(found.title)})"
    return "| " + " | ".join((link, claim.text, claim.papers, number.replace("-", "−"), agrees(claim, ours))) + " |"


def _anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _write(rows: Sequence[str], file: Path = DOC) -> None:
    table = "\n".join(["| " + " | ".join(HEAD) + " |", "|---|---|---|---|---|", *rows])
    text = file.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- claims[^\n]*-->\n).*?(<!-- /claims -->)", re.DOTALL)
    if not marked.search(text):
        raise SystemExit(f"{file}: no place for the table, <!-- claims --> … <!-- /claims -->")
    file.write_text(marked.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
