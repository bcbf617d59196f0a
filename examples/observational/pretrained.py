#!/usr/bin/env python
"""An observational study, drawn from a stated truth: 200 pretrained models of 30 families on 9 datasets.

    python examples/observational/pretrained.py table.csv
    python analysis/shap_report.py --table table.csv --mapping examples/observational/mapping.yaml --out observational

The truth, in points of accuracy retained:

- more training images help: +4 for each tenfold;
- later years trained on more images, and help by themselves: +1.5 a year. The year confounds the images;
- more images made people build larger models, and each tenfold of parameters costs 3 points. Parameters mediate: the
  images' total effect is smaller than their direct one;
- self-supervised models keep 6 points less than supervised ones, image-text models as much;
- the input resolution does nothing;
- families differ by 3 points (standard deviation), models within them by 3, experiments by 3.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

MODELS, FAMILIES, DATASETS = 200, 30, 9
IMAGES, YEAR, PARAMETERS, SELF_SUPERVISED = 4.0, 1.5, -3.0, -6.0
STEEP = 0.3  # tenfolds of parameters for each tenfold of images


def draw(seed: int = 0) -> pd.DataFrame:
    """One row per model and dataset (MODELS * DATASETS)."""
    rng = np.random.default_rng(seed)
    family_M = rng.integers(0, FAMILIES, MODELS)
    year_M = 2016 + rng.integers(0, 8, MODELS)
    log_images_M = 6 + 0.25 * (year_M - 2016) + rng.normal(0, 0.5, MODELS)
    log_parameters_M = 1.2 + STEEP * (log_images_M - 6) + rng.normal(0, 0.4, MODELS)
    objective_M = rng.choice(["supervised", "self-supervised", "image-text"], MODELS, p=[0.6, 0.25, 0.15])
    mean_M = 72 + IMAGES * (log_images_M - 6) + YEAR * (year_M - 2019) + PARAMETERS * (log_parameters_M - 1.5)
    mean_M = mean_M + SELF_SUPERVISED * (objective_M == "self-supervised")
    mean_M = mean_M + rng.normal(0, 3, FAMILIES)[family_M] + rng.normal(0, 3, MODELS)
    models = pd.DataFrame(
        {
            "model": [f"model-{number:03d}" for number in range(MODELS)],
            "family": [f"family-{number:02d}" for number in family_M],
            "year": year_M,
            "images": np.round(10**log_images_M, -3),
            "parameters": np.round(10**log_parameters_M, 2),
            "objective": objective_M,
            "resolution": rng.choice([224, 256, 384], MODELS),
        }
    )
    model_N, dataset_N = np.repeat(np.arange(MODELS), DATASETS), np.tile(np.arange(DATASETS), MODELS)
    table = models.iloc[model_N].reset_index(drop=True)
    retained_N = mean_M[model_N] - 2.0 * dataset_N + 8 + rng.normal(0, 3, len(model_N))
    return table.assign(dataset=[f"ood-{number}" for number in dataset_N], retained=np.round(retained_N, 2))


if __name__ == "__main__":
    draw().to_csv(sys.argv[1], index=False)
