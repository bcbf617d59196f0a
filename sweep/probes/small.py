"""A few numbers of each layer: NumPy arrays on CPU, where an operator of torch takes several times as long; on a GPU
tensors, which nothing waits for. Their operators, indices and matmuls are written alike.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Small: TypeAlias = Any  # numpy.ndarray or Tensor


def small(numbers: Tensor) -> Small:
    """The same numbers, in the same memory."""
    return numbers.numpy() if numbers.is_cpu else numbers


def library(numbers: Small) -> ModuleType:
    """Where functions of such numbers are: of those that both libraries name alike."""
    return torch if isinstance(numbers, Tensor) else np
