"""Sentences from numbers. Each is built from the report's own entries and must be true for any table.

A finding says: what, the number, its interval, how sure, and what it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.design import ties
from analysis.estimates.estimate import FEWEST_DRAWS, certain
from analysis.findings.pairs import differences, matched, reversals
from analysis.findings.phrases import Report, amount, capital, count, finding, leading, listing, span
from analysis.tables.names import TARGETS, label

NEARLY = 0.9  # of the R² in sample
TOP = 3  # variables named in the findings
FEW_POINTS = 24  # distinct settings below which intervals of slopes are too narrow (tests/bench/coverage.py)


def collect(report: Report) -> list[dict[str, str]]:
    """All findings of a report, the most important first."""
    found: list[dict[str, str]] = []
    for part in (_tunnel, _claimed, _drivers, reversals, differences, _unsure, _confounded, _explained, _limits):
        found += part(report)
    return found


def _tunnel(report: Report) -> list[dict[str, str]]:
    about = report["tunnel"]
    if about is None:
        return []
    worst, best, n = about["lowest"], about["highest"], about["backbones"]
    counts = {name: n for name, n in report["strengths"].items() if n}
    if n == 1:
        text = (
            f"The one backbone keeps {worst['retained']:.1f} % of its best layer's accuracy on new datasets: its "
            f"tunnel effect is {worst['strength']}."
        )
    elif set(counts) == {"negligible"}:
        text = (
            f"No backbone shows a tunnel worth the name: all {n} keep at least 95 % of their best layer's "
            "accuracy on average."
        )
    else:
        classes = listing([f"{name} in {of}" for name, of in counts.items()])
        text = (
            f"Of {n} backbones the tunnel effect is {classes}. On average the last layer keeps "
            f"{about['retained']:.1f} % of the best layer's accuracy on new datasets: from {worst['retained']:.1f} % "
            f"({worst['label']}) to {best['retained']:.1f} % ({best['label']})."
        )
    basis = f"{count(report['counts']['experiments'], 'experiment')}; {report['accuracy']}"
    return [finding(text, number=f"{about['retained']:.1f} %", basis=basis)]


def _claimed(report: Report) -> list[dict[str, str]]:
    about = report["tunnel"]
    if about is None or about["falls_claimed"] is None:
        return []
    claimed, seen, n = about["falls_claimed"], about["falls"], about["experiments"]
    if seen == 0:
        return [
            finding(f"In none of the {count(n, 'experiment')} does accuracy fall after its peak layer.", basis=_BITS)
        ]
    text = (
        f"Accuracy falls after its peak layer in {seen} of {count(n, 'experiment')}; in {claimed} the fall is larger "
        "than the noise of the test images."
    )
    return [
        finding(
            text, number=f"{claimed} of {n}", sure="the 95 % interval of the fall excludes zero in those", basis=_BITS
        )
    ]


_BITS = "a paired bootstrap over test images, the peak layer as held-out images chose it"


def _drivers(report: Report) -> list[dict[str, str]]:
    """The settings whose direction is clear, largest first; settings that move together count as one."""
    name = leading(report)
    if name is None:
        return []
    entry = report["targets"][name]
    bundled = {variable for bundle in entry["bundles"] for variable in bundle["variables"]}
    singles = [
        (s, [variable])
        for variable, s in entry["slopes"].items()
        if s["slope"] is not None and variable not in bundled and certain(s)
    ]
    bundles = [(b, b["variables"]) for b in entry["bundles"] if certain(b)]
    strongest = sorted(singles + bundles, key=lambda item: -abs(item[0]["slope"]))
    return [_driver(report, name, slope, members) for slope, members in strongest[:TOP]] + _smaller(
        name, strongest[TOP:]
    )


def _smaller(name: str, rest: Sequence[tuple[Mapping[str, Any], Sequence[str]]]) -> list[dict[str, str]]:
    """Settings whose direction is clear too, in one sentence."""
    if not rest:
        return []
    parts = [
        f"{' with '.join(map(label, members))} {slope['from']} → {slope['to']} {amount(name, slope['slope'])} "
        f"({span(name, slope['low'], slope['high'])}"
        + ("" if slope["p_permutation"] is None else f"; p = {slope['p_permutation']:.2f} when shuffled")
        + ")"
        for slope, members in rest
    ]
    text = f"Smaller slopes whose interval excludes zero too: {listing(parts)}."
    return [finding(text, sure="the surer, the smaller the p", basis="SHAP slopes")]


def _driver(report: Report, name: str, slope: Mapping[str, Any], members: Sequence[str]) -> dict[str, str]:
    about, axis = TARGETS[name], slope.get("axis", members[0])
    others = [variable for variable in members if variable != axis]
    always = "always" if slope.get("always", True) else "nearly always"
    together = (
        f" ({always} together with {listing([label(o) for o in others])}: one effect for all of them)" if others else ""
    )
    verb, gloss = ("rises", about.more) if slope["slope"] > 0 else ("falls", about.less)
    text = (
        f"{capital(label(axis))} {slope['from']} → {slope['to']}{together}: {about.phrase} {verb} by about "
        f"{amount(name, abs(slope['slope']), sign=False)} ({gloss})."
    )
    pairs = matched(report, name, axis)
    text += f" {pairs}" if pairs else ""
    blurred = sorted(set(_inseparable(report, axis)) - set(members))
    if blurred:
        text += f" The grid cannot tell it apart from {listing([label(o) for o in blurred])}."
    over = ", over settings and over settings × datasets" if slope["low_with_datasets"] is not None else ""
    doubts = _doubts(report, slope, report["targets"][name])
    sure = f"{'likely' if doubts else 'clear'}: the 95 % interval excludes zero{over}"
    sure += f", yet {listing(doubts)}" if doubts else ""
    basis = f"SHAP slope over {report['targets'][name]['n_design_points']} distinct settings"
    return finding(
        text,
        number=amount(name, slope["slope"]),
        interval=span(name, slope["low"], slope["high"]),
        sure=sure,
        basis=basis,
    )


def _doubts(report: Report, slope: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    """What speaks against a slope whose intervals exclude zero."""
    p, outside = slope["p_permutation"], entry["r2_out_of_fold"]
    found = []
    if p is not None and p > 0.05 and p * (1 + report["protocol"]["permutations"]) > 1.5:  # more than none reached it
        found.append(f"shuffled outcomes give such a slope with p = {p:.2f}")
    if outside is not None and outside <= 0:
        found.append("the fit predicts nothing on settings that were not fitted")
    return found


def _inseparable(report: Report, variable: str) -> list[str]:
    about = report["confounding"]
    return ties.partners(about).get(variable, []) if about else []


def _confounded(report: Report) -> list[dict[str, str]]:
    about = report["confounding"]
    if not about:
        return []
    found = []
    bound = ties.together(about)
    parts = [f"{listing([label(v) for v in members])} always change together" for members in bound]
    told = {variable for members in bound for variable in members[1:]}  # of what moves together one speaks for all
    twins = [set(members) for members in bound]
    by: dict[str, list[str]] = {}
    for dependence in about["dependences"]:
        variable, givers = dependence["variable"], dependence["determined_by"]
        if variable not in told and not any({variable, *givers} <= twin for twin in twins):
            by.setdefault(variable, givers)
    parts += [f"{label(v)} is determined by {listing([label(g) for g in givers])}" for v, givers in by.items()]
    if parts:
        text = (
            f"Not identifiable in this grid: {'; '.join(parts)}. What is credited to the one may belong to the other."
        )
        found.append(finding(text, sure="exact in this table", basis="the design alone, whatever the outcomes"))
    near = [p for p in about["pairs"] if p["confounded"] and not any({p["first"], p["second"]} <= t for t in twins)]
    if near:
        parts = [f"{label(p['first'])} with {label(p['second'])} ({p['rho']:+.2f})" for p in near[:4]]
        found.append(
            finding(
                f"Strongly correlated settings: {listing(parts)}.",
                sure="their shares cannot be separated reliably",
                basis="correlation over backbones",
            )
        )
    return found


def _unsure(report: Report) -> list[dict[str, str]]:
    name = leading(report)
    if name is None:
        return [
            finding(f"{entry['label']} is not attributed to variables: {entry['problem']}.", sure="cannot be estimated")
            for entry in report["targets"].values()
        ]
    entry = report["targets"][name]
    bundled = {variable for bundle in entry["bundles"] for variable in bundle["variables"]}
    slopes = [s for variable, s in entry["slopes"].items() if s["slope"] is not None and variable not in bundled]
    slopes += [{**b, "label": " with ".join(map(label, b["variables"]))} for b in entry["bundles"]]
    without = [s["label"] for s in slopes if s["low"] is None]
    unsure = [s["label"] for s in slopes if s["low"] is not None and not certain(s)]
    found = []
    if unsure:
        found.append(
            finding(
                f"The direction is open for {listing(unsure)}: the interval of the slope includes zero.",
                sure="cannot tell from this table",
                basis=f"bootstrap over {entry['n_design_points']} distinct settings",
            )
        )
    if without:
        strongest = max((s for s in slopes if s["low"] is None), key=lambda s: abs(s["slope"]))
        found.append(
            finding(
                f"How sure the slopes of {listing(without)} are cannot be estimated from {entry['n_design_points']} "
                f"distinct settings{_why_not(report)}; the largest is {strongest['label']} {strongest['from']} → "
                f"{strongest['to']}.",
                number=amount(name, strongest["slope"]),
                sure="no interval",
            )
        )
    return found


def _why_not(report: Report) -> str:
    resamples = report["protocol"]["bootstrap"]
    if not resamples:
        return " (no resampling was asked for)"
    return "" if resamples >= FEWEST_DRAWS else f" ({resamples} resamples are too few)"


def _explained(report: Report) -> list[dict[str, str]]:
    name = leading(report)
    if name is None or report["targets"][name]["r2_in_sample"] is None:
        return []
    entry = report["targets"][name]
    inside, ceiling, outside = entry["r2_in_sample"], entry["r2_ceiling"], entry["r2_out_of_fold"]
    text = (
        f"The variables explain {inside:.0%} of the variance of {TARGETS[name].phrase} in the table they were fitted "
        f"to; no function of them could explain more than {ceiling:.0%}."
    )
    text += f" {_predicts('settings', outside)}"
    elsewhere = entry["r2_leave_architecture_out"]
    if elsewhere is not None:
        text += f" {_predicts('architectures', elsewhere)}"
    shuffled = entry["r2_shuffled_95"]
    if shuffled is not None:
        verdict = (
            "the fit explains no more than chance would" if inside <= shuffled
            else "nearly as much, so the figure in sample alone proves little" if shuffled > NEARLY * inside
            else "clearly less"
        )  # fmt: skip
        text += (
            f" With outcomes shuffled between backbones one fit in twenty reaches {shuffled:.0%} in sample: {verdict}."
        )
    number = f"{inside:.2f} in sample" + ("" if outside is None else f", {outside:.2f} held out")
    return [
        finding(
            text,
            number=f"R² {number}",
            basis=f"{entry['n_experiments']} experiments, {entry['n_design_points']} distinct settings",
        )
    ]


def _predicts(what: str, score: float | None) -> str:
    """How well the fit does where it was not fitted."""
    if score is None:
        return f"How well they predict new {what} cannot be estimated."
    if score <= 0:
        return f"On {what} that were not fitted they predict no better than the mean does."
    return f"On {what} that were not fitted they explain {score:.0%}."


def _limits(report: Report) -> list[dict[str, str]]:
    """What nobody could learn from this table, whatever the method."""
    name = leading(report)
    if name is None:
        return []
    entry, parts = report["targets"][name], []
    if report["counts"]["datasets"] == 1:
        parts.append("whether it is so on other datasets, since there is one only")
    if entry["r2_leave_architecture_out"] is None:
        parts.append("whether it is so for other architectures, since they do not differ here")
    if entry["n_backbones"] == entry["n_design_points"]:
        parts.append("how much the training seed alone changes, since no setting was trained twice")
    found = [finding(f"This table cannot tell {'; nor '.join(parts)}.", sure="cannot be estimated")] if parts else []
    if entry["n_design_points"] < FEW_POINTS and any(s["low"] is not None for s in entry["slopes"].values()):
        text = (
            f"{entry['n_design_points']} distinct settings are few: slopes come out too small then, and their "
            "intervals are too narrow. The directions they call clear are less affected."
        )
        basis = "synthetic tables of known truth: 95 % intervals held it in 75 to 90 % of tables of 10 to 16 settings"
        found.append(finding(text, sure="read sizes as rough", basis=basis))
    return found
