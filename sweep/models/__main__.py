"""``python -m sweep.models census [--all | --check] [NAME …]``: what is probed of every architecture of timm.

``python -m sweep.models weights [NAME …]``: what is known of downloaded weights, the study's own where none is named.
Exit codes: 0 done, 1 the census differs from its file, 2 a mistake in the call.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweep.base import streams

if __name__ == "__main__":
    streams.steady()  # before anything that takes a while is imported

import timm

from sweep.base.errors import UserError
from sweep.config import closest
from sweep.models import census, weights_catalogue

_SAVE_EVERY, _NEAR = 25, 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sweep.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    counting = commands.add_parser("census", help="what is probed of an architecture, or why nothing is")
    counting.add_argument("names", nargs="*", help="timm names; none: those the file lacks")
    counting.add_argument("--all", action="store_true", help="every architecture that timm lists, anew")
    counting.add_argument("--part", default="0/1", help="K/N: of these every N-th, from the K-th on")
    counting.add_argument("--file", type=Path, default=census.FILE)
    counting.add_argument(
        "--equal",
        type=float,
        default=0.0,
        metavar="M",
        help="for models of at most M million parameters also compare numbers with timm's forward_intermediates",
    )
    counting.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    listing = commands.add_parser("weights", help="objective, corpus, images, classes, augmentation, licence, source")
    listing.add_argument("names", nargs="*", help="timm's full names or patterns (vit_*.mae); none: the study's eight")
    listing.add_argument("--csv", action="store_true", help="as CSV")
    given = parser.parse_args(arguments)
    try:
        if given.command == "weights":
            print(weights_catalogue.text(weights_catalogue.rows(given.names), csv=given.csv))
            return 0
        return _census(given)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _census(given: argparse.Namespace) -> int:
    """Run the census of some architectures or all; print each entry, write the file, sum up."""
    if unknown := [name for name in given.names if not timm.is_model(name)]:
        near = ", ".join(closest(unknown[0], timm.list_models())[:_NEAR])
        raise UserError(f"{unknown[0]}: timm has no architecture of that name; the closest are {near}")
    if not re.fullmatch(r"\d+/[1-9]\d*", given.part):
        raise UserError(f"--part {given.part}: K/N is wanted, as 0/4")
    known = census.read(given.file)
    wanted = given.names or [n for n in timm.list_models() if given.all or given.check or n not in known]
    which, parts = (int(number) for number in given.part.split("/"))
    if given.check:
        found = census.differences(known, census.part(wanted, which, parts))
        print("\n".join(found) or "as the file has it")
        return 1 if found else 0
    _count(known, census.part(wanted, which, parts), given.file, given.equal)
    print(summary(known))
    return 0


def _count(known: dict[str, dict[str, Any]], wanted: Sequence[str], file: Path, millions: float) -> None:
    for number, name in enumerate(wanted, start=1):
        known[name] = census.entry(name, compare_up_to=round(millions * 1e6))
        print(name, known[name], file=sys.stderr, flush=True)
        if number % _SAVE_EVERY == 0 or number == len(wanted):
            file.write_text(census.text(known), encoding="utf-8")


def summary(models: dict[str, dict[str, Any]]) -> str:
    """The census in a few lines."""
    refused = [name for name, entry in models.items() if "refused" in entry]
    wrong = [name for name, entry in models.items() if "wrong" in entry]
    kinds = Counter(entry["layers"] for entry in models.values() if "layers" in entry)
    compared = [entry["equal"].split("/") for entry in models.values() if "equal" in entry]
    changed = sum(not entry["kept"] for entry in models.values() if "kept" in entry)
    lines = [
        f"{len(models)} architectures: {len(models) - len(refused) - len(wrong)} right, {len(wrong)} contradicted, "
        f"{len(refused)} refused",
        f"by default: {', '.join(f'{kind} {count}' for kind, count in kinds.most_common())}",
        f"embedded otherwise than by version 0.1: {changed}",
        f"compared with timm's numbers: {len(compared)} architectures, "
        f"{sum(int(a) for a, _ in compared)} of {sum(int(b) for _, b in compared)} intermediates equal",
    ]
    lines += [f"refused: {name}: {models[name]['refused']}" for name in refused]
    lines += [f"contradicted: {name}: {'; '.join(models[name]['wrong'])}" for name in wrong]
    return "\n".join(lines)


if __name__ == "__main__":
    streams.run(main)
