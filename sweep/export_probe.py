"""A probe of a sweep as files to use elsewhere: the network up to the layer, pooling, classifier, labels and pixels.

    python -m sweep.export_probe --results results/best-birds --model resnet50.a1_in1k --to birds-probe
    python -m sweep.export_probe --results results/mine --config my.yaml --model resnet50.mine --layer 9 --to DIR

Writes safetensors, a loader of plain torch and timm (load_probe.py), and ONNX where torch exports the network. The
best layer is the one that held-out images chose. Weights that keep_probes kept are taken; others are fitted again.

Exit codes: 0 written, 1 store or directory cannot be read or written, 2 a mistake in the call.
"""

import argparse
import sys
from pathlib import Path

from sweep import artefact
from sweep.base import streams
from sweep.base.errors import UserError


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Command line of the export."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m sweep.export_probe",
        description=head,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", required=True, help="directory or URI of the sweep")
    parser.add_argument("--model", required=True, help="ARCHITECTURE, ARCHITECTURE.WEIGHTS, or a whole label")
    parser.add_argument("--to", required=True, type=Path, help="directory to write")
    parser.add_argument("--layer", help="number or name; default: the one that held-out images chose")
    parser.add_argument("--dataset", help="where the model was probed on several")
    parser.add_argument("--config", type=Path, help="of the sweep; default: what best_layer left in the results")
    parser.add_argument("--no-onnx", action="store_true", help="do not try to write probe.onnx")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Export the probe that the command line names; returns the exit code."""
    given = parse(argv)
    try:
        found = artefact.find(given.results, given.model, layer=given.layer, config=given.config, dataset=given.dataset)
        print(artefact.export(found, given.to, onnx=not given.no_onnx))
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # of the store, or of the directory to write
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    streams.steady()
    streams.run(main)
