"""The findings of ``docs/findings.md``: their intervals against SciPy, their verdicts, and the document's own table."""

import re

import numpy as np
import pandas as pd
import pytest
from bench.findings import __main__ as command
from bench.findings.catalogue import FINDINGS
from bench.findings.claims import Claim, agrees
from bench.findings.layout import Difference, between
from scipy import stats

from sweep.study.check import read_config

CONFIGS = command.DOC.parents[1] / "configs" / "findings"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def layout(rng: np.random.Generator) -> pd.DataFrame:
    """Two depths × three temperatures × four seeds; 5 points lost with depth, 2 a step of temperature."""
    cells = [(d, t, s) for d in (11, 17) for t in (1, 2, 3) for s in range(4)]
    frame = pd.DataFrame(cells, columns=["depth", "temperature", "seed"])
    return frame.assign(y=80 - 5 * (frame["depth"] == 17) - 2 * frame["temperature"] + rng.normal(size=len(frame)))


def test_two_cells_give_scipys_pooled_interval(rng):
    frame = layout(rng).query("temperature == 1")
    ours = between(frame, "y", ("depth",), {"depth": 11}, {"depth": 17})
    theirs = stats.ttest_ind(frame.y[frame.depth == 17], frame.y[frame.depth == 11]).confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert (ours.n, ours.freedom) == (8, 6)


def test_what_else_varies_is_averaged_over_equal_cells_only(rng):
    frame = layout(rng)
    frame = frame[~((frame.depth == 17) & (frame.temperature == 3))]  # no partner for one of the cells
    ours = between(frame, "y", ("depth", "temperature"), {"depth": 11}, {"depth": 17})
    means = frame.groupby(["depth", "temperature"])["y"].mean()
    assert ours.value == pytest.approx(np.mean([means[17, t] - means[11, t] for t in (1, 2)]))
    assert ours.n == 16
    with pytest.raises(ValueError, match="no cells to compare"):
        between(frame, "y", ("depth", "temperature"), {"depth": 11}, {"depth": 34})


def test_intervals_hold_the_truth_as_often_as_they_say(rng):
    held = 0
    for _ in range(400):
        found = between(layout(rng), "y", ("depth", "temperature"), {"depth": 11}, {"depth": 17})
        held += found.low <= -5 <= found.high
    assert stats.binomtest(held, 400, 0.95).pvalue > 1e-3


@pytest.mark.parametrize(
    ("sign", "interval", "verdict"),
    [
        (1, (0.1, 9), "yes"), (1, (-9, -0.1), "no"), (1, (-1, 9), "open"), (-1, (-9, -0.1), "yes"),
        (-1, (0.1, 9), "no"), (1, (9, 9.5), "yes"),
        (0, (-0.9, 0.9), "yes"), (0, (-0.5, 1.5), "open"), (0, (1.1, 2), "no"), (0, (0.2, 0.9), "yes"),
        (1, (np.nan, np.nan), "open"), (0, (np.nan, np.nan), "open"),
    ],
)  # fmt: skip
def test_a_claim_is_open_unless_its_interval_lies_on_one_side(sign, interval, verdict):
    claim = Claim("a claim", "a paper", "retained", sign, margin=1.0)
    assert agrees(claim, Difference(float(np.mean(interval)), *interval, n=6, freedom=4)) == verdict


def test_every_finding_has_its_config_its_section_and_its_rows_in_the_document():
    text = command.DOC.read_text(encoding="utf-8")
    own = {found.name for found in FINDINGS}
    assert {file.stem for file in CONFIGS.glob("*.yaml")} <= own
    for found in FINDINGS:
        assert f"## {found.title}" in text
        assert (command.FIGURES / f"finding-{found.name}.png").exists()
        rows = re.findall(rf"^\| \[{re.escape(found.title)}\].*$", text, re.MULTILINE)
        assert [row.split(" | ")[1] for row in rows] == [claim.text for claim in found.claims]
    for file in CONFIGS.glob("*.yaml"):
        assert read_config(str(file)).name == f"findings-{file.stem}"
