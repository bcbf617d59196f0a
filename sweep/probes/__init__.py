"""Embeddings of a curve → many linear probes at once. No I/O.

``fit`` is the front: which probes, in what memory, which is chosen. One file per solver: ``adamw`` (the protocol),
``lbfgs`` (multinomial logistic regression to convergence), ``ridge``, and ``plugin`` for those of plug-ins.
"""

from sweep.probes.check import drawn
from sweep.probes.data import LinearProbe, ProbeData, ProbeResult
from sweep.probes.detection import auroc, energies, fpr95, nearness
from sweep.probes.fit import fit_probes, replicate_seeds
from sweep.probes.memory import budget_bytes
from sweep.probes.readings import (
    Right,
    centre,
    drawn_images,
    few_shot,
    nearest_means,
    nearest_neighbours,
    shares_right,
)

__all__ = [
    "LinearProbe",
    "ProbeData",
    "ProbeResult",
    "Right",
    "auroc",
    "budget_bytes",
    "centre",
    "drawn",
    "drawn_images",
    "energies",
    "few_shot",
    "fit_probes",
    "fpr95",
    "nearest_means",
    "nearest_neighbours",
    "nearness",
    "replicate_seeds",
    "shares_right",
]
