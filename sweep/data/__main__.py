"""The datasets of the study: what is known of them, whether they are here and sound, where to get them.

    python -m sweep.data ls                                     names, roles, classes, images, sizes, licences
    python -m sweep.data check --config my.yaml                 the doctor, on every dataset of a config
    python -m sweep.data check cub200 --path /data/CUB_200_2011.tgz --all
    python -m sweep.data fetch cub200 --to /data                resumed, compared with the publisher's checksums
    python -m sweep.data cache --keep 50                        what the local cache holds; removes what is over 50 GB

Exit codes: 0 all is well, 1 a fault was found (with --strict: or a warning), 2 a mistake in the call.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sweep import register
from sweep.base import streams
from sweep.base.errors import UserError
from sweep.base.line import Line, duration
from sweep.config import Config, read_yaml
from sweep.data.asked import cache_dir, dataset_options, used_datasets
from sweep.data.doctor import Finding, Report, examine, overlaps
from sweep.data.facts import known_datasets, sheets
from sweep.data.fetch import describe, fetch, unpack
from sweep.data.options import DatasetOptions
from sweep.data.scratch import contents, keep_newest, remove_older


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m sweep.data",
        description=head,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("ls", help="every dataset of the study, and whether a config's files are here")
    checking = actions.add_parser("check", help="the doctor: files against the fact sheets")
    checking.add_argument("name", nargs="?", help="one dataset; default: all that the config's grid asks for")
    checking.add_argument("--path", help="where the dataset is, if no config says so")
    checking.add_argument("--all", action="store_true", help="decode every image, hash every archive")
    checking.add_argument("--strict", action="store_true", help="exit code 1 for warnings too")
    fetching = actions.add_parser("fetch", help="download a dataset's archives")
    fetching.add_argument("name")
    fetching.add_argument("--to", type=Path, required=True, help="directory")
    fetching.add_argument("--mirror", action="append", default=[], help="address of a directory tried first")
    fetching.add_argument("--unpack", action="store_true", help="unpack the archives there")
    caching = actions.add_parser("cache", help="the node-local cache of decoded images, kept embeddings and listings")
    caching.add_argument("--older-than", type=float, metavar="DAYS", help="remove what was not used for so long")
    caching.add_argument("--keep", type=float, metavar="GB", help="remove images used longest ago but for so many GB")
    for action in (listing, checking, caching):
        action.add_argument("--config", help="a sweep's config")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks; returns the exit code."""
    arguments = parse(argv)
    try:
        return _ACTIONS[arguments.action](arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _config(arguments: argparse.Namespace) -> Config | None:
    if arguments.config is None:
        return None
    reading = read_yaml(arguments.config)
    try:
        register.load(reading.config.imports, reading.config.import_path)
    except register.PluginImportError as error:
        raise UserError(f"{arguments.config}: {error}") from error
    return reading.config


def _ls(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    print(f"{'name':<12} {'role':<8} {'classes':>7} {'train':>9} {'test':>7} {'archives':>9}  {'here':<5} licence")
    for sheet in sheets().values():
        size = sum(archive.bytes or 0 for archive in sheet.archives if not archive.optional) / 1e9
        here = _is_here(config, sheet.name) if config else "?"
        print(
            f"{sheet.name:<12} {sheet.role:<8} {sheet.classes:>7,} {sheet.train:>9,} {sheet.test:>7,} "
            f"{f'{size:.1f} GB' if size else '?':>9}  {here:<5} {sheet.licence}"
        )
    return 0


def _is_here(config: Config, name: str) -> str:
    """Whether a config says where a dataset is, and it is there."""
    path = dataset_options(config, name).path
    return "no" if path is None or not Path(path).exists() else "yes"


def _check(arguments: argparse.Namespace) -> int:
    wanted, cache = _wanted(arguments)
    line, started = Line(), time.monotonic()
    reports: dict[str, Report] = {}
    for name, options in wanted.items():
        reports[name] = examine(name, options, cache_dir=cache, everything=arguments.all, each=line.show)
        line.end()
        _show(reports[name])
    shared = _overlaps(arguments, reports)
    for finding in shared:
        print(f"{finding.level}: {finding.text}")
    faults = sum(not report.is_sound for report in reports.values())
    warned = any(f.level == "warning" for f in (*shared, *(f for report in reports.values() for f in report.findings)))
    print(f"{len(reports)} datasets, {faults} with faults; {duration(time.monotonic() - started)}")
    return int(faults > 0 or (arguments.strict and warned))


def _wanted(arguments: argparse.Namespace) -> tuple[dict[str, DatasetOptions], Path]:
    """Datasets to examine, and the cache directory."""
    config = _config(arguments)
    if arguments.path is not None:
        if arguments.name is None:
            raise UserError("--path needs the name of the dataset: python -m sweep.data check NAME --path PATH")
        options = DatasetOptions("folder", path=str(Path(arguments.path).absolute()))
        return {arguments.name: options}, cache_dir(config)
    if config is None:
        raise UserError("check needs --config FILE, or NAME and --path PATH")
    names = used_datasets(config) if arguments.name is None else (arguments.name,)
    known = {*config.datasets, *known_datasets()}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"no such dataset: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return {name: dataset_options(config, name) for name in names}, cache_dir(config)


def _show(report: Report) -> None:
    print(f"{report.name}: {'sound' if report.is_sound else 'FAULTS'}")
    for finding in report.findings:
        print(f"  {finding.level}: {finding.text}")


def _overlaps(arguments: argparse.Namespace, reports: dict[str, Report]) -> list[Finding]:
    """Classes that the config's ID datasets share with what is probed beside them."""
    config = _config(arguments)
    if config is None:
        return []
    opened = {name: report.dataset for name, report in reports.items()}
    found: dict[str, Finding] = {}
    for block in config.grid:
        probed = config.probe_datasets if block.probe_datasets is None else block.probe_datasets
        ids = {name: opened[name] for name in block.id_dataset or () if name in opened}
        oods = {name: opened[name] for name in probed if name in opened and name not in config.shifted}
        found |= {finding.text: finding for finding in overlaps(ids, oods)}
    return list(found.values())


def _fetch(arguments: argparse.Namespace) -> int:
    sheet = sheets().get(arguments.name)
    if sheet is None:
        raise UserError(f"no such dataset: {arguments.name}; there are sheets of {', '.join(sheets())}")
    print(describe(sheet), flush=True)
    line = Line()
    try:
        files = fetch(sheet, arguments.to, mirrors=arguments.mirror, each=line.show)
    finally:
        line.end()
    if arguments.unpack:
        unpack(files, arguments.to)
    place = files[0] if len(files) == 1 and not arguments.unpack else arguments.to
    print(f"in {arguments.to}: {', '.join(file.name for file in files)}")
    print(f"in a config: datasets: {{{sheet.name}: {{path: {place.absolute()}}}}}")
    if len(files) > 1 and not arguments.unpack:
        print("it is read unpacked: the same command with --unpack does it")
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    directory = cache_dir(_config(arguments))
    for option, number in (("--older-than", arguments.older_than), ("--keep", arguments.keep)):
        if number is not None and not 0 <= number < math.inf:
            raise UserError(f"{option} {number:g}: it takes a number from 0 on")
    if arguments.older_than is not None:
        count, size = remove_older(directory, days=arguments.older_than)
        print(f"removed {count} entries, {size / 1e9:.2f} GB, not used for {arguments.older_than:g} days")
    if arguments.keep is not None:
        count, size = keep_newest(directory, most=round(1e9 * arguments.keep))
        print(f"removed {count} entries of images, {size / 1e9:.2f} GB, used longest ago")
    for kind, (count, size) in contents(directory).items():
        print(f"{directory / kind}: {count} entries, {size / 1e9:.2f} GB")
    return 0


_ACTIONS = {"ls": _ls, "check": _check, "fetch": _fetch, "cache": _cache}

if __name__ == "__main__":
    streams.steady()
    streams.run(main)
