"""What a recipe search leaves: recipes as YAML for a grid config, its trials as Parquet, one figure, a few lines."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from sweep.base.store import Store
from sweep.study import TrialOutcome, group_label, variables

RECIPES, TRIALS, FIGURE = "recipes.yaml", "trials.parquet", "trials.png"
_PANELS, _COLUMNS = 12, 3
_CHOSEN, _DEFAULT, _OTHER = "chosen", "the config's recipe", "other trials"
_BOTH = "chosen: the config's recipe"
_STYLES: Mapping[str, Mapping[str, Any]] = {
    _CHOSEN: {"color": "#1769aa", "linewidth": 2.2},
    _DEFAULT: {"color": "black", "linewidth": 1.6, "linestyle": "--"},
    _BOTH: {"color": "black", "linewidth": 2.2},
    _OTHER: {"color": "0.75", "linewidth": 0.9},
}


def write(store: Store, found: Sequence[TrialOutcome], *, name: str) -> None:
    """Write recipes, trials and figure from the outcomes of all trials; ``name`` is the config's."""
    store.put(RECIPES, recipes_yaml(found, name=name).encode())
    store.put(TRIALS, _parquet(found))
    store.put(FIGURE, _figure(found))


def recipes_yaml(found: Sequence[TrialOutcome], *, name: str) -> str:
    """The chosen recipes as a list of rules that a config includes with ``recipes: FILE``."""
    head = (
        f"# ID-training recipes found by the search of {name}: sweep/tune.py, top-1 on held-out ID images.\n"
        f"# In a config: recipes: {RECIPES}. The evidence stands in {TRIALS} and {FIGURE}.\n"
    )
    entries = []
    for outcome in found:
        if not outcome.chosen or outcome.record is None:
            continue
        rule = {"when": dict(outcome.trial.group), "recipe": dict(outcome.trial.searched)}
        entries.append(f"# {_verdict(outcome, found)}\n{yaml.safe_dump([rule], sort_keys=False)}")
    return head + ("".join(entries) or "[]\n")


def _verdict(outcome: TrialOutcome, found: Sequence[TrialOutcome]) -> str:
    """Held-out top-1 of the chosen recipe and of the config's, with the error of one such measurement."""
    group = [other for other in found if other.trial.group == outcome.trial.group]
    default = next(other for other in group if other.trial.number == 0)
    assert outcome.record is not None
    assert default.record is not None
    chosen, n = outcome.record.heldout_top1, outcome.record.n_heldout
    error = 100 * math.sqrt(chosen * (1 - chosen) / n) if n else math.nan
    text = f"{100 * chosen:.1f} ± {error:.1f} % (standard error, {n} images)"
    if outcome is default:
        text += ", the config's own recipe"
    elif default.record.status == "finished":
        text += f", with the config's own recipe {100 * default.record.heldout_top1:.1f} %"
    else:
        text += f", the config's own recipe failed: {default.record.problem}"
    return f"{text}; {_counts(group)}"


def _counts(group: Sequence[TrialOutcome]) -> str:
    ended = [outcome.record.status for outcome in group if outcome.record]
    words = [f"{ended.count(status)} {status}" for status in ("finished", "stopped", "failed") if status in ended]
    return f"{len(group)} trials, {', '.join(words)}"


def summary(found: Sequence[TrialOutcome]) -> str:
    """One paragraph per group for the terminal."""
    lines = []
    for group in dict.fromkeys(outcome.trial.group for outcome in found):
        members = [outcome for outcome in found if outcome.trial.group == group]
        chosen = next((outcome for outcome in members if outcome.chosen), None)
        if chosen is None:
            problem = next((m.record.problem for m in members if m.record and m.record.problem), None)
            lines.append(f"{group_label(group)}: no recipe, {_counts(members)}{f' ({problem})' if problem else ''}")
            continue
        values = ", ".join(f"{key} {value:g}" for key, value in chosen.trial.searched)
        lines.append(f"{group_label(group)}: {values}\n    held-out top-1 {_verdict(chosen, found)}")
    return "\n".join(lines)


def _row(outcome: TrialOutcome) -> dict[str, Any]:
    trial, record = outcome.trial, outcome.record
    measured: dict[str, Any] = {}
    if record is not None:
        accuracies = record.heldout_top1_epochs
        measured = {
            "epochs_trained": len(accuracies),
            "heldout_top1": record.heldout_top1 if accuracies else None,
            "heldout_top1_epochs": list(accuracies),
            "n_heldout": record.n_heldout,
            "seconds": record.seconds,
            "problem": record.problem,
        }
    return {
        "group": group_label(trial.group),
        "trial": trial.number,
        "is_default": trial.number == 0,
        "chosen": outcome.chosen,
        "status": record.status if record else "missing",
        **{key: value for key, value in variables(trial.backbone).items() if key != "epoch"},
        **measured,
        "weights_key": outcome.key,
    }


_TYPES = {
    "epochs_trained": pa.int32(),
    "heldout_top1": pa.float64(),
    "heldout_top1_epochs": pa.list_(pa.float64()),
    "seconds": pa.float64(),
    "problem": pa.string(),
}


def _parquet(found: Sequence[TrialOutcome]) -> pa.Buffer:
    rows = [_row(outcome) for outcome in found]
    names = dict.fromkeys(name for row in rows for name in row) | dict.fromkeys(_TYPES)
    columns = {name: pa.array([row.get(name) for row in rows], _TYPES.get(name)) for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _figure(found: Sequence[TrialOutcome]) -> bytes:
    """Held-out top-1 against the epoch, a panel per group: all trials, the config's recipe, the chosen one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys(outcome.trial.group for outcome in found))
    shown = groups[:_PANELS]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    size = (3.6 * columns, 2.8 * rows + 0.7)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, group in zip(axes.flat, shown, strict=False):
        _panel(axis, [outcome for outcome in found if outcome.trial.group == group])
    drawn = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    labels = [label for label in (_CHOSEN, _DEFAULT, _BOTH, _OTHER) if label in drawn]
    figure.legend(
        [drawn[label] for label in labels], labels, loc="outside lower center", ncols=len(labels), frameon=False
    )
    more = f" ({len(shown)} of {len(groups)} shown)" if len(shown) < len(groups) else ""
    figure.suptitle(f"Trials of the recipe search{more}", fontsize="medium")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    pyplot.close(figure)
    return buffer.getvalue()


def _panel(axis: Any, members: Sequence[TrialOutcome]) -> None:
    labelled: set[str] = set()
    for outcome in sorted(members, key=lambda o: (o.chosen, o.trial.number == 0)):
        accuracies = outcome.record.heldout_top1_epochs if outcome.record else ()
        if not accuracies:
            continue
        name = {(True, True): _BOTH, (True, False): _CHOSEN, (False, True): _DEFAULT}.get(
            (outcome.chosen, outcome.trial.number == 0), _OTHER
        )
        label = None if name in labelled else name
        labelled.add(name)
        epochs = range(1, len(accuracies) + 1)
        stopped = len(accuracies) > 0 and outcome.record is not None and outcome.record.status != "finished"
        axis.plot(epochs, [100 * a for a in accuracies], marker="x" if stopped else None, markevery=[-1],
                  label=label, **_STYLES[name])  # fmt: skip
    axis.set_title(group_label(members[0].trial.group), fontsize="small")
    axis.set_xlabel("epoch (× where a trial was stopped)")
    axis.set_ylabel("held-out top-1, %")
    axis.xaxis.get_major_locator().set_params(integer=True)
