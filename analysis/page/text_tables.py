"""Effects, slopes, contrasts and backbones as Markdown and LaTeX, for a paper or a README."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from analysis.estimates.outcome import Outcome
from analysis.findings.phrases import DASH
from analysis.page import rows as words
from analysis.study import Study
from analysis.tables.metrics import OPEN

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def files(study: Study) -> dict[str, str]:
    """``NAME.md`` and ``NAME.tex`` of each table that is not empty. Each states which accuracy it rests on."""
    tables: dict[str, Table] = {"backbones": _backbones(study), "fit": _fit(study)}
    for name, outcome in study.outcomes.items():
        tables[f"effects_{name}"] = _effects(outcome)
        tables[f"slopes_{name}"] = _slopes(outcome)
        tables[f"contrasts_{name}"] = _contrasts(study, name)
    made, accuracy = {}, study.experiments.accuracy
    for name, (head, body) in tables.items():
        if body:
            made[f"{name}.md"] = markdown(head, body) + f"\nAccuracy: {accuracy}.\n"
            made[f"{name}.tex"] = f"% Accuracy: {accuracy}\n" + latex(head, body)
    return made


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers stand right."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(_plain, cells)) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|"
    return "\n".join([line(head), rule, *map(line, rows)]) + "\n"


_MARKS = re.compile(r"([\\`*_\[\]|~$])")
_HTML: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "}


def _plain(text: str) -> str:
    """Text as Markdown shows it: no mark-up, no HTML, on one line; underscores inside a word mean nothing."""
    marked = _MARKS.sub(lambda found: found[0] if _in_word(text, found.start()) else f"\\{found[0]}", text)
    return "".join(_HTML.get(sign, sign) for sign in marked)


def _in_word(text: str, at: int) -> bool:
    return text[at] == "_" and text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()


def latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX ``tabular`` with booktabs rules."""
    body = [" & ".join(map(_escape, row)) + r" \\" for row in rows]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule",
        " & ".join(map(_escape, head)) + r" \\", r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


_ESCAPES: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\to$", "φ": r"$\phi$", "γ": r"$\gamma$",
    "δ": r"$\delta$", "†": r"$\dagger$", "–": "--", "…": "--", "±": r"$\pm$", "²": r"$^2$", "≥": r"$\geq$",
    "−": r"$-$", "×": r"$\times$", "<": r"$<$",
}  # fmt: skip


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _effects(outcome: Outcome) -> Table:
    """The three estimates side by side, with the one verdict."""
    target = outcome.target
    head = ["variable", "from → to", "adjusted", "95 %", "rests on", "matched backbones", "trees", "p, Holm", "verdict"]
    rows = [
        [
            words.name(e), f"{e.low} → {e.high}", words.value(target, e.adjusted), words.interval(target, e.adjusted),
            words.units(e.adjusted) or DASH, words.value(target, e.pairs), words.value(target, e.trees),
            words.p_value(e.p_adjusted), e.verdict,
        ]
        for e in words.by_size(outcome)
    ]  # fmt: skip
    return head, rows


def _slopes(outcome: Outcome) -> Table:
    head = ["variable", "from → to", "SHAP slope", "95 %", "± seed", "rank"]
    target = outcome.target
    rows = [
        [
            s.label, f"{s.low_level} → {s.high_level}", words.slope(target, s), words.slope_span(target, s),
            words.scaled(target, s.seed_sd), str(s.rank),
        ]
        for s in outcome.slopes
    ]  # fmt: skip
    return head, rows


def _fit(study: Study) -> Table:
    """R² in sample, never without what it must be held against."""
    head = ["R²", "in sample", "ceiling", "shuffled, 95 %", "held out: configurations", "backbones", "clusters"]
    own = [outcome for outcome in study.outcomes.values() if not outcome.problem]
    rows = [
        [
            outcome.target.label,
            *(
                words.decimal(value)
                for value in (
                    q.in_sample, q.ceiling, q.shuffled_95, q.out_of_fold, q.by_backbone, q.by_cluster
                )
            ),
        ]
        for outcome in own for q in [outcome.quality]
    ]  # fmt: skip
    return head, rows


def _contrasts(study: Study, name: str) -> Table:
    head = ["contrast", "compared", "difference", "95 %", "p, t", "p, Holm", "p, Wilcoxon", "Cliff's δ"]
    target = study.outcomes[name].target
    rows = [
        [
            words.where(c), words.sizes(c), words.value(target, c.estimate), words.interval(target, c.estimate),
            words.p_value(c.estimate.p), words.p_value(c.estimate.p_adjusted), words.p_value(c.wilcoxon),
            words.minus(f"{c.delta:+.3f}"),
        ]
        for c in words.contrasts(study, name)
    ]  # fmt: skip
    return head, rows


def _backbones(study: Study) -> Table:
    table = study.backbones
    if not len(table):
        return [], []
    rows = [
        [
            str(row["label"]), words.percent(row["retained"]),
            DASH if row["low"] != row["low"] else f"{words.percent(row['low'])} … {words.percent(row['high'])}",
            str(row["strength"]) + ("" if row["settled"] or row["strength"] == OPEN else " (open)"),
        ]
        for row in table[table["retained"].notna()].sort_values("retained", kind="stable").to_dict("records")
    ]  # fmt: skip
    return ["backbone", "% retained", "95 % over OOD datasets", "tunnel"], rows
