"""Embeddings of every layer from one pass, and what they look like."""

from sweep.embed.collapse import Collapse, collapse
from sweep.embed.distance import Moved, weight_distances
from sweep.embed.extract import Embeddings, cached, embed, room_bytes
from sweep.embed.likeness import Likeness, likeness
from sweep.embed.plugin_statistics import descriptions, registered_statistics
from sweep.embed.spectrum import Spectrum, spectrum
from sweep.embed.statistics import Statistics, layer_statistics, moments_bytes

__all__ = [
    "Collapse",
    "Embeddings",
    "Likeness",
    "Moved",
    "Spectrum",
    "Statistics",
    "cached",
    "collapse",
    "descriptions",
    "embed",
    "layer_statistics",
    "likeness",
    "moments_bytes",
    "registered_statistics",
    "room_bytes",
    "spectrum",
    "weight_distances",
]
