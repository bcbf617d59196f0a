"""What is asked: the grid, its keys, what a plan costs, and whether the config can be run at all."""

from sweep.study import plan
from sweep.study.check import read_config
from sweep.study.columns import labels, variables
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
from sweep.study.keys import Keyring, Planned, PlannedCell, Settings
from sweep.study.plan import curve_cost, layer_widths, render_plan, training_flops, varied_roles
from sweep.study.probes_said import probes_said
from sweep.study.recipes import Record, Trial, TrialOutcome, group_label, outcomes, propose, trial_key
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

__all__ = [
    "NOT_KNOWN",
    "Backbone",
    "Cell",
    "Curve",
    "Grid",
    "Keyring",
    "Planned",
    "PlannedCell",
    "Record",
    "Settings",
    "Trial",
    "TrialOutcome",
    "block_values",
    "cache_dir",
    "curve_cost",
    "dataset_options",
    "expand",
    "group_label",
    "id_dataset_of",
    "keyring",
    "labels",
    "layer_widths",
    "layers_said",
    "made_view",
    "outcomes",
    "plan",
    "probes_said",
    "propose",
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
