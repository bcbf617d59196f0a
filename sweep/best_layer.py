#!/usr/bin/env python
"""Which layer of which pretrained model is best for your images? A small sweep, a table and a sentence.

    python sweep/best_layer.py --data /data/birds --models resnet50.a1_in1k,vit_small_patch14_dinov2.lvd142m
    python sweep/best_layer.py --data birds.tar.gz --models suggest --budget 20m        ten models, the better on all
    python sweep/best_layer.py --data birds --models 'vit_small*' --few-shot 10         10 training images of a class
    python sweep/best_layer.py --data birds --models resnet50 --weights my.pt           weights of your own
    python sweep/best_layer.py --config my.yaml --data birds                            models and weights of a config

Training images choose the layer (held out, or cross-fitted where these are few), test images only report. The results
are those of any sweep: the report, the browsing page and python -m sweep.export_probe read them.

Exit codes: 0 answered, 1 a model failed, 2 a mistake in the call, 130 interrupted.
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

from sweep import answer  # noqa: E402  (after the path is set: the file runs from any directory)
from sweep.base.errors import StorageError, UserError  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Command line of the question."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of class folders or an archive of one, or a dataset of the config")
    parser.add_argument(
        "--models", action="append", default=[], metavar="A,B", help="names, patterns, files of names, suggest"
    )
    parser.add_argument("--weights", action="append", default=[], metavar="[ARCHITECTURE=]FILE", help="your own")
    parser.add_argument("--config", type=Path, help="whose plug-ins, weights, datasets and settings hold here too")
    parser.add_argument("--few-shot", type=int, metavar="N", help="at most N training images of a class")
    parser.add_argument("--budget", metavar="TIME", help="20m: few images first, the better models on all")
    parser.add_argument("--resolution", type=int, help="side of the images, px; default: that of the weights")
    parser.add_argument("--out", help="directory or URI of the results; default: results/best-DATA")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="a config value")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Answer the question of the command line; returns the exit code."""
    given = parse(argv)
    try:
        question = answer.ask(
            data=given.data,
            models=[name.strip() for word in given.models for name in word.split(",") if name.strip()],
            weights=given.weights,
            config=given.config,
            few_shot=given.few_shot,
            resolution=given.resolution,
            overrides=given.set,
        )
        return answer.answer(question, given.out or str(ROOT / "results" / question.name), budget=given.budget)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"{error}\nwhat is finished is kept; run the same command again to go on", file=sys.stderr)
        return 1


if __name__ == "__main__":
    streams.run(main)
