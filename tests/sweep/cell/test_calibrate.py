"""Hours from a few seconds: they add up what the grid asks for."""

import re
from dataclasses import replace

import pytest

from sweep import commands, driver, table
from sweep.base.store import Store
from sweep.cell import calibration
from sweep.driver.work import say_together
from sweep.study import ends_after, rates
from sweep.study.check import read_config
from sweep.study.rates import Rates

CONFIG = """
name: t
grid: [{{architecture: vggm11, id_dataset: fractals, width: 0.0625, epochs: {epochs}}}]
probe_datasets: [glyphs]
datasets: {{fractals: {{classes: 4, train_per_class: 100}}, glyphs: {{classes: 3, train_per_class: 8}}}}
recipe: {{warmup_epochs: 1, batch_size: 16}}
"""


def test_longer_training_takes_longer(tmp_path, monkeypatch):
    monkeypatch.setitem(calibration._GUESS, "cpu", 4e9)  # fewer images than a user has timed
    found = []
    for epochs in (10, 1000):
        (tmp_path / "c.yaml").write_text(CONFIG.format(epochs=epochs))
        said = commands.calibrated(read_config(tmp_path / "c.yaml"), str(tmp_path / "out"))
        numbers = re.search(
            r"([\d.e-]+) hours \(ID training ([\d.e-]+), extraction ([\d.e-]+), probes ([\d.e-]+)\)", said
        )
        total, *parts = map(float, numbers.groups())
        assert min(parts) > 0
        assert abs(total - sum(parts)) <= 0.06 * total  # two digits are printed
        found.append(parts[0])
    assert 20 < found[1] / found[0] < 500  # 100, but for what else the machine does
    sweep = driver.prepare(read_config(tmp_path / "c.yaml"), str(tmp_path / "out"))
    (cell,) = sweep.cells
    assert sweep.rates.know(cell.backbone, [planned.curve for planned in cell.curves])


TWO = """
name: t
grid:
  - {architecture: [vggm11, resnet18], id_dataset: fractals, width: 0.0625}
  - {architecture: vggm17, id_dataset: fractals, width: 0.0625, data_parallel: 2}
probe_datasets: [glyphs]
recipe: {batch_size: 16}
resources: {gpus: 0}
"""


def made_up(cells, training):
    """Rates of these cells, as if extraction and probes took no time."""
    curves = [planned.curve for cell in cells for planned in cell.curves]
    return Rates(
        "a processor",
        "cpu",
        {rates.network(cell.backbone): training[cell.backbone.architecture] for cell in cells},
        {rates.probed(curve.backbone): 1e12 for curve in curves},
        {rates.fitted(curve): 0.0 for curve in curves},
        1e30,
    )


def test_the_longest_by_calibrated_time_comes_first(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(TWO)
    config, store = read_config(tmp_path / "c.yaml"), Store(str(tmp_path / "out"))

    def order():
        sweep = driver.prepare(config, store.uri)
        return [cell.backbone.architecture for cell in driver.missing_cells(sweep, ())], sweep

    by_operations, sweep = order()
    assert by_operations == ["vggm17", "vggm11", "resnet18"]
    slowest_is_small = made_up(sweep.cells, {"vggm17": 30.0, "vggm11": 20.0, "resnet18": 10.0})
    table.publish_rates(store, slowest_is_small)
    assert table.kept_rates(store) == slowest_is_small
    calibrated, sweep = order()
    assert calibrated == ["resnet18", "vggm11", "vggm17"]
    table.publish_rates(store, replace(slowest_is_small, kind="cuda"))  # of another device than tasks run on
    assert order()[0] == by_operations
    table.publish_rates(store, made_up(sweep.cells[:1], {"vggm11": 1.0}))  # before others were added to the grid
    assert order()[0] == by_operations
    table.publish_rates(store, made_up(sweep.cells[1:], {"resnet18": 1.0, "vggm17": 2.0}).beside(sweep.rates))
    assert order()[0] == ["resnet18", "vggm17", "vggm11"]
    say_together(sweep, sweep.cells, 2)
    assert "2 places end after" in capsys.readouterr().err
    say_together(sweep, [cell for cell in sweep.cells if cell.backbone.processes == 2], 2)
    assert capsys.readouterr().err == ""
    store.put("calibration/rates.json", b"{")
    assert order()[0] == by_operations
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("jobs", "places", "expected"),
    [
        ([(4, 1), (3, 1), (3, 1)], 2, 6),  # 4 beside 3 + 3
        ([(5, 1)] * 4, 2, 10),
        ([(12, 2)], 2, 6),
        ([(12, 1), (2, 1)], 2, 12),
        ([(12, 2), (2, 1)], 2, 8),  # both places first, then one of them
    ],
)
def test_when_a_sweep_ends(jobs, places, expected):
    assert ends_after(jobs, places) == expected
