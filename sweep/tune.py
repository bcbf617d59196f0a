#!/usr/bin/env python
"""Search the ID-training recipe of each architecture × ID dataset × resolution of a config, by its ``search`` section.

    python sweep/tune.py                                  the demo's search
    python sweep/tune.py --config my.yaml --plan          which recipes it would try, computing nothing
    python sweep/tune.py --config my.yaml                 run; run again after a kill, or with more search.trials
    python sweep/run.py  --config my.yaml --set recipes=results/mine-search/recipes.yaml

Exit codes: 0 every group has a recipe, 1 one has none, 2 a mistake in the call or the config, 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
sys.path[:] = [p for p in sys.path if not (Path(p).is_absolute() and Path(p).resolve() == ROOT / "sweep")]

from sweep.base import streams  # noqa: E402  (after the path is set: the file runs from any directory)

if __name__ == "__main__":
    streams.steady()  # before anything that takes a while is imported

from sweep import commands  # noqa: E402  (after the path is set: the file runs from any directory)
from sweep.base.errors import StorageError, UserError  # noqa: E402
from sweep.study import read_config  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Command line of the recipe search."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=Path, default=ROOT / "configs" / "tune-demo.yaml", help="YAML file; default: the demo's search"
    )
    parser.add_argument("--out", help="directory or URI of the search; default: results/<config name>-search")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a config value")
    parser.add_argument("--plan", action="store_true", help="list the trials, and stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; returns the exit code."""
    arguments = parse(argv)
    try:
        config = read_config(arguments.config, arguments.set, need_data=not arguments.plan)
        out = arguments.out or str(ROOT / "results" / f"{config.name}-search")
        if arguments.plan:
            print(commands.search_plan(config, out))
            return 0
        return commands.search(config, out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"{error}\nwhat is finished is kept; run the same command again to go on", file=sys.stderr)
        return 1


if __name__ == "__main__":
    streams.run(main)
