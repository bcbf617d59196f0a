"""Plans and the ends of runs say how probes are fitted."""

import pytest

from sweep.study import probes_said, render_plan
from tests.sweep.study.test_grid import grid_of, make


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ({}, "converged, penalty chosen on held-out images, standardised"),
        ({"solver": "adamw"}, "adamw, 30 epochs, lr 0.001, not standardised"),
        ({"solver": "adamw", "epochs": "auto"}, "adamw, at most 300 epochs, lr 0.001, not standardised"),
        ({"check": 0.05, "weight_decay": 0.1}, "converged, standardised, 5% of layers checked"),
    ],
)
def test_the_solver_is_said_in_the_plan(probe, said):
    config = make(probe=probe)
    grid = grid_of(config)
    assert probes_said(curve for cell in grid.cells for curve in cell.curves) == said
    assert f"probes: {said}\n" in render_plan(config, grid, done=None, why_unknown="no data", out="x")
