#!/usr/bin/env python
"""Run a sweep: pretrain or load backbones, embed, fit linear probes on every layer, write the Parquet table.

    python sweep/run.py                                    the demo
    python sweep/run.py --config my.yaml --plan            what it would do, computing nothing
    python sweep/run.py --config my.yaml --calibrate       the same with hours, from some seconds of each network here
    python sweep/run.py --config my.yaml --out s3://bucket/sweep --set recipe.epochs=50
    python sweep/run.py --config my.yaml --profile         and say where the time went, with a timeline
    python sweep/run.py --config configs/paper.yaml --only cifar10 --plan     some of its blocks; --size 10|100|all
    python sweep/run.py --config my.yaml --retry-failed    also what failed for a reason that stays
    python sweep/run.py --out s3://bucket/sweep --status   done, running, failed and missing, from the store alone
    python sweep/run.py --config my.yaml --weights mine    how a checkpoint of the config fits its architectures
    python sweep/run.py --layers resnet34                  which layers are probed, and their widths

Exit codes: 0 all curves are in the table, 1 some failed, 2 a mistake in the call or the config, 130 interrupted.
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
from sweep.config import SIZES, read_yaml  # noqa: E402
from sweep.study import read_config  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Command line of the main job."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="YAML file; default: the demo")
    parser.add_argument("--out", help="directory or URI of the results; default: results/<config name>")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a config value")
    parser.add_argument("--only", action="append", default=[], metavar="BLOCK", help="only blocks of this name")
    parser.add_argument("--size", choices=SIZES, help="only what belongs to a study of about so many backbones")
    parser.add_argument("--plan", action="store_true", help="print counts, cost and confounded variables, and stop")
    parser.add_argument("--calibrate", action="store_true", help="the plan with hours: seconds of each network here")
    parser.add_argument(
        "--status", action="store_true", help="say how far the sweep in --out is, and stop; needs no Ray"
    )
    parser.add_argument("--watch", action="store_true", help="the same, again and again until all is done")
    parser.add_argument("--retry-failed", action="store_true", help="also try what failed for a reason that stays")
    parser.add_argument(
        "--profile", action="store_true", help="also say where the time went, and leave a timeline in the results"
    )
    parser.add_argument("--verify", action="store_true", help="first parse every fragment; damaged ones are redone")
    parser.add_argument("--layers", metavar="NAME", help="list the probed layers of an architecture, and stop")
    parser.add_argument("--weights", metavar="NAME", help="say how the config's weights NAME fit, and stop")
    parser.add_argument("--names", action="store_true", help="with --weights: every name that does not fit")
    parser.add_argument("--resolution", type=int, default=224, help="with --layers: input side, px (default 224)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; returns the exit code."""
    arguments = parse(argv)
    try:
        return answer(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"{error}\nwhat is finished is kept; run the same command again to go on", file=sys.stderr)
        return 1


def answer(arguments: argparse.Namespace) -> int:
    """Run a sweep, or print what is asked of it; returns the exit code."""
    asks_store = arguments.status or arguments.watch
    if asks_store and arguments.out and not arguments.config:
        return commands.status(arguments.out, None, watch=arguments.watch)
    only_asks = asks_store or arguments.plan or arguments.calibrate or arguments.weights or arguments.layers
    file = arguments.config or ROOT / "configs" / "demo.yaml"
    part = {"only": [name for said in arguments.only for name in said.split(",")], "size": arguments.size}
    config = read_config(file, arguments.set, need_data=not only_asks, **part)
    out = arguments.out or str(ROOT / "results" / read_yaml(file, arguments.set).config.name)  # parts share a store
    if asks_store:
        return commands.status(out, config.name, watch=arguments.watch)
    if arguments.layers:  # the config's plug-ins may have registered it
        print(commands.layers(config, arguments.layers, arguments.resolution))
        return 0
    if arguments.weights:
        return commands.weights(config, arguments.weights, every_name=arguments.names)
    if arguments.plan or arguments.calibrate:
        print(commands.plan(config, out))
        if arguments.calibrate:
            print(f"\n{commands.calibrated(config, out)}")
        return 0
    return commands.run(
        config, out, retry_failed=arguments.retry_failed, verify=arguments.verify, profile=arguments.profile
    )


if __name__ == "__main__":
    streams.run(main)
