"""Everything that a report leaves on storage: numbers, tables, figures, the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.estimates import pairs
from analysis.page import text_tables
from analysis.page.figures import style
from analysis.page.figures.drawing import draw
from analysis.page.page import render
from analysis.progress import Progress
from analysis.study import Analysis, Options, analyse
from analysis.tables import storage
from analysis.tables.experiments import Experiments
from analysis.tables.variables import Kind

FIRST = "figures/layer_curves.png"
PIXELS_PER_INCH = 100


def write_report(experiments: Experiments, kinds: Mapping[str, Kind], options: Options, out: str) -> str:
    """Analyse and write everything below ``out``; returns what to print."""
    progress = Progress()
    analysis = analyse(experiments, kinds, options, progress=progress)
    progress.stage("writing tables")
    about = {key: analysis.report[key] for key in ("title", "source", "accuracy", "protocol")}
    for name, table in _tables(analysis).items():
        rows = pa.Table.from_pandas(table, preserve_index=False)
        storage.write_tables(storage.join(out, f"{name}.parquet"), [rows], about)
    storage.write_tables(storage.join(out, "shap_values.parquet"), _shap_tables(analysis), about)
    storage.write(
        storage.join(out, "report.json"), json.dumps(analysis.report, indent=1, ensure_ascii=False, allow_nan=False)
    )
    progress.stage("drawing figures")
    drawn = pictures(analysis)
    for name, data in drawn.items():
        storage.write(storage.join(out, name), data)
    lines = [f"- {found['text']}" for found in analysis.report["findings"][:6]]
    lines.append(f"accuracy: {experiments.accuracy}")
    if FIRST in drawn:
        lines.append(f"look first at {storage.join(out, FIRST)}: accuracy by layer, with the tunnel shaded")
    return "\n".join([*lines, f"report: {storage.join(out, 'index.html')}"])


def _tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    experiments, report = analysis.experiments, analysis.report
    tables = {
        "experiments": _plain(experiments.frame),
        "slopes": _slope_table(report),
        "contrasts": pd.DataFrame(report["contrasts"], columns=list(pairs.COLUMNS)).astype({"from": str, "to": str}),
        "backbones": analysis.backbones,
    }
    if experiments.emergence is not None:
        tables |= {"emergence": experiments.emergence.points, "emergence_layers": experiments.emergence.layers}
    return tables


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(
        columns=[c for c in ("_row", "layer", "top1", "top1_best", "top1_last", "heldout_top1", "rank") if c in frame]
    )


def _shap_tables(analysis: Analysis) -> Iterator[pa.Table]:
    """SHAP value of each experiment and variable, in the model's unit: one part per target."""
    frame = analysis.experiments.frame
    names = sorted({name for fit in analysis.fits.values() for name in fit.task.design.names})
    schema = pa.schema(
        [(name, pa.string()) for name in ("target", "backbone", "dataset")] + [(name, pa.float64()) for name in names]
    )
    yield schema.empty_table()
    for target, fit in analysis.fits.items():
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


def _slope_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """One row per target and variable, in the model's unit."""
    rows = [
        {
            "target": target,
            "variable": variable,
            **{key: value for key, value in slope.items() if key != "level_effects"},
        }
        for target, entry in report["targets"].items()
        for variable, slope in entry["slopes"].items()
    ]
    return pd.DataFrame(rows)


def pictures(analysis: Analysis) -> dict[str, bytes]:
    """Every file by its name below the report's folder: figures, tables (Markdown, LaTeX), ``index.html``."""
    drawn, captions = draw(analysis)
    for made in drawn.values():
        style.sign(made, f"{analysis.report['title']}. Accuracy: {analysis.report['accuracy']}.")
    pngs = {name: style.save(made, "png") for name, made in drawn.items()}
    widths = {name: round(PIXELS_PER_INCH * made.get_figwidth()) for name, made in drawn.items()}
    result = {f"figures/{name}.png": data for name, data in pngs.items()}
    result |= {f"figures/{name}.svg": style.save(made, "svg") for name, made in drawn.items()}
    result |= {f"tables/{name}": text.encode() for name, text in text_tables.files(analysis.report).items()}
    result["index.html"] = render(analysis.report, pngs, captions, widths).encode()
    return result
