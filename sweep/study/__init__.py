"""What is asked: the grid, its keys, what a plan costs, and whether the config can be run at all."""

from sweep.study import costs, packing, rates
from sweep.study.check import read_config
from sweep.study.columns import course_labels, labels, variables
from sweep.study.confounding import varied_roles
from sweep.study.costs import curve_cost, layer_widths, training_flops
from sweep.study.grid import (
    NOT_KNOWN,
    Backbone,
    Cell,
    Curve,
    Grid,
    block_values,
    expand,
    id_dataset_of,
    layers_said,
    made_view,
    resolution_of,
    view_of,
)
from sweep.study.interventions import Intervention
from sweep.study.keys import Donor, Keyring, Planned, PlannedCell, Settings, content_key, id_curve
from sweep.study.plan import render_plan
from sweep.study.probes_said import probes_said
from sweep.study.rates import Rates, ends_after
from sweep.study.recipes import Record, Trial, TrialOutcome, TrialStatus, group_label, outcomes, propose, trial_key
from sweep.study.resolve import (
    cache_dir,
    dataset_options,
    keyring,
    said_of_sizes,
    sizes,
    used_datasets,
    without_downloads,
)
from sweep.study.sources import source_of, tag_of, weights_source
from sweep.study.tasks import Course, PlannedCourse, Task

__all__ = [
    "NOT_KNOWN",
    "Backbone",
    "Cell",
    "Course",
    "Curve",
    "Donor",
    "Grid",
    "Intervention",
    "Keyring",
    "Planned",
    "PlannedCell",
    "PlannedCourse",
    "Rates",
    "Record",
    "Settings",
    "Task",
    "Trial",
    "TrialOutcome",
    "TrialStatus",
    "block_values",
    "cache_dir",
    "content_key",
    "costs",
    "course_labels",
    "curve_cost",
    "dataset_options",
    "ends_after",
    "expand",
    "group_label",
    "id_curve",
    "id_dataset_of",
    "keyring",
    "labels",
    "layer_widths",
    "layers_said",
    "made_view",
    "outcomes",
    "packing",
    "probes_said",
    "propose",
    "rates",
    "read_config",
    "render_plan",
    "resolution_of",
    "said_of_sizes",
    "sizes",
    "source_of",
    "tag_of",
    "training_flops",
    "trial_key",
    "used_datasets",
    "variables",
    "varied_roles",
    "view_of",
    "weights_source",
    "without_downloads",
]
