"""The table of experiments that everything else reads: where it came from, its variables, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from analysis.tables import metrics, names
from analysis.tables.epochs import Emergence
from analysis.tables.errors import UserError
from analysis.tables.names import Target
from analysis.tables.quality import Quality
from analysis.tables.variables import Kind, level_text

GRID = (
    "architecture", "id_dataset", "id_classes", "images_per_class", "resolution", "augmentation", "pretraining",
    "seed", "width", "epochs", "lr", "weight_decay", "batch_size", "label_smoothing", "warmup_epochs", "train_on",
    "checkpoint_on", "temperature", "mixup", "cutmix", "mixup_share", "data_parallel", "precision", "intervention",
    "label_noise",
)  # fmt: skip
RECIPE = GRID[GRID.index("width") :]  # width and the training recipe: often set by rules


@dataclass(frozen=True)
class Experiments:
    """Experiments with their outcomes and the variables that may explain them.

    Attributes
    ----------
    frame : one row per experiment: ``backbone``, ``dataset``, a column per target and per variable.
    targets : outcomes present, in the vocabulary's order.
    further : outcomes that are there too, for whoever asks for them.
    variables : columns to attribute to (role treatment, more than one value).
    context : columns that must be equal in a matched pair though they are not variables (ID dataset, …).
    replicates : columns that only repeat (seed).
    clusters : levels above the backbone, as declared: name → column. What varies between them only, varies there.
    kinds, logs, references, parts : what is declared of variables: kind, powers instead of steps, level to compare
        with, group.
    adjust : variable → the confounders that are held equal for it, as declared; mediators are left out.
    constant : variable → its only value.
    accuracy, choice : how accuracies were chosen, in words; and by name, for our own tables.
    notes : what a reader should know about this table, in words.
    incomplete : curves that were left out, with the reason.
    planned : curves that the sweep planned, if the table says so.
    set_aside : probes of a sweep inside a curve that held-out images did not choose; no experiment uses them.
    curves : per-layer data; None for a table that someone else made.
    quality : how far the probes themselves can be trusted; None where nothing is known of it.
    courses : what was measured of backbones that learned several tasks; None if none did.
    emergence : what epochs along training show, which ``frame`` leaves out; None if none was probed.
    """

    frame: pd.DataFrame
    source: str
    title: str
    targets: tuple[Target, ...]
    variables: tuple[str, ...]
    context: tuple[str, ...] = ()
    replicates: tuple[str, ...] = ()
    clusters: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    logs: tuple[str, ...] = ()
    references: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    adjust: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constant: dict[str, object] = field(default_factory=dict)
    further: tuple[Target, ...] = ()
    accuracy: str = ""
    choice: str = ""
    notes: tuple[str, ...] = ()
    incomplete: pd.DataFrame = field(default_factory=pd.DataFrame)
    planned: int | None = None
    set_aside: int = 0
    curves: metrics.Curves | None = None
    quality: Quality | None = None
    emergence: Emergence | None = None
    courses: pd.DataFrame | None = None

    def narrowed(
        self, *, targets: Sequence[str] = (), variables: Sequence[str] = (), group: str | None = None
    ) -> Experiments:
        """Keep only some targets and variables, or take another column as the backbone.

        Variables that are not kept must still be equal in a matched pair.
        """
        known = {target.name: target for target in (*self.targets, *self.further)}
        _check(targets, known, "--target", self.source)
        available = (
            *self.variables,
            *(c for c in self.frame if c in GRID + names.DERIVED and c not in self.variables),
        )
        _check(variables, available, "--variables", self.source)
        chosen = tuple(v for v in dict.fromkeys(variables) if self.frame[v].nunique() > 1) or self.variables
        idle = [v for v in variables if v not in chosen]
        if variables and idle == list(variables):
            raise UserError(
                f"--variables {','.join(idle)}: each has a single value in {self.source}; nothing to attribute"
            )
        context = (*(c for c in self.context if c not in chosen), *(v for v in self.variables if v not in chosen))
        notes = [f"{names.label(v)} was asked for, but has a single value" for v in idle]
        left = [names.label(v) for v in self.variables if v not in chosen]
        if left:
            notes.append(f"Not attributed to, as --variables asked: {', '.join(left)}; matched pairs agree in them")
        adjust, unheld = held_equal(self.adjust, chosen)
        frame = self.frame.assign(
            **{target: metrics.places(self.frame, target) for target in targets if target in names.FURTHER}
        )
        if group is not None:
            _check([group], frame.columns, "--group", self.source)
            frame = frame.assign(backbone=frame[group].astype(str))
        return replace(
            self, frame=frame, targets=tuple(known[t] for t in dict.fromkeys(targets)) or self.targets,
            variables=tuple(sorted(chosen)), context=context, adjust=adjust,
            notes=(*self.notes, *notes, *unheld),
        )  # fmt: skip


def _check(names: Sequence[str], valid: object, option: str, source: str) -> None:
    options = list(valid)  # type: ignore[call-overload]
    for name in names:
        if name not in options:
            raise UserError(f"{option} {name}: not in {source}; it has {', '.join(map(str, options)) or 'none'}")


def determined(frame: pd.DataFrame, name: str, others: list[str]) -> bool:
    """Whether these columns together give the other one."""
    return bool((frame.groupby(others, dropna=False)[name].nunique(dropna=False) <= 1).all())


def labels(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Each row's backbone in words: its values of some columns; its name if there are no columns.

    Recipe columns that the other columns determine tell nothing apart, so they are left out.
    """
    backbones = frame.drop_duplicates("backbone")
    design = [c for c in columns if c not in RECIPE]
    columns = [c for c in columns if c in design or not design or not determined(backbones, c, design)]
    parts = [_words(c, backbones[c]) for c in columns]
    words = [", ".join(words) for words in zip(*parts, strict=True)] if parts else list(backbones["backbone"])
    return frame["backbone"].map(dict(zip(backbones["backbone"], words, strict=True)))


def held_equal(
    declared: Mapping[str, Sequence[str]], variables: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """What ``adjust`` says of the variables of a table, and notes on confounders that no model can hold equal there."""
    found, notes = {}, []
    for name, others in declared.items():
        if name not in variables:
            continue
        found[name] = tuple(other for other in others if other in variables)
        lost = [names.label(other) for other in others if other not in variables]
        if lost:
            notes.append(
                f"adjust: {', '.join(lost)} cannot be held equal for {names.label(name)}: no variable that differs here"
            )
    return found, notes


SHORT = {
    "augmentation": "aug {}",
    "resolution": "{} px",
    "id_classes": "{} classes",
    "images_per_class": "{} images/class",
}


def _words(column: str, values: pd.Series) -> list[str]:
    code_B, levels = pd.factorize(values, use_na_sentinel=False)
    texts = [_word(column, level) for level in levels]
    return [texts[code] for code in code_B]


def _word(column: str, value: object) -> str:
    text = level_text(value)
    if isinstance(value, str) and column != "augmentation":
        return text  # a name speaks for itself
    return SHORT.get(column, "{label} {}").format(text, label=names.label(column))
