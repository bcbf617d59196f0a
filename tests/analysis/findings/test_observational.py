"""The example of an observational study: what it says of itself is what the page finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import study
from analysis.tables.mapped import read_mapped
from examples.observational import pretrained

ROOT = Path(__file__).resolve().parents[3]


def test_confounders_are_held_equal_and_mediators_are_not(tmp_path: Path) -> None:
    table = pretrained.draw()
    table.to_csv(tmp_path / "table.csv", index=False)
    experiments = read_mapped(str(tmp_path / "table.csv"), str(ROOT / "examples" / "observational" / "mapping.yaml"))
    found = study.analyse(experiments, study.Options(bootstrap=0, jobs=1))
    assert found.outcomes["retained"].quality.cluster == "family"
    effects = {effect.name: effect for effect in found.outcomes["retained"].effects}
    decades = {name: float(np.ptp(np.log10(table[name]))) for name in ("images", "parameters")}
    truth = {
        "images": (pretrained.IMAGES + pretrained.STEEP * pretrained.PARAMETERS) * decades["images"],  # the total
        "parameters": pretrained.PARAMETERS * decades["parameters"],
        "year": pretrained.YEAR * 7,
    }
    for name, points in truth.items():
        own = effects[name].adjusted
        assert own.low is not None
        assert own.high is not None
        assert own.low < points < own.high, name
        assert (effects[name].verdict, own.unit, own.n_units) == ("clear", "family", 30)
    assert "parameters" not in effects["images"].adjusted.adjusted_for
    crude = effects["parameters"].total
    assert crude.value is not None
    assert crude.value > 5  # without confounders larger models seem to keep more
    (ssl,) = (pair for pair, _ in effects["objective"].asserted_pairs if "self-supervised" in (pair.level, pair.against)
              and "supervised" in (pair.level, pair.against))  # fmt: skip
    assert abs(ssl.contrast.value) == pytest.approx(-pretrained.SELF_SUPERVISED, abs=2)
    assert effects["resolution"].verdict == "open"
