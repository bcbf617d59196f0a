"""Experiments of a finished sweep, from its probe table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables import continual, epochs, metrics, names, quality, readings, stored
from analysis.tables.epochs import Emergence
from analysis.tables.errors import UserError
from analysis.tables.experiments import GRID, Experiments, determined, held_equal, labels
from analysis.tables.names import TARGETS

NEEDED = ("curve_key", "weights_key", "dataset", "is_id", "chance", "layer", "top1", "top1_best", "heldout_top1")

FIT_ON = "fit_on"  # "id": a probe of the ID dataset that was tested elsewhere
DEVICE, EXTRACTION = "device", "extraction_precision"  # where a curve was computed, and how its images were embedded
OPTIONAL = (
    FIT_ON, DEVICE, EXTRACTION,
    *GRID, *names.DERIVED, *names.OF_WEIGHTS,
    "top1_last", "parameters", "id_images", "classes", "n_test", "n_train", "n_heldout",
    "heldout_loss", "crossfit_top1", "crossfit_loss", "rank", "converged", "problem",
    "skipped_images", "backbone_key", "backbone_test_top1", "backbone_epoch", "chosen", epochs.EPOCH,
    "epoch_chosen", "probe_solver", "probe_standardize", "probe_epochs",
    "probe_seed_index", "probe_lr", "probe_weight_decay",
)  # fmt: skip

PROBE = ("probe_seed_index", "probe_lr", "probe_weight_decay")  # what tells probes of one layer apart
NAMES = {
    "architecture": ("family", "stem", "depth", "spatial_reduction", "width"),
    "id_dataset": ("id_classes", "images_per_class"),
}

COMPLEXITY = "id_complexity"  # a variable where an instrument measured it
CONTEXT = ("id_dataset",)
_LISTED = 5  # reasons that a refusal names
CLUSTER = "architecture"  # what its backbones share no configuration of the grid makes


def read_sweep(results: str, *, accuracy: str) -> Experiments:
    """Experiments of a sweep: of its ``probes.parquet``, or of its fragments where there is none yet."""
    found = stored.find(results)
    uri, about = found.uri, found.about
    _check_columns(found, accuracy)
    varied = {name: spec.get("role", "treatment") for name, spec in about.get("variables", {}).items()}
    whole = _probes(found, varied)
    every, shifted = without_shifted(whole)
    probes = _chosen(every)
    kept, along = epochs.split(probes)
    curves = metrics.collect(kept, accuracy=accuracy)
    frame = metrics.experiments(curves, accuracy=accuracy)
    if not len(frame):
        raise UserError(_why_none(found, curves.incomplete))
    frame = _with_complexity(_without_nulls(frame), uri)
    variables, nuisances, replicates, constant, notes = _variables(frame, varied)
    adjust, unheld = held_equal(about.get("adjust", {}), variables)
    emerged, incomplete = _along_training(along, frame, varied, accuracy)
    return Experiments(
        frame=_labelled(frame, variables, replicates),
        source=uri,
        title=str(about.get("name") or results.rstrip("/").rsplit("/", 1)[-1]),
        targets=tuple(t for t in TARGETS.values() if frame[t.name].notna().any()),
        further=tuple(names.FURTHER.values()),
        variables=variables,
        context=(*(c for c in CONTEXT if c in frame and c not in variables), *nuisances),
        replicates=replicates,
        clusters={CLUSTER: CLUSTER} if CLUSTER in frame and frame[CLUSTER].nunique() > 1 else {},
        parts={name: names.KNOWN[name].part for name in variables if name in names.KNOWN} | _declared(about, "part"),
        references={"intervention": "none"} if "intervention" in variables else {},
        logs=tuple(name for name, scale in _declared(about, "scale").items() if scale == "log" and name in variables),
        adjust=adjust,
        constant=constant,
        accuracy=metrics.ACCURACY_TEXT[accuracy] + _fitted(probes),
        choice=accuracy,
        notes=(*notes, *unheld, *shifted, *_aside(len(every), len(probes)), *_of_rows(probes)),
        incomplete=_together(curves.incomplete, incomplete, _lost(found, whole)),
        planned=about.get("planned_curves", len(found.planned) or None),
        set_aside=len(every) - len(probes),
        curves=curves,
        quality=quality.of(epochs.split(every)[0], curves),
        emergence=emerged,
        courses=continual.read(results, about.get("name")),
    )


def _why_none(found: stored.Stored, incomplete: pd.DataFrame) -> str:
    """What a sweep without an OOD curve to report is told: what its curves lack, and each failure's last words."""
    failed = found.failures.to_pandas().sort_values("failed_at").drop_duplicates("curve_key", keep="last")
    short = failed["message"].fillna("").str.strip().str.split("\n").str[0]
    words = (
        failed["dataset"].fillna("?")
        + ", "
        + failed["stage"].fillna("?")
        + ": "
        + failed["exception"].fillna("")
        + ": "
        + short
    )
    reasons = [*incomplete["reason"].value_counts().items(), *words.value_counts().items()]
    listed = "".join(f"\n  {n} × {reason}" for reason, n in reasons[:_LISTED])
    more = f"\n  and {len(reasons) - _LISTED} other reasons" if len(reasons) > _LISTED else ""
    counted = f"{len(incomplete)} are incomplete, {len(failed)} failed"
    return f"{found.uri}: no complete OOD curve of a kept checkpoint ({counted}){listed}{more}"


def _fitted(probes: pd.DataFrame) -> str:
    """How the probes were fitted, as the table says: a tunnel by one solver is not one by another."""
    if "probe_solver" not in probes or not probes["probe_solver"].notna().any():
        return ""
    solvers = ", ".join(sorted(probes["probe_solver"].dropna().unique()))
    scaled = probes["probe_standardize"].dropna().eq("feature") if "probe_standardize" in probes else pd.Series([False])
    how = "standardised" if scaled.all() else "partly standardised" if scaled.any() else "as they are"
    return f"; probes by {solvers}, embeddings {how}"


def _lost(found: stored.Stored, probes: pd.DataFrame) -> pd.DataFrame:
    """Curves that the plan asks for and the table does not hold."""
    present = set(probes["curve_key"])
    missing = [key for key in found.planned["curve_key"].to_pylist() if key not in present]
    return pd.DataFrame({"curve_key": missing, "reason": ["failed or not run: not in the table"] * len(missing)})


def other_accuracies(results: str, chosen: str) -> dict[str, Experiments]:
    """The same sweep under the other accuracy rules that its table allows, to show what depends on the rule."""
    there = set(stored.find(results).probes.schema.names)
    rules = [rule for rule, needed in metrics.ACCURACIES.items() if rule != chosen and set(needed) <= there]
    found = {}
    for rule in rules:
        try:
            found[rule] = read_sweep(results, accuracy=rule)
        except UserError:  # a rule whose accuracies are not there for any curve: there is nothing to show of it
            continue
    return found


def without_shifted(probes: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Probes that were fitted where they are tested, and a note on the others: they are no OOD experiments."""
    if FIT_ON not in probes:
        return probes, []
    other = probes[FIT_ON].eq("id").fillna(False).to_numpy(bool)
    if not other.any():
        return probes.drop(columns=FIT_ON), []
    curves, names_of = probes[other]["curve_key"].nunique(), sorted(probes[other]["dataset"].unique())
    note = (
        f"{curves} curves were fitted on ID images and tested on shifted ones (fit_on is 'id': {', '.join(names_of)}): "
        "they are no OOD experiments, and no number here is of them"
    )
    return probes[~other].drop(columns=FIT_ON), [note]


def _declared(about: dict[str, Any], key: str) -> dict[str, str]:
    """What the sweep says of its own variables, beside their roles."""
    return {name: spec[key] for name, spec in about.get("variables", {}).items() if key in spec}


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
    configuration = [c for c in run if ({"seed": "replicate"} | roles).get(c) != "replicate"]
    named = frame[configuration].assign(backbone=epochs.keys(frame, configuration)).drop_duplicates()
    names = _labelled(named, (), ()).set_index("backbone")["label"]
    return epochs.describe(kept, frame, curves, labels=names, configuration=configuration, run=run), curves.incomplete


def _probes(found: stored.Stored, varied: Iterable[str]) -> pd.DataFrame:
    """The columns of the table that are used, and ``backbone``."""
    wanted = [name for name in dict.fromkeys((*NEEDED, *OPTIONAL, *varied)) if name in found.probes.schema.names]
    probes = found.table(wanted).to_pandas()
    if not len(probes):
        raise UserError(f"{found.uri}: the table has no rows")
    return once(with_backbone(probes))


def with_backbone(probes: pd.DataFrame) -> pd.DataFrame:
    """Add ``backbone``, what tells backbones apart: one download may serve several resolutions."""
    resolution = probes["resolution"].astype(str) if "resolution" in probes else "?"
    named = probes["weights_key"].astype(str) + "@" + resolution
    if "backbone_key" in probes:  # since schema version 2: one download may also serve several ID datasets
        named = probes["backbone_key"].astype(object).fillna(named)
    return probes.assign(backbone=named)


def once(probes: pd.DataFrame) -> pd.DataFrame:
    """Probes with ``backbone``, a fragment once for each backbone, however many labels it stands under.

    A dataset under two names is one measurement: its first name stays. Of two backbones that share a curve (all images
    and their number, say) each has it, the later one under a key of its own.
    """
    told = ["curve_key", "backbone"]
    measured = [c for c in ("layer", epochs.EPOCH, *PROBE, "top1", "heldout_top1") if c in probes]
    probes = probes[~probes.duplicated([*told, *measured])]
    pairs = probes[told].drop_duplicates()
    later = pairs[pairs.duplicated("curve_key")]
    if not len(later):
        return probes
    renamed = pd.MultiIndex.from_frame(probes[told]).isin(pd.MultiIndex.from_frame(later))
    own = probes["curve_key"].astype(str) + "@" + probes["backbone"].astype(str)
    return probes.assign(curve_key=probes["curve_key"].where(~renamed, own))


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


def _check_columns(found: stored.Stored, accuracy: str) -> None:
    for name in (*NEEDED, *metrics.ACCURACIES[accuracy]):
        if name not in found.probes.schema.names:
            raise UserError(f"{found.uri}: column {name} is missing; a probe table needs {', '.join(NEEDED)}")


def _without_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Give a null a value where the contract says what it means: all images per class, or no ID training here."""
    filled = {}
    if "images_per_class" in frame and frame["images_per_class"].isna().any():
        filled["images_per_class"] = frame["images_per_class"].astype(float).fillna(np.inf)
    if "augmentation" in frame and frame["augmentation"].isna().any():
        filled["augmentation"] = frame["augmentation"].fillna("downloaded")
    if "intervention" in frame and frame["intervention"].notna().any():
        filled["intervention"] = frame["intervention"].fillna("none")
    return frame.assign(**filled)


def _with_complexity(frame: pd.DataFrame, uri: str) -> pd.DataFrame:
    """With how complex the backbone's ID images are, where that was measured."""
    found = readings.id_complexity(uri)
    return frame.assign(**{COMPLEXITY: frame["backbone"].map(found)}) if found else frame


def _variables(
    frame: pd.DataFrame, roles: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], dict[str, object], list[str]]:
    """Treatments, nuisances, replicates among the columns, what is constant, and notes on what was left out and why."""
    candidates = [c for c in (*GRID, *(r for r in roles if r not in GRID), *names.DERIVED) if c in frame]
    candidates += [COMPLEXITY] * (COMPLEXITY in frame)
    candidates += [c for c in names.OF_WEIGHTS if c in frame and c not in roles and frame[c].nunique() > 1]
    varied = [c for c in candidates if frame[c].nunique() > 1]
    role = {"seed": "replicate"} | roles
    loose = [c for c in varied if not determined(frame, c, ["backbone"])]
    varied = [c for c in varied if c not in loose]
    replicates = tuple(c for c in varied if role.get(c) == "replicate")
    nuisances = [c for c in varied if role.get(c) == "nuisance"]
    chosen = [c for c in varied if c not in replicates and c not in nuisances]
    notes = [
        f"{names.label(c)} is declared a nuisance: it is not attributed to, and matched pairs agree in it"
        for c in nuisances
    ]
    notes += [f"{names.label(c)} differs between the curves of one backbone: it is no variable" for c in loose]
    for name, described_by in NAMES.items():
        others = [c for c in described_by if c in chosen]
        if name in chosen and others and determined(frame, name, others):
            chosen.remove(name)
            words = ", ".join(names.label(c) for c in others)
            notes.append(f"{names.label(name)} is not a variable of its own: {words} tell its values apart")
    constant = {c: frame[c].dropna().iloc[0] for c in candidates if c not in varied and frame[c].notna().any()}
    notes += [f"{names.label(c)} is unknown for some backbones" for c in chosen if frame[c].isna().any()]
    return tuple(sorted(chosen)), tuple(n for n in nuisances if n not in CONTEXT), replicates, constant, notes


def _labelled(frame: pd.DataFrame, variables: Sequence[str], replicates: Sequence[str]) -> pd.DataFrame:
    """Add ``label``: what tells a backbone from the others, in words."""
    hidden = {*names.DERIVED, *names.OF_WEIGHTS}  # the network's and the weights' names say it
    shown = [
        c for c in GRID if c in frame and c not in replicates and frame[c].nunique(dropna=False) > 1 and c not in hidden
    ]
    if "architecture" in frame and "architecture" not in shown:
        shown.insert(0, "architecture")
    shown += [c for c in variables if c not in shown and c not in hidden]
    return frame.assign(label=labels(frame, [*shown, *replicates]))


def _seen(probes: pd.DataFrame) -> list[str]:
    """Where ID training took all images, those that choose on the ID dataset are no held-out ones."""
    if "train_on" not in probes:
        return []
    on_all = probes.loc[probes["train_on"] == "all", "backbone"].nunique() if "backbone" in probes else 0
    said = "on the ID dataset the images that chose epoch, penalty and peak layer of the probes were trained on"
    return [f"{on_all} backbones were trained on all ID images: {said}"] if on_all else []


def _of_rows(probes: pd.DataFrame) -> list[str]:
    """Notes on how the rows came about."""
    return [*_seen(probes), *_origins(probes), *_broken_images(probes)]


def _origins(probes: pd.DataFrame) -> list[str]:
    """Where curves of one table were computed on several kinds of processor, or embedded in several precisions."""
    curves = probes.drop_duplicates("curve_key")
    found = []
    if DEVICE in curves and curves[DEVICE].nunique() > 1:
        counts = "; ".join(f"{name}: {count} curves" for name, count in curves[DEVICE].value_counts().items())
        found.append(f"the curves were computed on several kinds of processor, which round differently ({counts})")
    if EXTRACTION in curves and curves[EXTRACTION].nunique(dropna=False) > 1:
        named = curves[EXTRACTION].astype(object).fillna("not recorded: older, TF32 in convolutions on a GPU")
        counts = "; ".join(f"{name}: {count} curves" for name, count in named.value_counts().items())
        found.append(f"images were embedded in several precisions ({counts}): a difference between them may be that")
    return found


def _broken_images(probes: pd.DataFrame) -> list[str]:
    if "skipped_images" not in probes:
        return []
    per_dataset = probes.drop_duplicates("dataset").set_index("dataset")["skipped_images"]
    return [
        f"dataset {name}: {len(images)} broken images were skipped"
        for name, images in per_dataset.items()
        if images is not None and len(images)
    ]
