"""Embeddings of every layer from one pass, and what they look like."""

from sweep.embed.extract import cached, embed, room_bytes
from sweep.embed.plugin_statistics import descriptions, registered_statistics
from sweep.embed.statistics import Statistics, layer_statistics

__all__ = [
    "Statistics",
    "cached",
    "descriptions",
    "embed",
    "layer_statistics",
    "registered_statistics",
    "room_bytes",
]
