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
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "sweep"]

from sweep import driver, search_report  # noqa: E402  (after the path is set: the file runs from any directory)
from sweep.base.errors import InterruptedSweepError, UserError  # noqa: E402
from sweep.driver_cluster import cluster  # noqa: E402
from sweep.study import Cell, Outcome, group_label, outcomes, propose, read_config, trial_key  # noqa: E402
from sweep.table import read_records  # noqa: E402
from sweep.task import CellTask  # noqa: E402
from sweep.train import checkpoint_name  # noqa: E402


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
        if config.search is None:
            raise UserError(f"{arguments.config}: no search section: it names the recipe keys to search, with ranges")
        sweep = driver.prepare(config, arguments.out or str(ROOT / "results" / f"{config.name}-search"))
        found = _outcomes(sweep)
        if arguments.plan:
            print(plan(found))
            return 0
        try:
            run(sweep, found)
        except (InterruptedSweepError, KeyboardInterrupt):
            print("interrupted: trials that ended are kept; run the same command again to go on", file=sys.stderr)
            return 130
        return conclude(sweep)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _outcomes(sweep: driver.Sweep) -> list[Outcome]:
    """Every trial of the config's search, with what the store knows of it."""
    assert sweep.config.search is not None
    trials = propose(sweep.config.search, sweep.grid)
    records = read_records(sweep.store, [trial_key(sweep.keys, trial) for trial in trials])
    return outcomes(trials, sweep.keys, records)


def plan(found: Sequence[Outcome]) -> str:
    """The trials of a search, one a line."""
    groups = len({outcome.trial.group for outcome in found})
    done = sum(outcome.record is not None for outcome in found)
    lines = [f"{len(found)} trials for {groups} groups of backbones, {done} already there"]
    for outcome in sorted(found, key=lambda o: (group_label(o.trial.group), o.trial.number)):
        lines.append(f"  {outcome.trial.label}{' (the config)' if outcome.trial.number == 0 else ''}")
    return "\n".join(lines)


def run(sweep: driver.Sweep, found: Sequence[Outcome]) -> None:
    """Run the trials that have no record."""
    missing = [number for number, outcome in enumerate(found) if outcome.record is None]
    if not missing:
        return
    print(f"{sweep.config.name}: {len(missing)} of {len(found)} trials to do", file=sys.stderr)
    with cluster(sweep.config.resources) as resources:
        from sweep.tune_ray import fit

        assert sweep.config.search is not None
        tasks = {number: _task(sweep, found[number], gpu=float(resources.gpus) > 0) for number in missing}
        fit(sweep.config.search, found, tasks, sweep.store, resources)


def _task(sweep: driver.Sweep, outcome: Outcome, *, gpu: bool) -> CellTask:
    return driver.task_of(sweep, Cell(outcome.trial.backbone, (), ()), gpu)


def conclude(sweep: driver.Sweep) -> int:
    """Write what was found, drop the checkpoints of trials that ended, say it; returns the exit code."""
    found, store = _outcomes(sweep), sweep.store
    search_report.write(store, found, name=sweep.config.name)
    for outcome in found:
        if outcome.record is not None:
            store.delete(checkpoint_name(outcome.key))
    print(search_report.summary(found))
    print(f"recipes:  {store.path(search_report.RECIPES)} (in a config: recipes: FILE)")
    print(f"evidence: {store.path(search_report.TRIALS)}, {store.path(search_report.FIGURE)}")
    groups = {outcome.trial.group for outcome in found}
    return 0 if groups == {outcome.trial.group for outcome in found if outcome.chosen} else 1


if __name__ == "__main__":
    sys.exit(main())
