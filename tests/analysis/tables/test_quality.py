"""What the report says of the probes themselves: of unconverged ones, and nothing of converged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis.estimates import backbones, images
from analysis.study import Options, analyse
from analysis.tables import quality, sweep
from analysis.tables.metrics import ACCURACY_TEXT, FEW_CHOOSING, OPEN
from tests.synthetic_tables import grid, probe_table, write_sweep


def _converged(share: float, *, known: float = 1.0) -> pa.Table:
    """A table in which a share of the probes that know it has converged."""
    table = probe_table(grid(augmentation=["off", "on"], seed=[0, 1]), n_test=200).to_pandas()
    draws = np.random.default_rng(0).permutation(len(table)) / len(table)
    values = [None if at >= known else bool(at < known * share) for at in draws]
    return pa.Table.from_pandas(table.assign(converged=pd.array(values, dtype="boolean")))


@pytest.mark.parametrize(
    ("share", "known", "warned"), [(1.0, 1.0, False), (0.95, 1.0, False), (0.8, 1.0, True), (0.8, 0.5, True)]
)
def test_the_report_warns_of_unconverged_probes_and_says_nothing_of_converged_ones(
    tmp_path: Path, share: float, known: float, warned: bool
) -> None:
    found = sweep.read_sweep(str(write_sweep(tmp_path, _converged(share, known=known))), accuracy="heldout")
    assert found.quality is not None
    assert found.quality.unconverged == pytest.approx(1 - share, abs=0.02)
    sentences = [f.text for f in analyse(found, Options(bootstrap=0)).findings if f.kind == "quality"]
    assert [("did not converge (limit 10 %)" in text) for text in sentences] == [True] * warned


def test_where_nothing_is_known_of_convergence_nothing_is_said(tmp_path: Path) -> None:
    table = _converged(1.0, known=0.0)
    for number, each in enumerate((table, table.drop_columns(["converged"]))):
        found = sweep.read_sweep(str(write_sweep(tmp_path / str(number), each)), accuracy="heldout")
        assert found.quality is not None
        assert found.quality.unconverged is None
        assert not any(isinstance(w, str) and "converge" in w for w in found.quality.warnings)
    assert quality.MOST_UNCONVERGED == 0.10


def test_every_output_says_how_the_probes_were_fitted(tmp_path: Path) -> None:
    table = probe_table(grid(augmentation=["off", "on"], seed=[0, 1]), n_test=200).to_pandas()
    for number, (columns, text) in enumerate(
        [
            (
                {"probe_solver": "converged", "probe_standardize": "feature"},
                "; probes by converged, embeddings standardised",
            ),
            ({"probe_solver": "adamw", "probe_standardize": "none"}, "; probes by adamw, embeddings as they are"),
            ({}, ""),
        ]
    ):
        uri = str(write_sweep(tmp_path / str(number), pa.Table.from_pandas(table.assign(**columns))))
        found = sweep.read_sweep(uri, accuracy="heldout")
        assert found.accuracy == ACCURACY_TEXT["heldout"] + text  # the report, its tables, figures and JSON print it
        assert not set(columns) & set(found.variables)


@pytest.mark.parametrize(("held", "classed"), [(43, False), (FEW_CHOOSING - 1, False), (FEW_CHOOSING, True)])
def test_a_class_of_strength_needs_images_that_choose(tmp_path: Path, held: int, classed: bool) -> None:
    """Where few images chose the peak the class is open, in the table, in the sentences and in the counts."""
    table = probe_table(grid(augmentation=["off", "on"], seed=[0, 1]), n_test=200).to_pandas().assign(n_heldout=held)
    uri = str(write_sweep(tmp_path, pa.Table.from_pandas(table)))
    study = analyse(sweep.read_sweep(uri, accuracy="heldout"), Options(bootstrap=0))
    assert set(study.backbones["n_choosing"]) == {held}
    assert ((study.backbones["strength"] == OPEN) == (not classed)).all()
    assert study.overview is not None
    assert study.overview.strengths[OPEN] == (0 if classed else 4)
    (first,) = [f.text for f in study.findings if "the tunnel effect is" in f.text]
    assert (f"open in 4 (fewer than {FEW_CHOOSING} images chose the peak layers)" in first) == (not classed)
    if not classed:  # the paper chose on test images, of which there are enough
        paper = backbones.means(sweep.read_sweep(uri, accuracy="paper"))
        assert (paper["strength"] != OPEN).all()
    assert "peak_layer_low" in images.COLUMNS
