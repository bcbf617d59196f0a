"""The table of experiments that everything else reads: where it came from, its variables, what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis import emergence, metrics, storage, vocabulary
from analysis.design import level_text
from analysis.emergence import Emergence
from analysis.errors import UserError
from analysis.vocabulary import TARGETS, Target

GRID = (
    "architecture", "id_dataset", "id_classes", "images_per_class", "resolution", "augmentation", "pretraining",
    "seed", "width", "epochs", "lr", "weight_decay", "batch_size", "label_smoothing", "warmup_epochs", "train_on",
    "checkpoint_on", "data_parallel",
)  # fmt: skip
RECIPE = GRID[GRID.index("width") :]  # width and the training recipe: often set by rules
NEEDED = ("curve_key", "weights_key", "dataset", "is_id", "chance", "layer", "top1", "top1_best", "heldout_top1")
OPTIONAL = (
    *GRID, *vocabulary.DERIVED, "top1_last", "parameters", "id_images", "classes", "n_test", "n_train", "rank",
    "problem", "skipped_images", "backbone_test_top1", "backbone_epoch", "chosen", emergence.EPOCH,
)  # fmt: skip
NAMES = {
    "architecture": ("family", "stem", "depth", "spatial_reduction", "width"),
    "id_dataset": ("id_classes", "images_per_class"),
}
CONTEXT = ("architecture", "id_dataset")


@dataclass(frozen=True)
class Experiments:
    """Experiments with their outcomes and the variables that may explain them.

    Attributes
    ----------
    frame : one row per experiment: ``backbone``, ``dataset``, a column per target and per variable.
    targets : outcomes present, in the vocabulary's order.
    variables : columns to attribute to (role treatment, more than one value).
    context : columns that must be equal in a matched pair though they are not variables (ID dataset, …).
    replicates : columns that only repeat (seed).
    constant : variable → its only value.
    accuracy, choice : how accuracies were chosen, in words; and by name, for our own tables.
    notes : what a reader should know about this table, in words.
    incomplete : curves that were left out, with the reason.
    planned : curves that the sweep planned, if the table says so.
    set_aside : probes of a sweep inside a curve that held-out images did not choose; no experiment uses them.
    curves : per-layer data; None for a table that someone else made.
    emergence : what epochs along training show, which ``frame`` leaves out; None if none was probed.
    """

    frame: pd.DataFrame
    source: str
    title: str
    targets: tuple[Target, ...]
    variables: tuple[str, ...]
    context: tuple[str, ...] = ()
    replicates: tuple[str, ...] = ()
    constant: dict[str, object] = field(default_factory=dict)
    accuracy: str = ""
    choice: str = ""
    notes: tuple[str, ...] = ()
    incomplete: pd.DataFrame = field(default_factory=pd.DataFrame)
    planned: int | None = None
    set_aside: int = 0
    curves: metrics.Curves | None = None
    emergence: Emergence | None = None

    def narrowed(
        self, *, targets: Sequence[str] = (), variables: Sequence[str] = (), group: str | None = None
    ) -> Experiments:
        """Keep only some targets and variables, or take another column as the backbone.

        Variables that are not kept must still be equal in a matched pair.
        """
        known = {target.name: target for target in self.targets}
        _check(targets, known, "--target", self.source)
        available = (
            *self.variables,
            *(c for c in self.frame if c in GRID + vocabulary.DERIVED and c not in self.variables),
        )
        _check(variables, available, "--variables", self.source)
        chosen = tuple(v for v in dict.fromkeys(variables) if self.frame[v].nunique() > 1) or self.variables
        idle = [v for v in variables if v not in chosen]
        if variables and idle == list(variables):
            raise UserError(
                f"--variables {','.join(idle)}: each has a single value in {self.source}; nothing to attribute"
            )
        context = (*(c for c in self.context if c not in chosen), *(v for v in self.variables if v not in chosen))
        notes = [f"{vocabulary.label(v)} was asked for, but has a single value" for v in idle]
        left = [vocabulary.label(v) for v in self.variables if v not in chosen]
        if left:
            notes.append(f"Not attributed to, as --variables asked: {', '.join(left)}; matched pairs agree in them")
        frame = self.frame
        if group is not None:
            _check([group], frame.columns, "--group", self.source)
            frame = frame.assign(backbone=frame[group].astype(str))
        return replace(
            self, frame=frame, targets=tuple(known[t] for t in dict.fromkeys(targets)) or self.targets,
            variables=tuple(sorted(chosen)), context=context, notes=(*self.notes, *notes),
        )  # fmt: skip


def _check(names: Sequence[str], valid: object, option: str, source: str) -> None:
    options = list(valid)  # type: ignore[call-overload]
    for name in names:
        if name not in options:
            raise UserError(f"{option} {name}: not in {source}; it has {', '.join(map(str, options)) or 'none'}")


def read_sweep(results: str, *, accuracy: str) -> Experiments:
    """Experiments of a finished sweep: the folder's ``probes.parquet``, or that file itself."""
    uri = results if storage.ending(results).endswith(".parquet") else storage.join(results, storage.PROBES)
    if not storage.exists(uri):
        raise UserError(
            f"{uri}: no such file; a finished sweep has one (python sweep/run.py --out {results} writes it)"
        )
    schema = _checked_schema(uri, accuracy)
    about = json.loads((schema.metadata or {}).get(b"tunnel_sweep", b"{}"))
    varied = {name: spec.get("role", "treatment") for name, spec in about.get("variables", {}).items()}
    every = _probes(uri, schema.names, varied)
    probes = _chosen(every)
    kept, along = emergence.split(probes)
    curves = metrics.collect(kept, accuracy=accuracy)
    frame = metrics.experiments(curves, accuracy=accuracy)
    if not len(frame):
        raise UserError(f"{uri}: no complete OOD curve of a kept checkpoint ({len(curves.incomplete)} are incomplete)")
    frame = _without_nulls(frame)
    variables, nuisances, replicates, constant, notes = _variables(frame, varied)
    emerged, incomplete = _along_training(along, frame, varied, accuracy)
    missing_curves = [*about.get("failed_curves", []), *about.get("missing_curves", [])]
    lost = pd.DataFrame(
        {"curve_key": missing_curves, "reason": ["failed or not run: not in the table"] * len(missing_curves)}
    )
    return Experiments(
        frame=_labelled(frame, variables, replicates),
        source=uri,
        title=str(about.get("name") or results.rstrip("/").rsplit("/", 1)[-1]),
        targets=tuple(t for t in TARGETS.values() if frame[t.name].notna().any()),
        variables=variables,
        context=(*(c for c in CONTEXT if c in frame and c not in variables), *nuisances),
        replicates=replicates,
        constant=constant,
        accuracy=metrics.ACCURACY_TEXT[accuracy],
        choice=accuracy,
        notes=tuple(notes + _aside(len(every), len(probes)) + _broken_images(probes)),
        incomplete=_together(curves.incomplete, incomplete, lost),
        planned=about.get("planned_curves"),
        set_aside=len(every) - len(probes),
        curves=curves,
        emergence=emerged,
    )


def _together(first: pd.DataFrame, *others: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([first, *(part for part in others if len(part))], ignore_index=True)


def _along_training(
    probes: pd.DataFrame, kept: pd.DataFrame, roles: dict[str, str], accuracy: str
) -> tuple[Emergence | None, pd.DataFrame]:
    """What epochs along training show, and the curves among them that are incomplete."""
    curves = metrics.collect(probes, accuracy=accuracy)
    curves = replace(curves, table=_without_nulls(curves.table))
    frame = metrics.experiments(curves, accuracy=accuracy)
    if not len(frame):
        return None, curves.incomplete
    run = [c for c in GRID if c in frame]
    setting = [c for c in run if ({"seed": "replicate"} | roles).get(c) != "replicate"]
    named = frame[setting].assign(backbone=emergence.keys(frame, setting)).drop_duplicates()
    names = _labelled(named, (), ()).set_index("backbone")["label"]
    return emergence.describe(kept, frame, curves, labels=names, setting=setting, run=run), curves.incomplete


def _probes(uri: str, names: Sequence[str], varied: Iterable[str]) -> pd.DataFrame:
    """The columns of the table that are used, and ``backbone``: one download may serve several resolutions."""
    wanted = [name for name in dict.fromkeys((*NEEDED, *OPTIONAL, *varied)) if name in names]
    probes = storage.read_parquet(uri, wanted).to_pandas()
    if not len(probes):
        raise UserError(f"{uri}: the table has no rows")
    resolution = probes["resolution"].astype(str) if "resolution" in probes else "?"
    return probes.assign(backbone=probes["weights_key"].astype(str) + "@" + resolution)


def _chosen(probes: pd.DataFrame) -> pd.DataFrame:
    """Where a layer of a curve was probed several times: the probe that held-out images chose (all in older tables)."""
    if "chosen" not in probes:
        return probes
    kept = probes[probes["chosen"].isna() | (probes["chosen"] == True)]  # noqa: E712  (nulls among the truth values)
    return kept.drop(columns="chosen")


def _aside(every: int, kept: int) -> list[str]:
    if every == kept:
        return []
    return [
        f"{every - kept} of {every} probes are set aside: a layer of a curve was probed with several learning rates, "
        "weight decays or seeds, and only the probe that held-out images chose counts"
    ]


def _checked_schema(uri: str, accuracy: str) -> pa.Schema:
    schema = storage.schema(uri)
    for name in (*NEEDED, *metrics.ACCURACIES[accuracy]):
        if name not in schema.names:
            raise UserError(f"{uri}: column {name} is missing; a probe table needs {', '.join(NEEDED)}")
    return schema


def _without_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Give a null a value where the contract says what it means: all images per class, or no ID training here."""
    filled = {}
    if "images_per_class" in frame and frame["images_per_class"].isna().any():
        filled["images_per_class"] = frame["images_per_class"].astype(float).fillna(np.inf)
    if "augmentation" in frame and frame["augmentation"].isna().any():
        filled["augmentation"] = frame["augmentation"].fillna("downloaded")
    return frame.assign(**filled)


def _variables(
    frame: pd.DataFrame, roles: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], dict[str, object], list[str]]:
    """Treatments, nuisances, replicates among the columns, what is constant, and notes on what was left out and why."""
    candidates = [c for c in (*GRID, *(r for r in roles if r not in GRID), *vocabulary.DERIVED) if c in frame]
    varied = [c for c in candidates if frame[c].nunique() > 1]
    role = {"seed": "replicate"} | roles
    loose = [c for c in varied if not _determined(frame, c, ["backbone"])]
    varied = [c for c in varied if c not in loose]
    replicates = tuple(c for c in varied if role.get(c) == "replicate")
    nuisances = [c for c in varied if role.get(c) == "nuisance"]
    chosen = [c for c in varied if c not in replicates and c not in nuisances]
    notes = [
        f"{vocabulary.label(c)} is declared a nuisance: it is not attributed to, and matched pairs agree in it"
        for c in nuisances
    ]
    notes += [f"{vocabulary.label(c)} differs between the curves of one backbone: it is no variable" for c in loose]
    for name, described_by in NAMES.items():
        others = [c for c in described_by if c in chosen]
        if name in chosen and others and _determined(frame, name, others):
            chosen.remove(name)
            words = ", ".join(vocabulary.label(c) for c in others)
            notes.append(f"{vocabulary.label(name)} is not a variable of its own: {words} tell its values apart")
    constant = {c: frame[c].dropna().iloc[0] for c in candidates if c not in varied and frame[c].notna().any()}
    notes += [f"{vocabulary.label(c)} is unknown for some backbones" for c in chosen if frame[c].isna().any()]
    return tuple(sorted(chosen)), tuple(n for n in nuisances if n not in CONTEXT), replicates, constant, notes


def _determined(frame: pd.DataFrame, name: str, others: list[str]) -> bool:
    return bool((frame.groupby(others, dropna=False)[name].nunique(dropna=False) <= 1).all())


def _labelled(frame: pd.DataFrame, variables: Sequence[str], replicates: Sequence[str]) -> pd.DataFrame:
    """Add ``label``: what tells a backbone from the others, in words."""
    hidden = set(vocabulary.DERIVED)
    shown = [
        c for c in GRID if c in frame and c not in replicates and frame[c].nunique(dropna=False) > 1 and c not in hidden
    ]
    if "architecture" in frame and "architecture" not in shown:
        shown.insert(0, "architecture")
    shown += [c for c in variables if c not in shown and c not in hidden]
    return frame.assign(label=labels(frame, [*shown, *replicates]))


def labels(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Each row's backbone in words: its values of some columns; its name if there are no columns.

    Recipe columns that the other columns determine tell nothing apart, so they are left out.
    """
    backbones = frame.drop_duplicates("backbone")
    design = [c for c in columns if c not in RECIPE]
    columns = [c for c in columns if c in design or not design or not _determined(backbones, c, design)]
    parts = [_words(c, backbones[c]) for c in columns]
    words = [", ".join(words) for words in zip(*parts, strict=True)] if parts else list(backbones["backbone"])
    return frame["backbone"].map(dict(zip(backbones["backbone"], words, strict=True)))


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
    return SHORT.get(column, vocabulary.label(column) + " {}").format(text)


def _broken_images(probes: pd.DataFrame) -> list[str]:
    if "skipped_images" not in probes:
        return []
    per_dataset = probes.drop_duplicates("dataset").set_index("dataset")["skipped_images"]
    return [
        f"dataset {name}: {len(images)} broken images were skipped"
        for name, images in per_dataset.items()
        if images is not None and len(images)
    ]
