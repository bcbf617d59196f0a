"""The table of courses, ``continual.parquet``: one row per measurement of a network that learned several tasks.

As with probes, a fragment per course holds its key and what was measured; labels are joined from the plan when the
table is written.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.config import EPOCH, INTERVENTION
from sweep.table.fragments import FAILURES, conform, parse_parquet, read_file, serialised
from sweep.table.plans import LabelledCourse, Plan
from sweep.table.schema import LABELS as LABELS_OF_CURVES
from sweep.table.schema import SCHEMA, dictionary_of

COURSES, CONTINUAL = "courses/", "continual.parquet"
_VERSION = 2  # 1 had fewer labels
_text, _int, _long, _real, _flag = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()
# labels of the first task's backbone that the table of probes has too; a course has no epoch and is not intervened in
_SHARED = tuple(name for name in LABELS_OF_CURVES if name not in ("dataset", "is_id", EPOCH, INTERVENTION))


def _meaning(name: str) -> str:
    """What the table of probes says of a column that both have."""
    return SCHEMA.field(name).metadata[b"description"].decode()


LABELS: tuple[str, ...] = ("plan", "tasks", "n_tasks", *_SHARED)

GROUPS: dict[str, list[tuple[str, pa.DataType, str]]] = {
    "Keys": [
        ("course_key", _text, "content key of the course (tasks × recipe × splits); names its fragment"),
        ("weights_key", _text, "content key of the weights after the first task, as in the table of probes"),
    ],
    "Labels": [
        ("plan", _text, "name of the config"),
        ("tasks", _text, "what is learned, in order"),
        ("n_tasks", _int, "how many tasks"),
        *((name, SCHEMA.field(name).type, _meaning(name)) for name in _SHARED),
    ],
    "What was measured": [
        ("kind", _text, "'matrix': a task after a moment; 'combination': parts of two moments together"),
        ("task", _int, "the task that is measured, 1 is the first"),
        ("task_dataset", _text, "its dataset"),
        ("classes", _int, "its classes"),
        ("n_train", _int, "its training images, the held-out ones among them"),
        ("n_test", _int, "its test images"),
        ("after_task", _int, "of the matrix: tasks that were learned so far; 0: untrained"),
        ("classifier", _text, "'trained' on its task; 'untrained': of a task still to come"),
        ("combination", _text, "E1+T2: layers up to the split as after task 1, those behind it as after task 2"),
        ("extractor_after", _int, "of a combination: tasks learned by the layers up to the split"),
        ("tunnel_after", _int, "likewise of the layers behind it; null: there are none"),
        ("later_task", _int, "of a combination: the later of the two moments"),
        ("fine_tuned", _flag, "whether all of it was then trained further on the task"),
        ("split_by", _text, "what decided the split: id95, id98 ([M23]), ood, all, or the layer that was named"),
        ("split_layer", _int, "last layer of the extractor, as the table of probes counts them"),
        ("split_layer_name", _text, "its module path"),
        ("tunnel_layers", _int, "probed layers behind the split"),
    ],
    "Accuracies, in [0, 1]": [
        ("top1", _real, "test top-1 on the task, with the task's own classifier"),
        ("head_refit_top1", _real, "the same with the classifier alone trained anew on the task; null: not asked for"),
        ("correct", pa.binary(), "numpy.packbits over the task's test images in order: right or not"),
    ],
    "Cost and provenance": [
        ("seconds", _real, "of the whole course in the run that ended it, s"),
        ("git_commit", _text, "commit of the code, '+dirty' if changed, 'unknown' outside a checkout"),
        ("versions", _text, "library versions, JSON"),
        ("device", _text, "processor that did the work"),
        ("host", _text, "machine"),
        ("finished_at", pa.timestamp("us", tz="UTC"), "when the course was finished"),
    ],
}
RUN_COLUMNS: tuple[str, ...] = tuple(name for name, _, _ in GROUPS["Cost and provenance"])
CONTINUAL_SCHEMA: pa.Schema = pa.schema(
    [pa.field(*each[:2], metadata={"description": each[2]}) for group in GROUPS.values() for each in group],
    metadata={"schema_version": str(_VERSION)},
)
FRAGMENT: pa.Schema = pa.schema([field for field in CONTINUAL_SCHEMA if field.name not in LABELS])


def done_courses(store: Store) -> frozenset[str]:
    """Keys of the courses that the store has."""
    names = store.names(COURSES)
    return frozenset(name.removeprefix(COURSES).removesuffix(".parquet") for name in names if name.endswith(".parquet"))


def write_course(store: Store, course_key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Publish all rows of a course at once, after reading back what would be published; its failures are forgotten.

    Raises
    ------
    ValueError
        If a row has an unknown column.
    """
    unknown = {name for row in rows for name in row} - set(FRAGMENT.names)
    if unknown:
        raise ValueError(f"rows have columns that the schema lacks: {sorted(unknown)}")
    data = serialised(pa.Table.from_pylist([dict(row) for row in rows], schema=FRAGMENT))
    if parse_parquet(data).num_rows != len(rows):
        raise ValueError(f"course {course_key}: what was serialised is not what was given")
    store.put(f"{COURSES}{course_key}.parquet", data)
    for name in store.names(f"{FAILURES}{course_key}/"):
        store.delete(name)


def problem_of_course(data: bytes, course_key: str) -> str | None:
    """Why these bytes are not the fragment of a course; None if they are."""
    try:
        rows = conform(parse_parquet(data), FRAGMENT)
        rows.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"not a readable Parquet file: {str(error).splitlines()[0]}"
    return None if set(rows["course_key"].to_pylist()) == {course_key} else "rows of another course"


def export_courses(store: Store, plans: Sequence[Plan], done: Container[str]) -> str | None:
    """Write the table of all finished courses of some plans, in plan order, under their labels.

    Returns
    -------
    its path for people; None where no plan has courses.
    """
    asked = [(plan.name, course) for plan in plans for course in plan.courses]
    if not asked:
        return None
    parts = [_labelled(store, name, course) for name, course in asked if course.key in done]
    data = serialised(pa.concat_tables(parts) if parts else CONTINUAL_SCHEMA.empty_table())
    if not store.exists(CONTINUAL) or store.get(CONTINUAL) != data.to_pybytes():
        store.put(CONTINUAL, data)
    return store.path(CONTINUAL)


def _labelled(store: Store, plan: str, course: LabelledCourse) -> pa.Table:
    place = f"{COURSES}{course.key}.parquet"
    rows = conform(read_file(store, place), FRAGMENT)
    if set(rows["course_key"].to_pylist()) != {course.key}:
        raise UserError(f"{store.path(place)} is damaged: rows of another course; run the sweep with --verify")
    told = {"plan": plan, **course.labels}
    columns = [
        rows[field.name] if field.name in FRAGMENT.names else pa.array([told.get(field.name)] * len(rows), field.type)
        for field in CONTINUAL_SCHEMA
    ]
    return pa.table(columns, schema=CONTINUAL_SCHEMA)


def continual_dictionary() -> str:
    """The schema as Markdown: one table per group of columns."""
    return dictionary_of(GROUPS)
