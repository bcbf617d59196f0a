"""Markdown: tables, and a results file whose sections are replaced one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADER = """# Results

Written by `python -m tests.bench`; each section is replaced when its benchmark is run again (without `--quick`).
What is measured, and how, stands in [README.md](README.md).
"""
TITLES = {
    "probes": "Fitting probes",
    "solvers": "Does the probe make the tunnel?",
    "train": "ID training",
    "decode": "Decoding images",
    "steps": "Other ways to take a training step",
    "embed": "Extraction",
    "gpu": "A paper backbone on a GPU",
    "growth": "How time and memory grow",
    "attribution": "Attribution",
    "coverage": "How often intervals hold the truth",
    "storage": "Store, scheduling, workers",
    "jobs": "The main job, before and now",
    "browse": "The page to browse",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def section(name: str, body: str, machine: Mapping[str, Any]) -> str:
    """One benchmark's part of the file, between markers."""
    where = (
        f"{machine['date']}, {machine['device']}, {machine['cores']} cores ({machine['threads']} threads), "
        f"{machine['memory_gib']} GiB, torch {machine['torch']}, Python {machine['python']}, "
        f"commit {machine['commit'][:12]}."
    )
    if machine["provisional"]:
        where += f" **Provisional: others used {machine['others']:.0%} of the processor meanwhile.**"
    return f"<!-- {name} -->\n## {TITLES[name]}\n\n{where}\n\n{body.strip()}\n<!-- /{name} -->\n"


def update(file: Path, sections: Mapping[str, str]) -> None:
    """Replace these sections of a results file, keeping the others; made if it is not there."""
    kept = dict(_sections(file.read_text(encoding="utf-8"))) if file.exists() else {}
    merged = kept | dict(sections)
    ordered = [merged[name] for name in TITLES if name in merged]
    file.write_text("\n".join([HEADER, *ordered]), encoding="utf-8")


def _sections(text: str) -> list[tuple[str, str]]:
    pattern = re.compile(r"<!-- (\w+) -->\n.*?<!-- /\1 -->\n", re.DOTALL)
    return [(match[1], match[0]) for match in pattern.finditer(text)]
