"""Sentences from estimates. Each must be true for any table; what is asserted was asked of an estimate's verdict.

A finding says: what, the number, its interval, how sure, and what it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analysis.design.levels import FEWEST_UNITS
from analysis.design.ties import CONFOUNDED, Ties
from analysis.estimates.backbones import Overview
from analysis.estimates.interactions import Interaction
from analysis.estimates.outcome import Outcome
from analysis.estimates.pairs import Contrast
from analysis.findings import effects
from analysis.findings.phrases import Finding, capital, count, labels, listing, p_value, percent
from analysis.tables.metrics import FEW_CHOOSING, OPEN
from analysis.tables.names import plural
from analysis.tables.quality import Quality

NEARLY = 0.9  # of the R² in sample
MOST_NEAR = 4  # pairs of variables that are named as hard to separate


@dataclass(frozen=True)
class Evidence:
    """What the sentences are made of.

    Attributes
    ----------
    primary : the outcome that findings speak of; None if none could be attributed.
    within : per interaction of the primary outcome, its matched pairs by value of the partner.
    cluster : what the finest declared clusters are called; empty without any.
    unequal : (fewest, most) OOD datasets of a backbone, if they were not all probed on the same ones.
    choice_resampled : whether intervals of experiments include the choice of the peak layer.
    lost : asserted variables → what they do not survive (:mod:`analysis.estimates.sensitivity`).
    """

    accuracy: str
    n_experiments: int
    n_datasets: int
    overview: Overview | None
    quality: Quality | None
    choice_resampled: bool
    outcomes: Sequence[Outcome]
    primary: Outcome | None
    ties: Ties | None
    contrasts: Sequence[Contrast]
    within: Sequence[tuple[Interaction, Sequence[tuple[str, int, float]]]]
    cluster: str
    n_clusters: int
    unequal: tuple[int, int] | None
    lost: Sequence[tuple[str, str]] = field(default=())


def collect(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings of a table: warnings first, then the most important."""
    found = [*_quality(evidence.quality), *_tunnel(evidence), *_claimed(evidence)]
    primary = evidence.primary
    if primary is not None:
        found += effects.asserted(primary)
        found += effects.interactions(primary, evidence.within)
        found += effects.contrasts(primary.target, evidence.contrasts, evidence.cluster)
        found += effects.unsettled(primary)
    found += [*_not_attributed(evidence), *_survival(evidence), *_unequal(evidence), *_ties(evidence.ties)]
    if primary is not None:
        found += [*_fit(primary), *_limits(evidence, primary)]
    return tuple(found)


def _quality(quality: Quality | None) -> list[Finding]:
    if quality is None or not quality.warnings:
        return []
    text = f"Read with care: {'; '.join(quality.warnings)}."
    return [Finding("quality", "clear", text, basis="the probes' own records")]


def _tunnel(evidence: Evidence) -> list[Finding]:
    about = evidence.overview
    if about is None:
        return []
    counts = {name: n for name, n in about.strengths.items() if n}
    if about.backbones == 1:
        text = (
            f"The one backbone keeps {about.lowest.retained:.1f} % of its best layer's accuracy on new datasets: its "
            f"tunnel effect is {about.lowest.strength}{_few(counts)}."
        )
    elif set(counts) == {"negligible"}:
        text = (
            f"No backbone shows a tunnel worth the name: all {about.backbones} keep at least 95 % of their best "
            "layer's accuracy on average."
        )
    else:
        classes = listing([f"{name} in {of}" for name, of in counts.items()])
        text = (
            f"Of {about.backbones} backbones the tunnel effect is {classes}{_few(counts)}. On average the last layer "
            f"keeps {about.retained:.1f} % of the best layer's accuracy on new datasets: from "
            f"{about.lowest.retained:.1f} % ({about.lowest.label}) to {about.highest.retained:.1f} % "
            f"({about.highest.label})."
        )
    if about.unsettled and about.backbones > 1:
        n = about.unsettled
        text += f" For {n} of them the interval spans more than one class, so that the class itself is open."
    basis = f"{count(evidence.n_experiments, 'experiment')}; {evidence.accuracy}"
    return [Finding("tunnel", "clear", text, number=f"{about.retained:.1f} %", basis=basis, n_units=about.backbones,
                    unit="backbone")]  # fmt: skip


def _few(counts: Mapping[str, int]) -> str:
    """Why a class is open, where one is."""
    return f" (fewer than {FEW_CHOOSING} images chose the peak layers)" if OPEN in counts else ""


def _claimed(evidence: Evidence) -> list[Finding]:
    about = evidence.overview
    if about is None or about.falls_claimed is None:
        return []
    claimed, seen, n = about.falls_claimed, about.falls, about.experiments
    images, basis = (
        ("images", "a paired bootstrap over test images and over those that chose the peak layer")
        if evidence.choice_resampled
        else ("test images", "a paired bootstrap over test images, the peak layer as held-out images chose it")
    )
    if not seen:
        text = f"In none of the {count(n, 'experiment')} does accuracy fall after its peak layer."
        return [Finding("tunnel", "clear", text, basis=basis)]
    text = (
        f"Accuracy falls after its peak layer in {seen} of {count(n, 'experiment')}; in {claimed} the fall is larger "
        f"than the noise of the {images}."
    )
    sure = "the 95 % interval of the fall excludes zero in those"
    return [Finding("tunnel", "clear", text, number=f"{claimed} of {n}", sure=sure, basis=basis)]


def _not_attributed(evidence: Evidence) -> list[Finding]:
    if evidence.primary is not None:
        return []
    return [
        Finding("effect", "cannot tell", f"{o.target.label} is not attributed to variables: {o.problem}.",
                sure="cannot tell")
        for o in evidence.outcomes
    ]  # fmt: skip


def _survival(evidence: Evidence) -> list[Finding]:
    if not evidence.lost:
        return []
    by: dict[str, list[str]] = {}
    for name, what in evidence.lost:
        by.setdefault(what, []).append(name)
    parts = [f"{labels(names)} does not survive {what}" for what, names in by.items()]
    names = tuple(dict.fromkeys(name for name, _ in evidence.lost))
    text = f"Not every finding holds whatever is left out: {'; '.join(parts)}."
    return [Finding("effect", "likely", text, names, sure="see the table of what survives")]


def _unequal(evidence: Evidence) -> list[Finding]:
    if evidence.unequal is None:
        return []
    fewest, most = evidence.unequal
    text = (
        f"Backbones were not all probed on the same OOD datasets ({fewest} to {most} of {evidence.n_datasets} each): "
        "what a dataset adds is taken out before anything is compared, so that easy datasets are no merit."
    )
    if fewest == most:
        text = text.replace(f"({fewest} to {most} of", f"({fewest} of")
    return [Finding("design", "clear", text, sure="exact in this table", basis="the design alone")]


def _ties(about: Ties | None) -> list[Finding]:
    if about is None:
        return []
    found = []
    parts = [f"{labels(members)} always change together" for members in about.bundles]
    told = {variable for members in about.bundles for variable in members[1:]}
    by: dict[str, tuple[str, ...]] = {}
    for dependence in about.dependences:
        variable, givers = dependence.variable, dependence.determined_by
        inside = any({variable, *givers} <= set(bundle) for bundle in about.bundles)
        if variable not in told and not told & set(givers) and not inside:
            by.setdefault(variable, givers)
    parts += [f"{labels([v])} is determined by {labels(givers)}" for v, givers in by.items()]
    names = tuple(dict.fromkeys([*(n for b in about.bundles for n in b), *by, *(g for x in by.values() for g in x)]))
    if parts:
        text = f"Not separable in this table: {'; '.join(parts)}. What is credited to the one may belong to the other."
        found.append(Finding("design", "clear", text, names, sure="exact in this table",
                             basis="the design alone, whatever the outcomes"))  # fmt: skip
    near = _near(about, by)
    if near:
        parts = [f"{labels([u])} with {labels([v])} ({x:.2f})" for u, v, x in near[:MOST_NEAR]]
        text = f"Hard to separate: {listing(parts)} go together."
        basis = "association over backbones: 0 none, 1 complete"
        names = tuple(dict.fromkeys(name for u, v, _ in near[:MOST_NEAR] for name in (u, v)))
        found.append(Finding("design", "clear", text, names, sure="their shares cannot be separated reliably",
                             basis=basis))  # fmt: skip
    if about.nested:
        parts = [f"{labels([u])} applies for some values of {labels([v])} only" for u, v in about.nested.items()]
        text = f"{capital(listing(parts))}: it is compared where it applies; not to apply is no effect of it."
        found.append(Finding("design", "clear", text, tuple(about.nested), sure="exact in this table",
                             basis="the design alone"))  # fmt: skip
    return found


def _near(about: Ties, given: dict[str, tuple[str, ...]]) -> list[tuple[str, str, float]]:
    n, found = len(about.variables), []
    for u in range(n):
        for v in range(u + 1, n):
            first, second, x = about.variables[u], about.variables[v], float(about.association_VV[u, v])
            known = second in about.together(first) or given.get(first) == (second,) or given.get(second) == (first,)
            if x > CONFOUNDED and not known:
                found.append((first, second, x))
    return sorted(found, key=lambda item: -item[2])


def _fit(outcome: Outcome) -> list[Finding]:
    quality = outcome.quality
    if quality.in_sample is None or quality.ceiling is None:
        return []
    text = (
        f"The variables explain {percent(quality.in_sample)} of the variance of {outcome.target.phrase} in the table "
        f"they were fitted to; no function of them could explain more than {percent(quality.ceiling)}."
    )
    text += f" {_predicts('configurations', quality.out_of_fold)}"
    if quality.n_clusters:
        text += f" {_predicts(plural(quality.cluster), quality.by_cluster)}"
    if quality.shuffled_95 is not None:
        verdict = (
            "the fit explains no more than chance would" if quality.in_sample <= quality.shuffled_95
            else "nearly as much, so the figure in sample alone proves little"
            if quality.shuffled_95 > NEARLY * quality.in_sample
            else "less"
        )  # fmt: skip
        text += (
            f" With outcomes shuffled between backbones one fit in twenty reaches {percent(quality.shuffled_95)} in "
            f"sample: {verdict} (global test of all variables together: p {_equals(quality.global_p)})."
        )
    number = f"{quality.in_sample:.2f} in sample"
    number += "" if quality.out_of_fold is None else f", {quality.out_of_fold:.2f} held out".replace("-", "−")
    basis = f"{count(outcome.n_experiments, 'experiment')}, {count(outcome.n_points, 'configuration')}"
    return [Finding("fit", "clear", text, number=f"R² {number}", basis=basis)]


def _equals(p: float | None) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _predicts(what: str, score: float | None) -> str:
    """How well the fit does where it was not fitted."""
    if score is None:
        return f"How well they predict new {what} cannot be estimated."
    if score <= 0:
        return f"On {what} that were not fitted they predict no better than the mean does."
    return f"On {what} that were not fitted they explain {percent(score)}."


def _limits(evidence: Evidence, outcome: Outcome) -> list[Finding]:
    """What nobody could learn from this table, whatever the method."""
    parts = []
    if evidence.n_datasets == 1:
        parts.append("whether it is so on other datasets, since there is one only")
    if outcome.n_backbones == outcome.n_points:
        parts.append("how much the training seed alone changes, since no configuration was trained twice")
    if evidence.cluster and evidence.n_clusters < FEWEST_UNITS:
        parts.append(
            f"whether it is so for other {plural(evidence.cluster)}, since there are {evidence.n_clusters} only"
        )
    if not parts:
        return []
    return [Finding("design", "clear", f"This table cannot tell {'; nor '.join(parts)}.", sure="cannot tell")]
