"""The table of networks that learned several tasks, ``continual.parquet``, as it stands beside a sweep's probes."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.tables import storage
from analysis.tables.errors import UserError
from analysis.tables.variables import level_text

NAME, FRAGMENTS = "continual.parquet", "fragments"
NEEDED = ("course_key", "plan", "kind", "task", "top1", "after_task", "combination", "split_by", "split_layer", "tasks")
MEASUREMENT = ("kind", "task", "after_task", "combination", "later_task", "split_by", "split_layer")  # of a course
# labels that tell configurations apart: what the grid varies but the seed, which repeats them, and the first task's
# dataset and classes, which `tasks` says
CONFIGURATION = (
    "tasks", "architecture", "images_per_class", "resolution", "augmentation", "pretraining", "width", "pooling",
    "norm", "evaluation_view", "epochs", "lr", "weight_decay", "batch_size", "label_smoothing", "warmup_epochs",
    "train_on", "checkpoint_on", "evaluate_every", "temperature", "mixup", "cutmix", "mixup_share", "data_parallel",
    "precision", "label_noise",
)  # fmt: skip


def read(results: str, plan: str | None) -> pd.DataFrame | None:
    """Rows of a sweep's courses; None where it has none.

    Parameters
    ----------
    results : folder or URI of the sweep, or its table of probes.
    plan : name of the sweep; where it has courses of its own, those of others that share the store are left out.

    Raises
    ------
    UserError
        If the table lacks a column.
    """
    uri = _place(results)
    if not storage.exists(uri):
        return None
    found = storage.read_parquet(uri)
    if missing := [name for name in NEEDED if name not in found.schema.names]:
        raise UserError(f"{uri}: column {missing[0]} is missing; a table of courses needs {', '.join(NEEDED)}")
    rows = found.drop_columns(["correct"] if "correct" in found.schema.names else []).to_pandas()
    own = rows[rows["plan"] == plan]
    rows = own if len(own) else rows.drop_duplicates(["course_key", *MEASUREMENT])
    return rows.reset_index(drop=True) if len(rows) else None


def _place(results: str) -> str:
    """Where the table of a sweep stands, or would: beside its probes, or above the folder of its fragments."""
    is_part = storage.ending(results).rstrip("/").endswith((".parquet", f"/{FRAGMENTS}"))
    return storage.join(storage.folder(results.rstrip("/")) if is_part else results, NAME)


def configurations(courses: pd.DataFrame) -> pd.Series:
    """Name of each course's configuration: what differs between them but for the seed.

    A seed counts once. Where two courses of one seed differ in something that has no column (how they are fine-tuned,
    say), their sweep's name tells them apart, or else the course's key.
    """
    columns = [c for c in CONFIGURATION if c in courses and courses[c].nunique(dropna=False) > 1]
    shown = list(dict.fromkeys(["architecture", *columns])) if "architecture" in courses else columns
    words = {"architecture": "", "tasks": ""}
    texts = {c: _texts(courses[c]) for c in shown}
    parts = courses[shown].apply(
        lambda row: ", ".join(f"{words.get(c, c + ' ')}{texts[c](row[c])}".strip() for c in shown), axis=1
    )
    names = parts if len(shown) else pd.Series("all", courses.index)
    for column, word in (("plan", "sweep "), ("course_key", "course ")):
        names = names + _further(names, courses, column, word)
    return names


def _texts(column: pd.Series) -> Callable[[object], str]:
    """How values are written: as levels, or in full where two of them would read alike."""
    levels = column.dropna().unique()
    return level_text if len({level_text(level) for level in levels}) == len(levels) else str


def _further(names: pd.Series, courses: pd.DataFrame, column: str, word: str) -> pd.Series:
    """What is added to names that a seed has several courses of; empty for the others."""
    if "seed" not in courses:
        return pd.Series("", courses.index)
    twice = courses.groupby([names, courses["seed"]], dropna=False)["course_key"].transform("nunique") > 1
    split = twice.groupby(names).transform("any") & (courses.groupby(names)[column].transform("nunique") > 1)
    return (", " + word + courses[column].astype(str)).where(split, "")


def named(results: str, plan: str | None) -> pd.DataFrame | None:
    """The rows of :func:`read` with the name of their ``configuration``, as the report has it; for SQL and Python."""
    rows = read(results, plan)
    return None if rows is None else rows.assign(configuration=configurations(rows))
