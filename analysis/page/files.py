"""Everything that a report leaves on storage: numbers, tables, figures, the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.page import report_json, text_tables
from analysis.page.figures import style
from analysis.page.figures.drawing import draw
from analysis.page.page import Picture, render
from analysis.page.rows import short
from analysis.progress import Progress
from analysis.study import Options, Study, analyse
from analysis.tables import storage
from analysis.tables.experiments import Experiments

FIRST = "figures/layer_curves.png"
PIXELS_PER_INCH = 100
TASKS_ACCURACY = "test top-1 of whole networks, not of probes"
MOST_TOLD = 7  # findings that the terminal shows


def write_report(
    experiments: Experiments, options: Options, out: str, *, others: Mapping[str, Experiments] | None = None
) -> str:
    """Analyse and write everything below ``out``; returns what to print."""
    progress = Progress()
    study = analyse(experiments, options, others=others, progress=progress)
    progress.stage("writing tables")
    write_numbers(study, out)
    progress.stage("drawing figures")
    drawn = pictures(study)
    for name, data in drawn.items():
        storage.write(storage.join(out, name), data)
    return "\n".join(_told(study, out, FIRST in drawn))


def write_numbers(study: Study, out: str) -> None:
    """Write what can be read by programs: the tables and ``report.json``."""
    report = report_json.of(study)
    about = {key: report[key] for key in ("title", "source", "accuracy", "protocol")}
    for name, table in _tables(study, report).items():
        rows = pa.Table.from_pandas(table, preserve_index=False)
        storage.write_tables(storage.join(out, f"{name}.parquet"), [rows], about)
    storage.write_tables(storage.join(out, "shap_values.parquet"), _shap_tables(study), about)
    storage.write(storage.join(out, "report.json"), _json(report))


def _json(report: Mapping[str, Any]) -> str:
    """The report as text; numbers of numpy become plain ones."""
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False, default=lambda number: number.item())


def _told(study: Study, out: str, curves: bool) -> Iterator[str]:
    """What the terminal says: the findings as a result, then where to look."""
    shown = [found for found in study.findings if found.kind != "fit"][:MOST_TOLD]
    for found in shown:
        told = found.kind in ("effect", "contrast", "interaction")
        mark = "!" if found.kind == "quality" else f"[{found.verdict}]" if told else "-"
        yield f"{mark} {found.text}"
    if len(study.findings) > len(shown):
        yield f"  … and {len(study.findings) - len(shown)} more on the page"
    yield f"accuracy: {study.experiments.accuracy}"
    if curves:
        yield f"look first at {storage.join(out, FIRST)}: accuracy by layer, with the tunnel shaded"
    yield f"report: {storage.join(out, 'index.html')}"


def pictures(study: Study) -> dict[str, bytes]:
    """Every file by its name below the report's folder: figures, tables (Markdown, LaTeX), ``index.html``."""
    drawn, captions = draw(study)
    experiments = study.experiments
    for name, made in drawn.items():
        accuracy = TASKS_ACCURACY if name.startswith("tasks_") else experiments.accuracy
        style.sign(made, f"{experiments.title}. Accuracy: {accuracy}.")
    result = {f"figures/{name}.png": style.save(made, "png") for name, made in drawn.items()}
    vectors = {name: style.save(made, "svg") for name, made in drawn.items()}
    result |= {f"figures/{name}.svg": data for name, data in vectors.items()}
    images = {
        name: Picture(vectors[name], round(PIXELS_PER_INCH * made.get_figwidth()), captions.get(name, ""))
        for name, made in drawn.items()
    }
    result |= {f"tables/{name}": text.encode() for name, text in text_tables.files(study).items()}
    result["index.html"] = render(study, images, short(experiments.source)).encode()
    return result


def _tables(study: Study, report: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    experiments = study.experiments
    contrasts = pd.DataFrame(report["contrasts"])
    tables = {
        "experiments": _plain(experiments.frame),
        "slopes": report_json.slope_table(report),
        "effects": report_json.effect_table(study),
        "contrasts": contrasts.astype({"from": str, "to": str, "also": str}) if len(contrasts) else contrasts,
        "backbones": study.backbones,
    }
    if experiments.emergence is not None:
        tables |= {"emergence": experiments.emergence.points, "emergence_layers": experiments.emergence.layers}
    return tables


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(
        columns=[c for c in ("_row", "layer", "top1", "top1_best", "top1_last", "heldout_top1", "rank") if c in frame]
    )


def _shap_tables(study: Study) -> Iterator[pa.Table]:
    """SHAP value of each experiment and variable, in the model's unit: one part per target."""
    frame = study.experiments.frame
    names = sorted({name for fit in study.fits.values() for name in fit.task.design.names})
    schema = pa.schema(
        [(name, pa.string()) for name in ("target", "backbone", "dataset")] + [(name, pa.float64()) for name in names]
    )
    yield schema.empty_table()
    for target, fit in study.fits.items():
        if fit.attribution is None:
            continue
        rows = frame[np.isfinite(frame[target].to_numpy(float))]
        columns = [
            pa.array(np.full(len(rows), target)),
            *(pa.array(rows[c].astype(str)) for c in ("backbone", "dataset")),
        ]
        shap_PV = dict(zip(fit.task.design.names, fit.attribution.shap_PV.T, strict=True))
        columns += [pa.array(shap_PV[name][fit.task.design.point_N]) for name in names]
        yield pa.Table.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )
