"""What a sweep measured of layers beside their probes: ``readings.parquet``, beside ``probes.parquet``.

One row per curve, layer and number; ``docs/instruments.md`` defines them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow.dataset as ds

from analysis.tables import storage
from analysis.tables.errors import UserError
from analysis.tables.written import refuse_changed

READINGS = "readings.parquet"
_KEYS = ("curve_key", "backbone_key", "layer")


def beside(uri: str) -> str | None:
    """The table that belongs to a table of probes or stands in a folder; None if there is none."""
    if storage.ending(uri).endswith(".parquet"):
        name = storage.ending(uri).rpartition("/")[2]
        place = storage.join(storage.folder(uri), name.replace("probes", "readings", 1))
        return place if place != uri and storage.exists(place) else None
    place = storage.join(uri, READINGS)
    return place if storage.exists(place) else None


def dataset(place: str) -> ds.Dataset:
    """The table, of which nothing is read before it is scanned."""
    refuse_changed(place)
    filesystem, path = storage.resolve(place)
    return ds.dataset([path], filesystem=filesystem, format=storage.CHECKED)


def read(uri: str, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All rows; UserError where there is no such table."""
    place = beside(uri)
    if place is None:
        raise UserError(
            f"{uri}: no {READINGS}; a sweep whose config names instruments or readings (docs/instruments.md) has one"
        )
    refuse_changed(place)
    return storage.read_parquet(place, columns).to_pandas()


def id_complexity(uri: str) -> dict[str, float]:
    """Bits per pixel of each backbone's ID images, by ``backbone_key``; empty where nobody measured it."""
    if beside(uri) is None:
        return {}
    rows = read(uri, columns=["backbone_key", "is_id", "reading", "value"])
    rows = rows[(rows["reading"] == "image_complexity") & rows["is_id"].fillna(False).astype(bool)]
    return dict(zip(rows["backbone_key"], rows["value"], strict=True))


def by_layer(uri: str) -> pd.DataFrame | None:
    """A column per number of one layer, means over draws; None where nothing was measured.

    Returns
    -------
    ``curve_key``, ``backbone_key``, ``layer`` and the numbers; few-shot readings have a column for each number of
    images, ``few_shot_top1_5``.
    """
    if beside(uri) is None:
        return None
    rows = read(uri, columns=[*_KEYS, "other_layer", "reading", "shots", "value"])
    rows = rows[rows["layer"].notna() & rows["other_layer"].isna()]
    if not len(rows):
        return None
    shots = rows["shots"].astype("Int64").astype(str)
    named = rows["reading"].where(rows["shots"].isna(), rows["reading"] + "_" + shots)
    keys = rows[list(_KEYS)].assign(reading=named, value=rows["value"])
    wide = keys.groupby([*_KEYS, "reading"], dropna=False, sort=False)["value"].mean().unstack("reading")
    return wide.reset_index().astype({"layer": int})
