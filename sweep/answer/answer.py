"""Answer a question: run its sweep, choose each model's layer on held-out images, print table and sentence."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sweep import driver
from sweep.answer.cost import prices
from sweep.answer.finish import finish, reasons
from sweep.answer.halving import halve, seconds
from sweep.answer.names import Model
from sweep.answer.question import Question, checked, refuse_few, refuse_other
from sweep.answer.ranking import Answer, answers
from sweep.answer.words import as_json, text
from sweep.base.errors import InterruptedSweepError, UserError
from sweep.base.store import Store

RESULT = "best_layer.json"


def answer(question: Question, out: str, *, budget: str | None = None) -> int:
    """Print which layer of which model is best; returns the exit code: 1 where a model failed.

    Raises
    ------
    UserError
        If nothing can be compared.
    """
    allowed = seconds(budget) if budget else None
    store = Store(out)
    refuse_other(store, question.name)
    images = question.with_images(question.few_shot)
    refuse_few(checked(question.config(datasets=images), store), question.data)
    try:
        changed: dict[str, Any] = {"datasets": images}
        networks: Mapping[Model, Sequence[str]] = {}
        if allowed is not None:
            kept = halve(question, Store(f"{store.uri.rstrip('/')}/rounds"), allowed)
            question, networks = kept.question, kept.networks
            if kept.layers:
                changed["layers"] = question.said_of_layers() | kept.layers
        sweep = driver.prepare(checked(question.config(**changed), store), out)
        outcome, rows = finish(sweep)
    except (InterruptedSweepError, KeyboardInterrupt):
        print("interrupted: what is finished is kept; run the same command again to go on", file=sys.stderr)
        return 130
    rows = [row for row in rows if row["dataset"] == question.data]
    found = answers(rows, networks)
    for line in reasons(outcome) + _problems(rows, found):
        print(line, file=sys.stderr)
    if not found:
        raise UserError("no model could be probed: the reasons stand above")
    paid = prices(found, sweep)
    print(text(found, paid, rows[0], narrowed=bool(networks)))
    print(f"table:  {outcome.table}")
    place = shlex.quote(out)
    print(
        f"report: python analysis/shap_report.py --results {place}; python analysis/browse.py --results {place} --open"
    )
    name, made = (shlex.quote(f"{found[0].model.name}{more}") for more in ("", "-probe"))
    print(f"export: python -m sweep.export_probe --results {place} --model {name} --to {made}")
    store.put(RESULT, json.dumps(as_json(found, paid), indent=1).encode())
    return 1 if outcome.failures or outcome.missing or len(found) < len(question.models) else 0


def _problems(rows: Sequence[Mapping[str, Any]], found: Sequence[Answer]) -> list[str]:
    """Models that were probed without a number on any layer."""
    known = {each.curve_key for each in found}
    lines = {r["curve_key"]: f"failed: {r['architecture']}.{r['pretraining']}: {r['problem']}" for r in rows}
    return [line for key, line in lines.items() if key not in known]
