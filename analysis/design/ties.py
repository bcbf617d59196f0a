"""What the design cannot tell apart: correlated variables, exact dependences, what always moves together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.design.points import Design, combined, distinct
from analysis.tables.variables import Array

CONFOUNDED = 0.8  # |ρ| above which a pair of variables is called confounded


def correlation(design: Design) -> Array:
    """Spearman-like correlation of the variables over backbones: Pearson on codes; NaN where undefined (V, V)."""
    code_BV = design.code_PV[design.point_B]
    frame = pd.DataFrame(code_BV, columns=list(design.names))
    result: Array = frame.corr(min_periods=3).to_numpy()
    return result


def inflation(design: Design) -> Array:
    """Variance inflation factor of each variable over backbones; inf where the others give it exactly (V,)."""
    code_BV = design.code_PV[design.point_B]
    code_BV = code_BV[np.isfinite(code_BV).all(axis=1)]
    factors = np.full(len(design.variables), np.nan)
    if len(code_BV) <= len(design.variables):
        return factors
    for v in range(len(design.variables)):
        others = np.column_stack([np.ones(len(code_BV)), np.delete(code_BV, v, axis=1)])
        centred = code_BV[:, v] - code_BV[:, v].mean()
        rest = code_BV[:, v] - others @ np.linalg.lstsq(others, code_BV[:, v], rcond=None)[0]
        total = float(centred @ centred)
        if total > 0:
            share = float(rest @ rest) / total
            factors[v] = 1 / share if share > 1e-9 else np.inf
    return factors


def dependences(design: Design, *, most: int = 2) -> list[tuple[str, tuple[str, ...]]]:
    """Exact functional dependences: (variable, the fewest others whose values together give it).

    Only sets of up to ``most`` variables are tried, and sets whose values are all different among the design points
    (which would 'give' anything) do not count.
    """
    ranks = [pd.factorize(column, sort=True)[0] for column in design.code_PV.T]
    found = []
    for v, name in enumerate(design.names):
        others = [o for o in range(len(design.names)) if o != v]
        for size in range(1, most + 1):
            sets = [s for s in combinations(others, size) if _gives([ranks[o] for o in s], ranks[v])]
            sets.sort(key=lambda s: sum(len(design.variables[o].levels) for o in s))
            found += [(name, tuple(design.names[o] for o in s)) for s in sets]
            if sets:
                break
    return found


def _gives(givers: Sequence[npt.NDArray[Any]], rank_P: npt.NDArray[Any]) -> bool:
    key_P = combined(givers)
    n_keys = int(key_P.max(initial=-1)) + 1
    return n_keys < len(rank_P) and n_keys == int(combined([key_P, rank_P]).max(initial=-1)) + 1


def describe(made: Design) -> dict[str, Any]:
    """Correlation and variance inflation of the variables over backbones, and exact dependences by name."""
    rho_VV, vif_V = correlation(made), inflation(made)
    names = made.names
    pairs = [
        {
            "first": names[u],
            "second": names[v],
            "rho": float(rho_VV[u, v]),
            "confounded": bool(abs(rho_VV[u, v]) > CONFOUNDED),
        }
        for u in range(len(names)) for v in range(u + 1, len(names)) if np.isfinite(rho_VV[u, v])
    ]  # fmt: skip
    return {
        "variables": list(names),
        "correlation": [[None if not np.isfinite(x) else float(x) for x in row] for row in rho_VV],
        "pairs": sorted(pairs, key=lambda pair: -abs(pair["rho"])),
        "vif": {
            name: None if np.isnan(x) else ("infinite" if np.isinf(x) else float(x))
            for name, x in zip(names, vif_V, strict=True)
        },
        "dependences": [{"variable": name, "determined_by": list(by)} for name, by in dependences(made)],
    }


def partners(about: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each variable the others that it cannot be told from: |ρ| above the limit, or one of them gives the other."""
    found: dict[str, set[str]] = {name: set() for name in about["variables"]}
    for pair in about["pairs"]:
        if pair["confounded"]:
            found[pair["first"]].add(pair["second"])
            found[pair["second"]].add(pair["first"])
    for dependence in about["dependences"]:
        if len(dependence["determined_by"]) == 1:
            found[dependence["variable"]].add(dependence["determined_by"][0])
    return {name: sorted(others) for name, others in found.items() if others}


def together(about: Mapping[str, Any]) -> list[list[str]]:
    """Groups of variables that always change together: each gives every other one of its group."""
    gives = {(d["determined_by"][0], d["variable"]) for d in about["dependences"] if len(d["determined_by"]) == 1}
    left, found = list(about["variables"]), []
    while left:
        first = left.pop(0)
        members = [first, *(name for name in left if (first, name) in gives and (name, first) in gives)]
        left = [name for name in left if name not in members]
        found += [members] if len(members) > 1 else []
    return found


BUNDLED = 0.95


def always(made: Design, members: Sequence[int]) -> bool:
    """Whether each of these variables gives all others of them, and not just nearly so."""
    columns = made.code_PV[:, list(members)]
    together = len(distinct(columns)[0])
    return all(len(distinct(columns[:, [v]])[0]) == together for v in range(len(members)))
