"""What stands in the store of a sweep: fragments, failures, plans, notes, trials, and the copies made for readers."""

from sweep.table.choice import best_row, choosing_columns
from sweep.table.continual import CONTINUAL, continual_dictionary, done_courses, export_courses, write_course
from sweep.table.export import copy_sorted, export_probes, labelled_probes
from sweep.table.failures import clear_failures, read_failures, write_failure
from sweep.table.fragments import FRAGMENTS, Listing, listing, parse_parquet, read_fragments, serialised, write_fragment
from sweep.table.kept import KEPT, drop_kept, is_kept, kept_curves, read_kept, write_kept
from sweep.table.notes import Progress, fresh_notes
from sweep.table.plans import (
    LabelledCourse,
    Plan,
    PlannedCurve,
    planned_threads,
    publish_plan,
    read_plans,
    readable_plans,
)
from sweep.table.schema import refuse_taken
from sweep.table.timeline import DRIVER, finish_profile, new_profile, saver
from sweep.table.trials import RECORDS, read_records, write_record
from sweep.table.verify import Verified, describe_verified, problem_of, verify_fragments

__all__ = [
    "CONTINUAL",
    "DRIVER",
    "FRAGMENTS",
    "KEPT",
    "RECORDS",
    "LabelledCourse",
    "Listing",
    "Plan",
    "PlannedCurve",
    "Progress",
    "Verified",
    "best_row",
    "choosing_columns",
    "clear_failures",
    "continual_dictionary",
    "copy_sorted",
    "describe_verified",
    "done_courses",
    "drop_kept",
    "export_courses",
    "export_probes",
    "finish_profile",
    "fresh_notes",
    "is_kept",
    "kept_curves",
    "labelled_probes",
    "listing",
    "new_profile",
    "parse_parquet",
    "planned_threads",
    "problem_of",
    "publish_plan",
    "read_failures",
    "read_fragments",
    "read_kept",
    "read_plans",
    "read_records",
    "readable_plans",
    "refuse_taken",
    "saver",
    "serialised",
    "verify_fragments",
    "write_course",
    "write_failure",
    "write_fragment",
    "write_kept",
    "write_record",
]
