#!/usr/bin/env python
"""Turn a probe table into a report: what drives the tunnel effect, in which direction, and how sure is that?

    python analysis/shap_report.py                              the newest finished sweep under results/
    python analysis/shap_report.py --results DIR|URI --accuracy paper
    python analysis/shap_report.py --table FILE.csv --mapping configs/tables/harun2024.yaml --protocol paper --out DIR

Exit codes: 0 the report is written, 2 a mistake in the call or the table.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
sys.path[:] = [p for p in sys.path if not (Path(p).is_absolute() and Path(p).resolve() == ROOT / "analysis")]

from analysis import streams  # noqa: E402  (after the path is set: the file runs from any directory)

if __name__ == "__main__":
    streams.steady()  # before anything that takes a while is imported

from analysis import study  # noqa: E402
from analysis.estimates.models import PROTOCOLS  # noqa: E402
from analysis.page import files  # noqa: E402
from analysis.tables import storage  # noqa: E402
from analysis.tables.errors import UserError  # noqa: E402
from analysis.tables.experiments import Experiments  # noqa: E402
from analysis.tables.mapped import read_mapped  # noqa: E402
from analysis.tables.metrics import ACCURACIES  # noqa: E402
from analysis.tables.sweep import other_accuracies, read_sweep  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Command line of the report."""
    head, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--results", help="folder or URI of a sweep; default: the newest finished one under results/")
    source.add_argument("--table", help="a table of experiments, CSV or Parquet; needs --mapping")
    parser.add_argument("--mapping", help="with --table: YAML that says which column is what")
    parser.add_argument("--accuracy", choices=ACCURACIES, help="with --results: which accuracy (default: heldout)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="default", help="our model, or the paper's")
    parser.add_argument("--target", action="append", default=[], help="analyse this target only; may be repeated")
    parser.add_argument("--variables", default="", help="attribute to these variables only: a,b,c")
    parser.add_argument("--group", help="column that names the backbone, if not the table's own")
    parser.add_argument(
        "--bootstrap", type=int, metavar="N", help="resamples; 0: no intervals (default: 500; paper: 30)"
    )
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: one per core)")
    parser.add_argument("--out", help="folder or URI of the report; default: <results>/report")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write the report that the command line asks for; returns the exit code."""
    call = parse(argv)
    try:
        if bool(call.table) != bool(call.mapping):
            raise UserError("--table and --mapping go together: the mapping says what the columns of the table are")
        if call.table and call.accuracy:
            raise UserError("--accuracy chooses among the columns of --results; the mapping of --table names its own")
        others: dict[str, Experiments] = {}
        if call.table:
            experiments, out = read_mapped(call.table, call.mapping), call.out or "report"
        else:
            results = call.results or storage.newest_sweep()
            experiments = read_sweep(results, accuracy=call.accuracy or "heldout")
            place = storage.folder(results) if storage.ending(results).endswith(".parquet") else results
            out = call.out or storage.join(place, "report")
            others = other_accuracies(results, experiments.choice)
        chosen = [name.strip() for name in call.variables.split(",") if name.strip()]
        experiments = experiments.narrowed(targets=call.target, variables=chosen, group=call.group)
        options = study.Options(protocol=call.protocol, bootstrap=call.bootstrap, jobs=call.jobs)
        print(files.write_report(experiments, options, out, others=others))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    streams.run(main)
