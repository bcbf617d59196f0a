"""What a backbone learns after its first task, and what is measured of it then ([M23], [H24], protocol §11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.config import Block, Config, FineTuning, Recipe


@dataclass(frozen=True)
class Task:
    """One of a series of tasks, which a head of its own tells apart.

    Attributes
    ----------
    classes : how many; None: all of the dataset.
    skip : classes, in the order of the split seed, that other tasks have.
    """

    dataset: str
    classes: int | None
    skip: int = 0

    @property
    def label(self) -> str:
        """For people."""
        if self.classes is None:
            return self.dataset
        return f"{self.dataset} classes {self.skip + 1}–{self.skip + self.classes}"


@dataclass(frozen=True)
class Course:
    """A series of tasks; the first is that of the backbone itself.

    Attributes
    ----------
    splits : where extractor and tunnel part, see :class:`sweep.config.Continual`.
    tuning : recipe of fine-tuning; None: nothing is fine-tuned.
    """

    tasks: tuple[Task, ...]
    splits: tuple[int | str, ...]
    tuning: FineTuning | None

    @property
    def label(self) -> str:
        """What is learned, for people."""
        return " → ".join(task.label for task in self.tasks)


@dataclass(frozen=True)
class PlannedCourse:
    """A course with its keys.

    Attributes
    ----------
    key : of the course; names its fragment.
    runs : of the weights after each task.
    tuning : what keys of fine-tuned weights are made from.
    id_curve, ood_curves : keys of the probe curves of the first task's weights, which may decide the splits.
    """

    course: Course
    key: str
    runs: tuple[str, ...]
    tuning: str
    id_curve: str
    ood_curves: tuple[str, ...]


def task_series(block: Block) -> tuple[Any, ...]:
    """What a block's ``tasks`` are crossed over: numbers of parts, one list of datasets, or None alone."""
    if block.tasks is None:
        return (None,)
    return (block.tasks,) if isinstance(block.tasks[0], str) else block.tasks


def course_of(
    config: Config,
    values: Mapping[str, Any],
    classes: int | None,
    recipe_of: Callable[[Config, Mapping[str, Any]], Recipe],
) -> Iterable[Course]:
    """The course of one backbone's values, if they have tasks.

    Parameters
    ----------
    classes : of the backbone's own task.
    recipe_of : ID-training recipe by values, :func:`sweep.study.grid.recipe_of`.
    """
    tasks = values.get("tasks")
    if tasks is None:
        return
    if isinstance(tasks, int):
        made = tuple(Task(values["id_dataset"], classes, skip=number * (classes or 0)) for number in range(tasks))
    else:
        made = tuple(Task(name, None) for name in tasks)
    yield Course(made, config.continual.split, fine_tuning(config, recipe_of(config, values)))


def fine_tuning(config: Config, recipe: Recipe) -> FineTuning | None:
    """The recipe of fine-tuning: that of training with what the config changes, and a rate that falls in steps."""
    if config.continual.fine_tune is None:
        return None
    said = recipe.model_dump() | dict(config.continual.fine_tune)
    epochs = said["epochs"]
    default = tuple(dict.fromkeys(max(1, round(epochs * share)) for share in (0.4, 0.8)))  # [H24]: 20 and 40 of 50
    return FineTuning.model_validate({"decay_epochs": default} | said)
