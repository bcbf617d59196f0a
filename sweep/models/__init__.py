"""Backbones, and which of their layers are probed."""

from sweep.models.build import build_backbone, layers_of, match_weights, normalization
from sweep.models.layers import ProbedLayer, probed_layers

__all__ = ["ProbedLayer", "build_backbone", "layers_of", "match_weights", "normalization", "probed_layers"]
