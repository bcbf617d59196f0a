"""The recipe search on Ray Tune: ASHA among the trials of each group, many groups at once.

Tune runs and stops trials; what is known of them stands in the store, see :mod:`sweep.study.recipes`. So a search goes
on from records and checkpoints, and nothing is unpickled from storage.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from sweep.base.errors import InterruptedSweepError
from sweep.base.line import Line, duration
from sweep.base.store import Store
from sweep.cell import CellTask
from sweep.config import Resources, Search
from sweep.study import Record, Trial, TrialOutcome, group_label
from sweep.table import read_records, write_record

_METRIC, _EPOCH, _INDEX = "heldout_top1", "epoch", "trial"


class AshaPerGroup(FIFOScheduler):
    """Asynchronous successive halving, each group of backbones for itself; trial 0 always runs to its end.

    Parameters
    ----------
    search : with the grace period and the reduction factor.
    found : every trial of the search in order; a trial of Tune names its position. Those with a record count as if
        they had just run, so that a search that goes on stops trials as an undisturbed one would.
    """

    def __init__(self, search: Search, found: Sequence[TrialOutcome]) -> None:
        super().__init__()
        self._trials = [outcome.trial for outcome in found]
        self._halving = {
            group: ASHAScheduler(
                time_attr=_EPOCH,
                metric=_METRIC,
                mode="max",
                max_t=_longest(self._trials, group),
                grace_period=min(search.grace_epochs, _longest(self._trials, group)),
                reduction_factor=search.reduction_factor,
            )
            for group in dict.fromkeys(trial.group for trial in self._trials)
        }
        for outcome in found:
            if outcome.record is not None:
                self._replay(outcome.trial, outcome.record, outcome.key)

    def _replay(self, trial: Trial, record: Record, key: str) -> None:
        halving, known = self._halving[trial.group], SimpleNamespace(trial_id=key)
        halving.on_trial_add(None, known)
        for epoch in range(1, len(record.heldout_top1_epochs) + 1):
            best = max(record.heldout_top1_epochs[:epoch])
            halving.on_trial_result(None, known, {_EPOCH: epoch, _METRIC: best})

    def _of(self, trial: TuneTrial) -> tuple[Trial, ASHAScheduler]:
        ours = self._trials[trial.config[_INDEX]]
        return ours, self._halving[ours.group]

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Enter a trial into its group's halving."""
        self._of(trial)[1].on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Whether a trial goes on after an epoch."""
        ours, halving = self._of(trial)
        decision = halving.on_trial_result(tune_controller, trial, result)
        assert ours.backbone.recipe is not None
        ending = ours.number == 0 or result[_EPOCH] >= ours.backbone.recipe.epochs
        return TrialScheduler.CONTINUE if ending else decision  # a trial that ends leaves its own record

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Note the last result of a trial."""
        self._of(trial)[1].on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Forget a trial that did not start."""
        self._of(trial)[1].on_trial_remove(tune_controller, trial)


def _longest(trials: Sequence[Trial], group: tuple[tuple[str, Any], ...]) -> int:
    return max(trial.backbone.recipe.epochs for trial in trials if trial.group == group and trial.backbone.recipe)


def _train(config: Mapping[str, Any], tasks: Mapping[int, CellTask]) -> None:
    """Body of a Tune trial; torch is imported in the worker only."""
    from sweep.cell import run_trial

    def report(record: Record) -> None:
        """Tell Tune the held-out top-1 so far, and what a record of the trial needs."""
        tune.report(
            {
                _METRIC: record.heldout_top1,
                _EPOCH: len(record.heldout_top1_epochs),
                "heldout_top1_epochs": list(record.heldout_top1_epochs),
                "n_heldout": record.n_heldout,
                "train_seconds": record.seconds,
            }
        )

    run_trial(tasks[config[_INDEX]], report)


class _Watcher(tune.Callback):
    """Leaves the record of a trial that was stopped, and shows how far the search is."""

    def __init__(self, store_uri: str, found: Sequence[TrialOutcome]) -> None:
        self._uri, self._found = store_uri, found
        self._ended = sum(outcome.record is not None for outcome in found)
        self._before, self._started = self._ended, time.monotonic()
        self._best: dict[tuple[tuple[str, Any], ...], float] = {}

    def setup(self, **_info: Any) -> None:
        """Open what cannot be pickled."""
        self._store, self._line = Store(self._uri), Line()

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **_info: Any
    ) -> None:
        """Draw the line anew."""
        del iteration, trials
        group = self._found[trial.config[_INDEX]].trial.group
        self._best[group] = max(result[_METRIC], self._best.get(group, 0.0))
        elapsed, ended = time.monotonic() - self._started, self._ended - self._before
        to_do = len(self._found) - self._ended
        left = f"{duration(elapsed * to_do / ended)} left" if ended else "estimating the time left"
        best = f"best of {group_label(group)}: {100 * self._best[group]:.1f} %"
        self._line.show(f"{self._ended}/{len(self._found)} trials · {left} · {best}")

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_info: Any) -> None:
        """A trial that has not reached its last epoch was stopped: that is how it ended."""
        del iteration, trials
        self._ended += 1
        found, last = self._found[trial.config[_INDEX]], trial.last_result
        assert found.trial.backbone.recipe is not None
        if last and last.get(_EPOCH, 0) < found.trial.backbone.recipe.epochs and not self._has_record(found.key):
            accuracies = tuple(last["heldout_top1_epochs"])
            write_record(
                self._store, found.key, Record("stopped", accuracies, last["n_heldout"], last["train_seconds"])
            )

    def _has_record(self, key: str) -> bool:
        return self._store.exists(f"trials/{key}.json")

    def on_experiment_end(self, trials: list[TuneTrial], **_info: Any) -> None:
        """Leave the line."""
        del trials
        self._line.end()


def run_trials(
    search: Search, found: Sequence[TrialOutcome], tasks: Mapping[int, CellTask], store: Store, resources: Resources
) -> None:
    """Run the trials that have no record.

    Parameters
    ----------
    tasks : position in ``found`` → task, of the trials to run.
    resources : with ``auto`` resolved; Ray is connected.

    Raises
    ------
    InterruptedSweepError
        On SIGINT or SIGTERM; the records of trials that ended are kept, and checkpoints of the others.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the newer output prints a table even at verbosity 0
    gpus = min(1.0, float(resources.gpus)) / search.trials_per_gpu
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_train, tasks=dict(tasks)), {"cpu": float(resources.cpus), "gpu": gpus}
        ),
        param_space={_INDEX: tune.grid_search(sorted(tasks))},
        tune_config=tune.TuneConfig(metric=_METRIC, mode="max", scheduler=AshaPerGroup(search, found)),
        run_config=tune.RunConfig(
            storage_path=store.path("tune"),
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            callbacks=[_Watcher(store.uri, found)],
            verbose=0,
        ),
    )
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))  # which Tune listens to
    try:
        results = tuner.fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = {result.config[_INDEX]: result.error for result in results if result.error is not None}
    for number, error in failed.items():
        print(f"{found[number].trial.label}: {error}", file=sys.stderr)
    ended = read_records(store, [found[number].key for number in tasks])
    if any(found[number].key not in ended and number not in failed for number in tasks):
        raise InterruptedSweepError
