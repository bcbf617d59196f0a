"""ID training: weights that are loaded, or trained and put into the store."""

from sweep.train import augment
from sweep.train.checkpoint import checkpoint_name
from sweep.train.pretrain import OnEpoch, TrainingDivergedError
from sweep.train.ranks import ALONE, RankLostError, Ranks, connected
from sweep.train.weights import (
    Weights,
    Workshop,
    has_weights,
    help_training,
    obtain_weights,
    train_backbone,
    train_missing,
)

__all__ = [
    "ALONE",
    "OnEpoch",
    "RankLostError",
    "Ranks",
    "TrainingDivergedError",
    "Weights",
    "Workshop",
    "augment",
    "checkpoint_name",
    "connected",
    "has_weights",
    "help_training",
    "obtain_weights",
    "train_backbone",
    "train_missing",
]
