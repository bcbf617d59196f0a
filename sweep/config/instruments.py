"""Names of what may be measured of every layer beside the linear probe; ``docs/instruments.md`` defines each."""

from __future__ import annotations

from typing import Literal, get_args

Instrument = Literal["weight_distance", "spectrum", "collapse", "cka", "ood_detection", "image_complexity"]
Reading = Literal["knn", "nearest_mean", "few_shot", "per_class", "concatenation"]
INSTRUMENTS: tuple[str, ...] = get_args(Instrument)
READINGS: tuple[str, ...] = get_args(Reading)
