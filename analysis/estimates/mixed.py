"""The linear mixed model of statsmodels, as a second opinion on the adjusted estimate: its value, by REML."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from analysis.design.levels import BACKBONE
from analysis.design.points import Design, Index, level_numbers, shown
from analysis.design.ties import columns_of
from analysis.estimates import linear
from analysis.estimates.adjusted import MOST_LEVELS, Adjusted
from analysis.tables.variables import Array, level_text

MOST_BACKBONES = 2000


def value(design: Design, y_B: Array, name: str, found: Adjusted) -> float | None:
    """The headline of a variable with clusters (and configurations in them) as random; None where it cannot be had.

    Fixed are the variable and what the adjusted model holds equal. Optimisers may fail on tables as small as these;
    then there is no second opinion.
    """
    random = [level for level in design.levels if level.name != BACKBONE]
    if not random or len(design.point_B) > MOST_BACKBONES:
        return None
    v = design.names.index(name)
    variable, code_B = design.variables[v], shown(design, v)
    used = np.flatnonzero(np.isfinite(code_B) & np.isfinite(y_B))
    number_R = level_numbers(variable, code_B[used])
    texts = [level_text(variable.levels[k]) for k in np.unique(number_R)]
    if len(texts) > MOST_LEVELS or not found.levels:
        own, direction = code_B[used][:, None], np.ones(1)
    else:
        own = (number_R[:, None] == np.unique(number_R)[1:]).astype(float)
        direction = np.zeros(len(texts))
        direction[texts.index(found.high)] += 1
        direction[texts.index(found.low)] -= 1
        direction = direction[1:]
    matrix = np.column_stack([own, np.ones(len(used))])
    if not linear.independent(np.ones((len(used), 1)), own).all():
        return None
    for other in found.adjusted_for:
        o = design.names.index(other)
        columns = columns_of(design.variables[o], shown(design, o)[used])
        matrix = np.column_stack([matrix, columns[:, linear.independent(matrix, columns)]])
    inner = random[-1].unit_B[used] if len(random) > 1 else None
    beta = _fitted(y_B[used], matrix, random[0].unit_B[used], inner)
    return None if beta is None else float(direction @ beta[: own.shape[1]])


def _fitted(y_R: Array, x_RK: Array, group_R: Index, inner_R: Index | None) -> Array | None:
    parts = None
    if inner_R is not None:
        columns = {g: pd.get_dummies(inner_R[group_R == g]).to_numpy(float) for g in np.unique(group_R)}
        parts = {"configuration": columns}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance at its bound of zero is told as a warning, and is no failure
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            made = MixedLM(y_R, x_RK, groups=group_R, exog_vc=parts).fit(reml=True)
        except (np.linalg.LinAlgError, ConvergenceWarning, ValueError):
            return None
    beta = np.asarray(made.fe_params, dtype=float)
    return beta if np.isfinite(beta).all() else None
