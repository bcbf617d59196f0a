"""Facts of datasets: one sheet each (``NAME.yaml``), frozen; a test fails where a sheet and its loader disagree."""

from sweep.data.facts.known import DATASETS, DatasetFact, known_datasets
from sweep.data.facts.sheet import Archive, Copy, Sheet, sheets

__all__ = ["DATASETS", "Archive", "Copy", "DatasetFact", "Sheet", "known_datasets", "sheets"]
