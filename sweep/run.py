#!/usr/bin/env python
"""Run a sweep: pretrain or load backbones, embed, fit linear probes on every layer, write the Parquet table.

    python sweep/run.py                                    the demo
    python sweep/run.py --config my.yaml --plan            what it would do, computing nothing
    python sweep/run.py --config my.yaml --out s3://bucket/sweep --set recipe.epochs=50
    python sweep/run.py --config my.yaml --weights mine    how a checkpoint of the config fits its architectures
    python sweep/run.py --layers resnet34                  which layers are probed, and their widths

Exit codes: 0 all curves are in the table, 1 some failed, 2 a mistake in the call or the config, 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "sweep"]

from sweep import summary  # noqa: E402  (after the path is set: the file runs from any directory)
from sweep.config_file import read_config  # noqa: E402
from sweep.errors import UserError  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Command line of the main job."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=Path, default=ROOT / "configs" / "demo.yaml", help="YAML file; default: the demo"
    )
    parser.add_argument("--out", help="directory or URI of the results; default: results/<config name>")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a config value")
    parser.add_argument("--plan", action="store_true", help="print counts, cost and confounded variables, and stop")
    parser.add_argument("--layers", metavar="NAME", help="list the probed layers of an architecture, and stop")
    parser.add_argument("--weights", metavar="NAME", help="say how the config's weights NAME fit, and stop")
    parser.add_argument("--resolution", type=int, default=224, help="with --layers: input side, px (default 224)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; returns the exit code."""
    arguments = parse(argv)
    try:
        only_asks = arguments.plan or arguments.layers or arguments.weights
        config = read_config(arguments.config, arguments.set, need_data=not only_asks)
        if arguments.layers:
            print(summary.layers(arguments.layers, arguments.resolution))
            return 0
        if arguments.weights:
            print(summary.weights(config, arguments.weights))
            return 0
        out = arguments.out or str(ROOT / "results" / config.name)
        if arguments.plan:
            print(summary.plan(config, out))
            return 0
        return summary.run(config, out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
