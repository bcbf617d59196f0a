"""The findings of ``docs/findings.md``: their intervals against SciPy, their verdicts, and the document's own table."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from bench.findings import __main__ as command
from bench.findings import numbers
from bench.findings.catalogue import FINDINGS
from bench.findings.claims import Claim, Finding, agrees
from bench.findings.layout import Difference, between
from scipy import stats

from sweep.study.check import read_config

CONFIGS = command.DOC.parents[1] / "configs" / "findings"
CONFIG_OF = {"solvers": "resnets"}  # findings without a config of their own


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


def _sections():
    """Sentences of each finding, without figure and names of files."""
    text = command.DOC.read_text(encoding="utf-8")
    for found in FINDINGS:
        body = text.partition(f"## {found.title}\n")[2].partition("\n## ")[0]
        lines = [line for line in body.splitlines() if line and not line.startswith(("!", "`"))]
        yield found, re.sub(r"\[[^\]]*\](?:\([^)]*\))?", "", " ".join(lines))


def _facts(own):
    """Every number of a finding that a sentence may say: of claims, cells, their mean, and what two cells differ by."""
    rows = [*own["claims"], *own.get("pairs", [])]
    found = [row[end] for row in rows for end in ("value", "low", "high") if row[end] is not None]
    for name in own["cells"][0]:
        values = [cell[name] for cell in own["cells"] if isinstance(cell[name], int | float)]
        found += [*values, float(np.mean(values or [0]))]
        found += [b - a for a, b in itertools.combinations(values, 2)]
    return found


@pytest.mark.parametrize(("found", "said"), [pytest.param(*each, id=each[0].name) for each in _sections()])
def test_sentences_say_what_was_measured(found, said):
    """Percentages, decimals and signed numbers: each is one of the finding's own, rounded."""
    facts = np.abs(_facts(numbers.read(command.KEPT)[found.name]))
    config = read_config(str(CONFIGS / f"{CONFIG_OF.get(found.name, found.name)}.yaml")).model_dump_json()
    design = set(re.findall(r"\d+\.\d+", config))  # temperatures, widths
    lists = re.findall(r"((?:\d+(?:,\d{3})*(?:\.\d+)?(?:, | and | to | or | instead of )?)+) %", said)
    told = [number for each in lists for number in re.findall(r"\d+(?:\.\d+)?", each.replace(",", " "))]
    told += re.findall(r"(?<![\d.])[+−]?\d+\.\d+", said) + re.findall(r"[+−]\d+(?![\d.])", said)
    assert told
    for number in told:
        digits = len(number.partition(".")[2])
        close = np.abs(facts - abs(float(number.replace("−", "-")))) <= 0.5000001 * 10.0**-digits
        assert close.any() or number in design, f"{found.name}: {number} is nowhere in findings.json"


def test_the_table_is_that_of_the_numbers():
    text, kept = command.DOC.read_text(encoding="utf-8"), numbers.read(command.KEPT)
    assert list(kept) == [found.name for found in FINDINGS]
    rows = [row for found in FINDINGS for row in command.rows_of(found, kept[found.name])]
    assert [line for line in text.splitlines() if line.startswith("| [")] == rows
    assert [claim["claim"] for own in kept.values() for claim in own["claims"]] == [
        claim.text for found in FINDINGS for claim in found.claims
    ]


def test_numbers_of_a_finding_are_means_of_cells_and_differences_between_them(rng, tmp_path):
    frame = layout(rng)
    claim = Claim("deeper is less", "a paper", "y", -1, {"depth": 11}, {"depth": 17})
    found = Finding("mine", "Mine", lambda store: frame, ("depth", "temperature"), (claim,), outcomes=("y", "none"))
    own = numbers.measured(found, frame)
    means = frame.groupby(["depth", "temperature"])["y"].mean()
    assert [cell["y"] for cell in own["cells"]] == pytest.approx(list(means), abs=1e-4)
    assert len(own["pairs"]) == 15
    first, last = own["pairs"][0]["cells"]
    assert own["pairs"][0]["value"] == pytest.approx(means.iloc[last] - means.iloc[first], abs=1e-3)
    assert agrees(claim, numbers.difference(own["claims"][0])) == "yes"
    numbers.write(tmp_path / "kept.json", {"mine": own})
    assert numbers.read(tmp_path / "kept.json") == {"mine": own}
    assert numbers.read(tmp_path / "none.json") == {}
