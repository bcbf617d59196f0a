"""How a backbone is trained and how a probe is fitted: the one place that declares these keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from sweep.config.values import (
    Model,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Share,
    Smoothing,
)

# Solvers that draw nothing at random and know no learning rate, with the L2 penalties they try where none is given
CONVERGED = "converged"  # the solver that chooses one of its penalties itself; for the others each is a probe
PENALTIES: Mapping[str, tuple[float, ...]] = {
    CONVERGED: (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    "lbfgs": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "ridge": (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3),
}
NO_PENALTY_KEYS: tuple[str, ...] = ("lr", "epochs", "batch_size")  # of a probe recipe, that these solvers do not read
AUTO_FOLDS, FEW_HELDOUT = 5, 500
AUTO = "auto"  # of AdamW's epochs: until held-out loss has not improved for PATIENCE of them, at most MOST_EPOCHS
PATIENCE, MOST_EPOCHS = 10, 300
Standardize = Literal["none", "feature"]
Precision = Literal["float32", "tf32", "bfloat16"]


class Range(Model):
    """Bounds, both included, between which a recipe search draws; whole numbers for a recipe key that takes them."""

    low: NonNegative
    high: Positive
    log: bool = Field(default=False, strict=True)  # evenly on a logarithmic scale


@dataclass(frozen=True)
class Column:
    """What a recipe key means, beside its type and default.

    Attributes
    ----------
    description : of the table's column.
    search : what a recipe search draws from where the config only names the key; None: it cannot be searched.
    new : came after keys of weights were first made: it is part of a key only where it is not at its default, so that
        keys older than the choice stay as they are.
    """

    description: str
    search: Range | tuple[Any, ...] | None = None
    new: bool = False


class Recipe(Model):
    """How a backbone is trained on its ID dataset ([H24] A.3, protocol §4).

    This is the one place that declares a recipe key: type, default, meaning and range of search. Blocks, rules and
    searches take it from here, and so do the table's columns.
    """

    epochs: Annotated[
        PositiveInt,
        Column("ID training epochs; like all recipe columns null for downloaded weights", (50, 100)),
    ] = 100
    lr: Annotated[Positive, Column("ID training peak learning rate (AdamW)", Range(low=1e-4, high=3e-2, log=True))] = (
        1e-2
    )
    weight_decay: Annotated[
        NonNegative, Column("ID training weight decay (AdamW, decoupled)", Range(low=1e-3, high=1e-1, log=True))
    ] = 5e-2
    batch_size: Annotated[PositiveInt, Column("ID training batch size, images", (128, 256, 512))] = 512
    label_smoothing: Annotated[Smoothing, Column("ID training label smoothing", (0.0, 0.1))] = 0.1
    warmup_epochs: Annotated[NonNegativeInt, Column("epochs of linear warm-up before the cosine decay", (0, 5))] = 5
    train_on: Annotated[
        Literal["fit", "all"],
        Column("'fit': ID training without the held-out part; 'all': on every training image"),
    ] = "fit"
    checkpoint_on: Annotated[
        Literal["heldout", "test", "last"],
        Column("what chose the kept epoch: 'heldout' part, 'test' set ([H24]) or the 'last' epoch"),
    ] = "heldout"
    evaluate_every: Annotated[
        PositiveInt,
        Column("epochs from one scoring of the held-out part in ID training to the next; the last is scored", new=True),
    ] = 1
    temperature: Annotated[
        Positive, Column("ID training softmax temperature, which logits are divided by", (0.5, 1.0, 2.0, 4.0), new=True)
    ] = 1.0
    mixup: Annotated[NonNegative, Column("α of mixup in ID training; 0: none", (0.0, 0.1, 0.2), new=True)] = 0.0
    cutmix: Annotated[NonNegative, Column("α of cutmix in ID training; 0: none", (0.0, 1.0), new=True)] = 0.0
    mixup_share: Annotated[
        Share, Column("share of batches that take mixup where cutmix is asked for too; the others take that", new=True)
    ] = 0.5
    data_parallel: Annotated[PositiveInt, Column("processes that shared every batch of ID training", new=True)] = 1
    precision: Annotated[
        Precision,
        Column("arithmetic of ID training: float32, tf32 (GPU), or bfloat16 where torch deems it safe", new=True),
    ] = "float32"
    label_noise: Annotated[
        Share, Column("share of the ID training images whose label is another class, drawn at random", new=True)
    ] = 0.0

    @property
    def decays_at(self) -> tuple[int, ...]:
        """Epochs from which the learning rate is a tenth of what it was; none: it falls along a cosine."""
        return ()


class FineTuning(Recipe):
    """A recipe for networks that were trained before: the rate falls in steps ([H24], protocol §11)."""

    decay_epochs: tuple[PositiveInt, ...]

    @property
    def decays_at(self) -> tuple[int, ...]:
        """See :class:`Recipe`."""
        return self.decay_epochs


def declared(key: str) -> Column:
    """What a recipe key means, as :class:`Recipe` declares it."""
    return next(part for part in Recipe.model_fields[key].metadata if isinstance(part, Column))


class Probe(Model):
    """How one linear probe is fitted ([H24] A.4, protocol §6)."""

    solver: str = "adamw"  # a probe of the register: ours, or a plug-in's
    epochs: PositiveInt | Literal["auto"] = 30
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    batch_size: PositiveInt = 128
    label_smoothing: Smoothing = 0.1
    standardize: Standardize = "none"  # "none" is [H24]; "feature": train mean 0, variance 1
    penalties: tuple[NonNegative, ...] = ()  # of converged: the path on which its L2 penalty is chosen
    folds: PositiveInt = 1  # of converged: how many times the training images are cross-fitted; 1: they are not
    check: Share = 0.0  # of the layers, that are fitted once more, to convergence

    @property
    def identity(self) -> dict[str, Any]:
        """What keys contain: all that decides the probe's numbers."""
        unread = {*NO_PENALTY_KEYS} if self.solver in PENALTIES else set()
        unread |= {"folds"} if self.folds == 1 else set()  # keys older than the choice stay as they are
        unread |= set() if self.check else {"check"}
        parts = self.model_dump(exclude=unread | {"weight_decay" if self.solver == CONVERGED else "penalties"})
        if parts.get("epochs") == AUTO:
            parts |= {"epochs": [AUTO, PATIENCE, MOST_EPOCHS]}
        return parts

    @property
    def most_epochs(self) -> int:
        """Passes over the training images after which a solver that takes steps ends."""
        return self.epochs if isinstance(self.epochs, int) else MOST_EPOCHS
