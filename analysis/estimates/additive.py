"""OOD datasets differ in difficulty: outcome = backbone + dataset + rest, by least squares.

What is asked of backbones is asked of their part, so that a backbone probed on easy datasets only is not called good.
Legend: N experiments, B backbones, D datasets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from analysis.design.points import Design, Index
from analysis.tables.variables import Array


@dataclass(frozen=True)
class Additive:
    """The two parts of an outcome, in its own unit.

    Attributes
    ----------
    mean_B : each backbone's mean as if it had been probed on the mix of datasets of its component.
    effect_D : what each dataset adds; mean 0 over the experiments of a component.
    sd, df : standard deviation of the rest and its degrees of freedom; NaN and 0 where there is none.
    component_B : which part of the table a backbone is in; parts share no dataset, so they cannot be compared.
    balanced : whether every backbone was probed on the same datasets.
    """

    mean_B: Array
    effect_D: Array
    sd: float
    df: int
    component_B: Index
    balanced: bool


def fit(design: Design) -> Additive:
    """Split a design's outcomes."""
    backbone_N, dataset_N, y_N = design.backbone_N, design.dataset_N, design.outcome_N
    n_backbones, n_datasets = len(design.point_B), int(dataset_N.max(initial=-1)) + 1
    count_BD = np.zeros((n_backbones, n_datasets))
    np.add.at(count_BD, (backbone_N, dataset_N), 1)
    total_B = np.bincount(backbone_N, weights=y_N, minlength=n_backbones)
    total_D = np.bincount(dataset_N, weights=y_N, minlength=n_datasets)
    n_B, n_D = count_BD.sum(1), count_BD.sum(0)
    share_BD = count_BD / n_B[:, None]
    effect_D = np.linalg.pinv(np.diag(n_D) - count_BD.T @ share_BD) @ (total_D - share_BD.T @ total_B)
    n_parts, label = connected_components(sparse.csr_matrix(count_BD > 0).T @ sparse.csr_matrix(count_BD > 0))
    for part in range(n_parts):
        effect_D[label == part] -= np.average(effect_D[label == part], weights=n_D[label == part])
    mean_B = (total_B - count_BD @ effect_D) / n_B
    rest_N = y_N - mean_B[backbone_N] - effect_D[dataset_N]
    df = len(y_N) - n_backbones - n_datasets + n_parts
    return Additive(
        mean_B=mean_B,
        effect_D=effect_D,
        sd=float(np.sqrt((rest_N**2).sum() / df)) if df > 0 else float("nan"),
        df=max(df, 0),
        component_B=label[np.argmax(count_BD > 0, axis=1)].astype(np.int64),
        balanced=bool((count_BD == count_BD[0]).all()),
    )


def by_dataset(design: Design) -> Array:
    """Outcome of each backbone on each dataset, repeats averaged; NaN where there is none (D, B)."""
    n_backbones, n_datasets = len(design.point_B), int(design.dataset_N.max(initial=-1)) + 1
    cell_N = design.dataset_N * n_backbones + design.backbone_N
    size = n_backbones * n_datasets
    count = np.bincount(cell_N, minlength=size).astype(float)
    total = np.bincount(cell_N, weights=design.outcome_N, minlength=size)
    result: Array = (total / np.where(count > 0, count, np.nan)).reshape(n_datasets, n_backbones)
    return result
