"""What stands in the store of a sweep: fragments, failures, plans, notes, trials, and the copies made for readers."""

from sweep.table.choice import best_row, choosing_columns
from sweep.table.continual import CONTINUAL, continual_dictionary, done_courses, export_courses, write_course
from sweep.table.export import changed_tables, copy_sorted, export_probes, labelled_probes
from sweep.table.failures import clear_failures, odd_failures, read_failures, write_failure
from sweep.table.fragments import FRAGMENTS, Listing, listing, parse_parquet, read_fragments, serialised, write_fragment
from sweep.table.kept import FITS, KEPT, drop_kept, forget_fits, is_kept, kept_curves, read_kept, write_kept
from sweep.table.notes import Progress, fresh_notes
from sweep.table.origins import said_before
from sweep.table.plans import (
    LabelledCourse,
    Plan,
    PlannedCurve,
    planned_threads,
    publish_plan,
    read_plans,
    readable_plans,
)
from sweep.table.rates import kept_rates, publish_rates
from sweep.table.readings import READINGS, is_measured, measured_keys, read_reading, write_reading
from sweep.table.readings_export import export_readings
from sweep.table.schema import refuse_taken
from sweep.table.timeline import DRIVER, finish_profile, new_profile, saver
from sweep.table.trials import RECORDS, read_records, write_record
from sweep.table.verify import Verified, describe_verified, problem_of, verify_fragments

__all__ = [
    "CONTINUAL",
    "DRIVER",
    "FITS",
    "FRAGMENTS",
    "KEPT",
    "READINGS",
    "RECORDS",
    "LabelledCourse",
    "Listing",
    "Plan",
    "PlannedCurve",
    "Progress",
    "Verified",
    "best_row",
    "changed_tables",
    "choosing_columns",
    "clear_failures",
    "continual_dictionary",
    "copy_sorted",
    "describe_verified",
    "done_courses",
    "drop_kept",
    "export_courses",
    "export_probes",
    "export_readings",
    "finish_profile",
    "forget_fits",
    "fresh_notes",
    "is_kept",
    "is_measured",
    "kept_curves",
    "kept_rates",
    "labelled_probes",
    "listing",
    "measured_keys",
    "new_profile",
    "odd_failures",
    "parse_parquet",
    "planned_threads",
    "problem_of",
    "publish_plan",
    "publish_rates",
    "read_failures",
    "read_fragments",
    "read_kept",
    "read_plans",
    "read_reading",
    "read_records",
    "readable_plans",
    "refuse_taken",
    "said_before",
    "saver",
    "serialised",
    "verify_fragments",
    "write_course",
    "write_failure",
    "write_fragment",
    "write_kept",
    "write_reading",
    "write_record",
]
