"""Embeddings of a curve → many linear probes at once. No I/O.

``fit`` is the front: which probes, in what memory, which is chosen. One file per solver: ``adamw`` (the protocol),
``lbfgs`` (multinomial logistic regression to convergence), ``ridge``, and ``plugin`` for those of plug-ins.
"""

from sweep.probes.check import drawn
from sweep.probes.data import LinearProbe, ProbeData, ProbeResult
from sweep.probes.fit import fit_probes, replicate_seeds
from sweep.probes.memory import budget_bytes

__all__ = [
    "LinearProbe",
    "ProbeData",
    "ProbeResult",
    "budget_bytes",
    "drawn",
    "fit_probes",
    "replicate_seeds",
]
