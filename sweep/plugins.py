"""What a plug-in needs: the decorators that register names, and the values that what they register is called with.

This is the one public face for plug-ins; a user's module imports nothing else of the program. How names are kept and
found is :mod:`sweep.register`.
"""

from sweep.config import Probe
from sweep.data import DatasetOptions
from sweep.register import (
    Samples,
    register_augmentation,
    register_dataset,
    register_model,
    register_probe,
    register_statistic,
)

__all__ = [
    "DatasetOptions",
    "Probe",
    "Samples",
    "register_augmentation",
    "register_dataset",
    "register_model",
    "register_probe",
    "register_statistic",
]
