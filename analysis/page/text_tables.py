"""Slopes, contrasts and backbones as Markdown and LaTeX, for a paper or a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.page import rows as words

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def files(report: Mapping[str, Any]) -> dict[str, str]:
    """``NAME.md`` and ``NAME.tex`` of each table that is not empty. Each states which accuracy it rests on."""
    tables: dict[str, Table] = {"backbones": _backbones(report), "fit": _fit(report)}
    for name, entry in report["targets"].items():
        tables[f"slopes_{name}"] = _slopes(name, entry)
        tables[f"contrasts_{name}"] = _contrasts(report, name)
    made = {}
    for name, (head, rows) in tables.items():
        if rows:
            made[f"{name}.md"] = markdown(head, rows) + f"\nAccuracy: {report['accuracy']}.\n"
            made[f"{name}.tex"] = f"% Accuracy: {report['accuracy']}\n" + latex(head, rows)
    return made


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers stand right."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|"
    return "\n".join([line(head), rule, *map(line, rows)]) + "\n"


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
}  # fmt: skip


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _slopes(name: str, entry: Mapping[str, Any]) -> Table:
    head = ["variable", "scale", "slope", "95 %, settings", "95 %, settings × datasets", "p, shuffled", "rank"]
    rows = [
        [
            s["label"], f"{s['from']} → {s['to']}", words.effect(name, s["slope"]),
            words.interval(name, s["low"], s["high"]),
            words.interval(name, s["low_with_datasets"], s["high_with_datasets"]),
            words.p_value(s["p_permutation"]), str(s["rank"]),
        ]
        for s in [*entry["slopes"].values(), *map(_together, entry["bundles"])]
    ]  # fmt: skip
    return head, rows


def _together(bundle: Mapping[str, Any]) -> dict[str, Any]:
    return {**bundle, "label": "together: " + " + ".join(map(words.label, bundle["variables"])), "rank": "–"}


def _fit(report: Mapping[str, Any]) -> Table:
    """R² in sample, never without what it must be held against."""
    head = ["R²", "in sample", "ceiling", "shuffled, 95 %", "held out: settings", "backbones", "architectures"]
    keys = ("r2_in_sample", "r2_ceiling", "r2_shuffled_95", "r2_out_of_fold", "r2_out_of_fold_by_backbone",
            "r2_leave_architecture_out")  # fmt: skip
    entries = [entry for entry in report["targets"].values() if not entry["problem"]]
    return head, [[entry["label"], *(words.decimal(entry[key]) for key in keys)] for entry in entries]


def _contrasts(report: Mapping[str, Any], name: str) -> Table:
    head = ["contrast", "level", "pairs", "difference", "95 %", "p", "p, Holm", "Cliff's δ"]
    rows = [
        [
            row["label"], row["level"], str(row["n_pairs"]), words.plain(name, row["mean_difference"]),
            words.plain_interval(name, row["low"], row["high"]), words.p_value(row["p"]), words.p_value(row["p_holm"]),
            f"{row['cliffs_delta']:+.3f}",
        ]
        for level in ("backbone", "experiment") for row in words.contrast_rows(report, name, level=level)
    ]  # fmt: skip
    return head, rows


def _backbones(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            row["label"], words.percent(row["retained"]),
            "–" if row["low"] is None else f"{words.percent(row['low'])} … {words.percent(row['high'])}",
            str(row["strength"]),
        ]
        for row in sorted(report["backbones"], key=lambda row: (row["retained"] is None, row["retained"] or 0.0))
    ]  # fmt: skip
    return ["backbone", "% retained", "95 % over OOD datasets", "tunnel"], rows
