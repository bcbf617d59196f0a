"""One backbone trained by several processes through Ray Train, which starts them, connects them and ends them together.

Checkpoints are the sweep's own, in its store: Ray Train keeps nothing, and does not try again by itself.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from sweep.cell import CellResult, CellTask, profiled
from sweep.config import Resources
from sweep.driver.nodes import located

_SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a Ray job are relative to its copy of the working directory
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600",  # an autoscaler takes its time
}
_EXCHANGE_SECONDS = 7200  # one process may wait for another that decodes images; dead ones are noticed at once


def start(task: CellTask, resources: Resources) -> Any:
    """A Ray task that trains the task's backbone; its result is as that of a task which trains alone.

    Parameters
    ----------
    resources : of each process, with ``auto`` resolved.
    """
    import ray

    return ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_supervise).remote(task, resources)


def _supervise(task: CellTask, resources: Resources) -> CellResult:
    """Body of that task: it waits, and takes no place of its own."""
    os.environ.update(_SETTINGS)
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):
        """Without Ray Train's detached guard of placement groups: it outlives a sweep, and without a dashboard its end
        takes 12 s. Ray itself frees the places of a trainer that dies.
        """

        def _create_default_callbacks(self) -> list[Any]:
            unwanted = "PlacementGroupCleanerCallback"
            return [one for one in super()._create_default_callbacks() if type(one).__name__ != unwanted]

    gpu = float(resources.gpus) > 0
    each = {"CPU": float(resources.cpus)} | ({"GPU": 1.0} if gpu else {})
    with tempfile.TemporaryDirectory(prefix="tunnel-sweep-") as scratch:
        trainer = Trainer(
            _rank,
            train_loop_config={"task": task},
            torch_config=TorchConfig(timeout_s=_EXCHANGE_SECONDS),
            scaling_config=train.ScalingConfig(
                num_workers=task.cell.backbone.processes, use_gpu=gpu, resources_per_worker=each
            ),
            run_config=train.RunConfig(storage_path=scratch, failure_config=train.FailureConfig(max_failures=0)),
        )
        try:
            trainer.fit()
        except train.TrainingFailedError as error:
            return _outcome(getattr(error, "worker_failures", {}), error)
    return CellResult((), ())


def _rank(config: Mapping[str, Any]) -> None:
    """Body of each process, which Ray Train has connected with the others."""
    with profiled(config["task"]):
        from sweep.cell import train_together
        from sweep.train import connected

        with located():
            train_together(config["task"], connected())


def _outcome(failures: Mapping[int, Exception], error: Exception) -> CellResult:
    """What befell the processes, as a task that trains alone would say it.

    Raises
    ------
    OSError
        If another attempt may succeed: storage failed, a process or its node is gone.
    Exception
        Whatever else a process raised.
    """
    from sweep.cell import RecordedError
    from sweep.train import RankLostError

    causes = [getattr(failure, "_base_exc", failure) for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, RecordedError):
            return CellResult((), cause.keys)
    told = [cause for cause in causes if not type(cause).__module__.startswith("ray.")]
    if told:  # a process that was lost makes the others say so: what one says of itself is more
        raise min(told, key=lambda cause: isinstance(cause, OSError) + isinstance(cause, RankLostError))
    first, *_ = str(next(iter(causes), error)).strip().splitlines()
    raise RankLostError(f"a process that trains with others was lost: {first}")
