"""Tidy frames for people who write Python: ``from analysis import load``.

    backbones = load.backbones("results/demo")
    load.plot_layers("results/demo", backbones.backbone[0])

Every function takes a place: a sweep's folder or URI (finished or running), a ``probes.parquet``, an export, or a
folder of fragments. The SQL views of the same names (``python -m analysis.sql``) hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.page.browse_data import backbone_means
from analysis.tables import continual as courses
from analysis.tables import epochs, metrics, stored
from analysis.tables import readings as measured
from analysis.tables.errors import UserError
from analysis.tables.experiments import GRID, Experiments
from analysis.tables.names import DERIVED, label
from analysis.tables.sweep import read_sweep, with_backbone

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OF_PROBES = ("_row", "layer", "top1", "top1_best", "top1_last", "heldout_top1", "rank", "problem")
_AGAINST_ID = ("pearson", "alignment", "id_final_accuracy", *(f"id_start_{percent}" for percent in metrics.ID_RULES))
_X = {"layer": "layer", "position": "position (0 first, 1 last layer)"}


def probes(uri: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per linear probe, as the table has them, and ``backbone``.

    Parameters
    ----------
    columns : only these columns of the table (the README's data dictionary says what each means), besides those that
        ``backbone`` is made of; None: all.

    Returns
    -------
    All probes: of several of a layer the analysis takes the one where ``chosen`` is true; ``epoch`` is null for kept
    checkpoints.
    """
    found = stored.find(uri)
    present = found.probes.schema.names
    if columns is not None:
        unknown = [name for name in columns if name not in present]
        if unknown:
            raise UserError(f"{found.uri}: no column {', '.join(unknown)}; it has {', '.join(present)}")
        named = [c for c in ("weights_key", "resolution", "backbone_key") if c in present]
        columns = list(dict.fromkeys([*named, *columns]))
    return with_backbone(found.table(columns).to_pandas())


def experiments(uri: str, *, accuracy: str = "heldout") -> pd.DataFrame:
    """One row per backbone × OOD dataset, of kept checkpoints whose curve is complete.

    Parameters
    ----------
    accuracy : ``heldout`` (default), ``last`` or ``paper``: keys of ``analysis.tables.metrics.ACCURACY_TEXT``.

    Returns
    -------
    ``backbone``, ``label`` (in words), ``dataset``, the grid variables and what derives from them, and the metrics of
    :func:`analysis.tables.metrics.experiments`: retained (%), pearson, alignment, tunnel, tunnel_start, …
    """
    return _plain(read_sweep(uri, accuracy=accuracy).frame)


def backbones(uri: str, *, accuracy: str = "heldout") -> pd.DataFrame:
    """One row per backbone: mean % retained over OOD datasets with a 95 % interval, strength, tunnel, its variables.

    Returns
    -------
    The columns of :func:`analysis.estimates.backbones.summary`, then the grid variables and what derives from them.
    """
    found = read_sweep(uri, accuracy=accuracy)
    known = [c for c in dict.fromkeys((*GRID, *found.variables, *DERIVED)) if c in found.frame]
    return backbone_means(found).merge(found.frame.drop_duplicates("backbone")[["backbone", *known]], on="backbone")


def curves(uri: str, *, accuracy: str = "heldout") -> pd.DataFrame:
    """One row per backbone × dataset, the ID dataset too, of kept checkpoints.

    Returns
    -------
    ``curve_key``, ``backbone``, ``dataset``, ``is_id``, the variables; n_layers, peak_layer, peak_accuracy,
    final_accuracy, retained (%), tunnel, tunnel_start, tunnel_length; ``incomplete``: why a curve has no metrics, null
    if it has.
    """
    found = read_sweep(uri, accuracy=accuracy)
    own = found.curves
    assert own is not None  # a sweep has layers
    each = replace(own, table=own.table.assign(is_id=False))  # the peak of an ID curve is found in the same way
    frame = metrics.experiments(each, accuracy=accuracy).drop(columns=list(_AGAINST_ID))
    frame = _plain(frame.assign(is_id=own.table["is_id"].to_numpy()))
    lost = found.incomplete.rename(columns={"reason": "incomplete"})
    return pd.concat([frame, lost], ignore_index=True) if len(lost) else frame.assign(incomplete=None)


def layers(uri: str, *, accuracy: str = "heldout") -> pd.DataFrame:
    """One row per layer of every complete curve of a kept checkpoint: what a plot by layer needs.

    Returns
    -------
    ``backbone``, ``label``, ``dataset``, ``is_id``, ``layer``, ``position`` (0 first, 1 last), ``accuracy`` (by the
    rule), ``share`` (% of the accuracy at the curve's peak layer), ``in_tunnel``.
    """
    found = read_sweep(uri, accuracy=accuracy)
    return _layers(found, curves(uri, accuracy=accuracy))


def readings(uri: str, *names: str) -> pd.DataFrame:
    """What was measured of layers beside their probes, one row per curve × layer × number.

    Parameters
    ----------
    names : only these, as the column ``reading`` has them (``docs/instruments.md``); none: all.

    Returns
    -------
    The columns of ``readings.parquet``, which joins ``probes`` on ``curve_key``, ``backbone_key`` and ``layer``.
    """
    frame = measured.read(uri)
    return _only(frame, "reading", names, uri) if names else frame


def continual(uri: str) -> pd.DataFrame:
    """What was measured of networks that learned several tasks, one row per measurement (``docs/continual.md``).

    Returns
    -------
    The columns of ``continual.parquet`` but for the images' bits, and ``configuration``: what tells courses apart but
        for their seed, as the report names it.

    Raises
    ------
    UserError
        If the sweep has no such table.
    """
    found = courses.named(uri, stored.find(uri).about.get("name"))
    if found is None:
        raise UserError(f"{uri}: no {courses.NAME}; a sweep whose grid has tasks (docs/continual.md) has one")
    return found


def likeness(uri: str, curve_key: str, *, debiased: bool = False) -> pd.DataFrame:
    """Linear CKA of every pair of a curve's layers, as a matrix with layers as index and columns."""
    name = "cka_debiased" if debiased else "cka"
    pairs = _only(readings(uri, name), "curve_key", [curve_key], uri)
    upper = pairs.drop_duplicates(["layer", "other_layer"]).pivot(index="layer", columns="other_layer", values="value")
    every = sorted({*upper.index, *upper.columns})
    square = upper.reindex(index=every, columns=every).to_numpy(float)
    whole = np.where(np.isnan(square), square.T, square)
    np.fill_diagonal(whole, 1.0)
    return pd.DataFrame(whole, index=pd.Index(every, name="layer"), columns=pd.Index(every, name="other_layer"))


def _layers(found: Experiments, each: pd.DataFrame) -> pd.DataFrame:
    own = found.curves
    assert own is not None
    n_C = own.stop_C - own.start_C
    names = found.frame.drop_duplicates("backbone").set_index("backbone")["label"]
    table = own.table.assign(label=own.table["backbone"].map(names))
    facts = each.set_index("curve_key")
    table = table[["curve_key", "backbone", "label", "dataset", "is_id"]].join(
        facts[["peak_accuracy", "tunnel_start", "n_layers"]], on="curve_key"
    )
    flat = table.loc[np.repeat(table.index, n_C)].reset_index(drop=True)
    deep = (flat["n_layers"].astype(float) - 1).clip(lower=1)
    return flat.assign(
        layer=own.layer_N,
        position=(own.layer_N - 1) / deep,
        accuracy=own.accuracy_N,
        share=100 * own.accuracy_N / flat["peak_accuracy"].astype(float).where(lambda top: top > 0),
        in_tunnel=(own.layer_N > flat["tunnel_start"].astype(float)),
    ).drop(columns=["peak_accuracy", "tunnel_start", "n_layers", "curve_key"])


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Without columns that are a probe's, and not the curve's."""
    return frame.drop(columns=[c for c in (*_OF_PROBES, epochs.EPOCH) if c in frame])


def plot_layers(
    uri: str,
    *backbone: str,
    datasets: Sequence[str] | None = None,
    x: str = "layer",
    percent: bool = False,
    accuracy: str = "heldout",
    ax: Axes | None = None,
) -> Axes:
    """Accuracy by layer of some backbones: the ID dataset dashed, OOD datasets solid, the tunnel thick.

    Parameters
    ----------
    backbone : names of backbones, as in the column ``backbone`` or ``label``.
    datasets : only these; None: all.
    x : ``layer`` or ``position``.
    percent : % of the accuracy at the peak layer, instead of the accuracy in %.
    ax : where to draw; None: a new figure.

    Raises
    ------
    UserError
        If a name is not in the table.
    """
    if x not in _X:
        raise UserError(f"x={x!r}: must be one of {', '.join(_X)}")
    frame = layers(uri, accuracy=accuracy)
    frame = _only(frame, "dataset", datasets, uri) if datasets is not None else frame
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(layout="constrained")[1]
    many = len(backbone) > 1
    for name in backbone:
        column = "backbone" if (frame["backbone"] == name).any() else "label"
        for (dataset, is_id), part in _only(frame, column, [name], uri).groupby(["dataset", "is_id"], sort=True):
            y = part["share"] if percent else 100 * part["accuracy"]
            text = f"{part['label'].iloc[0]}: {dataset}" if many else str(dataset)
            line = ax.plot(part[x], y, "--" if is_id else "-", label=f"{text} (ID)" if is_id else text)[0]
            deep = part["in_tunnel"].to_numpy(bool)
            if not is_id and deep.any():
                ax.plot(part[x][deep], y[deep], lw=5, alpha=0.35, color=line.get_color(), solid_capstyle="butt")
    ax.set_xlabel(_X[x])
    ax.set_ylabel("% of the accuracy at the peak layer" if percent else "probe accuracy (%)")
    if not many:
        ax.set_title(str(frame.loc[frame[column] == name, "label"].iloc[0]))
    ax.legend()
    return ax


def _only(frame: pd.DataFrame, column: str, names: Sequence[str], uri: str) -> pd.DataFrame:
    """Rows with one of these names; UserError for a name that no row has."""
    known = set(frame[column])
    for name in names:
        if name not in known:
            raise UserError(f"{uri}: no {label(column)} {name!r}; there are {', '.join(sorted(map(str, known)))}")
    return frame[frame[column].isin(names)]
