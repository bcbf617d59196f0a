"""Keys for networks that learn several tasks, and for networks that are put together from parts of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sweep.config.values import Model, PositiveInt, Some, as_tuple

MEASURED: tuple[str, ...] = ("id95", "id98", "ood")  # splits that probes of the first task's weights decide
EVERY = "all"  # a split at every layer, without fine-tuning
_Parts = Annotated[int, Field(strict=True, ge=2)]
# in how many parts the ID classes come, one after the other (several: backbones for each); or the datasets that do
Tasks = Annotated[tuple[_Parts, ...] | tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]


def with_first_task(block: Any) -> Any:
    """A block that names its tasks' datasets need not name the first again as its ID dataset."""
    tasks = block.get("tasks") if isinstance(block, Mapping) else None
    if isinstance(tasks, list | tuple) and tasks and isinstance(tasks[0], str) and block.get("id_dataset") is None:
        return {**block, "id_dataset": tasks[0]}
    return block


class Continual(Model):
    """What is measured of networks that learned several tasks ([M23], [H24], protocol §11)."""

    # where a network is split into extractor and tunnel: id95, id98 (the first layer whose ID probe reaches so much of
    # the last one's), ood (the layer with the best mean OOD probe accuracy), a layer's number or name, all
    split: Some[PositiveInt | str] = ("id95",)
    # recipe keys in which fine-tuning differs from training, and decay_epochs, from which the rate is a tenth (default:
    # after two and four fifths); null: nothing is fine-tuned
    fine_tune: Mapping[str, Any] | None = Field(default_factory=dict)


Source = Literal["initial", "random"]


class Intervene(Model):
    """Layers of trained backbones set to other weights; each is probed like a backbone of the grid."""

    layers: PositiveInt | str  # 7, 9..10, 9.. (to the last), ..4, or all: every layer and the classifier
    # initial: as before training; random: untrained ones of another seed; else what differs in the backbone they come
    # from: {epoch: 3}, {seed: 1}, {id_dataset: …}
    to: Source | Mapping[str, Any]
    when: Mapping[str, Some[Any]] = Field(default_factory=dict)  # which backbones; default: all
