"""Hours from a few seconds: they add up what the grid asks for."""

import json
import re
from dataclasses import replace

import pytest
import torch

from sweep import commands, driver, table
from sweep.base.store import Store
from sweep.cell import calibration
from sweep.driver.cluster import resolve
from sweep.driver.work import packed_of, say_packed, say_together
from sweep.study import ends_after, packing, rates
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
        config = read_config(tmp_path / "c.yaml")
        (backbone,) = [cell.backbone for cell in driver.prepare(config, str(tmp_path / "out")).cells]
        drill = calibration._drill(config, backbone, torch.device("cpu"))
        assert drill.of_steps == epochs * 23  # 360 images in batches of 16, however few the drill takes
    assert 20 < found[1] / found[0] < 500  # 100, but for what else the machine does
    store = Store(str(tmp_path / "out"))
    table.publish_rates(store, replace(table.kept_rates(store), device="H100"))
    assert commands.calibrated(config, str(tmp_path / "out")).endswith("in place of what was measured on one H100")
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

SHARED = """
name: t
grid: [{architecture: vggm11, id_dataset: fractals, width: 0.0625, seed: [0, 1, 2, 3, 4, 5, 6, 7]}]
probe_datasets: [glyphs]
recipe: {batch_size: 16}
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
    for damaged in (b"{", b"5", json.dumps(slowest_is_small.said() | {"training": 3}).encode()):
        store.put("calibration/rates.json", damaged)
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


@pytest.mark.parametrize(
    ("rates_of", "most", "expected"),
    [
        ({"a": {1: 10, 2: 20, 4: 40}}, 4, 4),  # each at its full speed, however many
        ({"a": {1: 10, 2: 20, 4: 40}}, 3, 2),  # but four have no room
        ({"a": {1: 10, 2: 10, 4: 10}}, 4, 1),  # one fills the card
        ({"a": {1: 10, 2: 20, 4: 20.9}}, 4, 2),  # four save less than a twentieth
        ({"a": {1: 10, 2: 20, 4: 22}}, 4, 4),
        ({"a": {1: 10, 2: 20, 4: 40}, "b": {1: 10, 2: 5}}, 4, 1),  # 100/2 + 100 × 2 seconds; four of b were not tried
        ({"a": {1: 10, 2: 20, 4: 40}, "c": {1: 10, 2: 8, 4: 1}}, 4, 4),  # 25 + 10 seconds against 50 + 1.25, 100 + 1
        ({"a": {1: 10, 2: 20, 4: 40}, "c": {1: 10, 2: 8, 4: 0.3}}, 4, 2),  # 25 + 33
    ],
)
def test_so_many_share_a_gpu_as_end_soonest(rates_of, most, expected):
    seconds = {"a": 100.0, "b": 100.0, "c": 1.0}
    assert packing.ends_soonest(seconds, rates_of, most) == expected


@pytest.mark.parametrize(("card", "largest", "expected"), [(80e9, 7e9, 7), (16e9, 4.6e9, 2), (8e9, 20e9, 1)])
def test_what_a_card_has_room_for(card, largest, expected):
    assert packing.fitting(card, largest, 0.7) == expected


def test_auto_is_the_share_of_a_gpu_that_was_calibrated(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(SHARED)
    config, out = read_config(tmp_path / "c.yaml"), str(tmp_path / "out")
    cells = driver.prepare(config, out).cells
    assert "not measured, there is none here" in packing.said(config, cells, made_up(cells, {"vggm11": 30.0}))
    (name,) = {rates.network(cell.backbone) for cell in cells}
    measured = replace(
        made_up(cells, {"vggm11": 30.0}),
        device="NVIDIA H100 80GB HBM3",
        kind="cuda",
        packing={name: {"1": 30.0, "2": 58.0, "4": 80.0}},
        memory={name: 1e9},
        card=80e9,
    )
    assert "resources.gpus: 0.25" in packing.said(config, cells, measured)
    table.publish_rates(Store(out), measured)
    sweep = driver.prepare(config, out)
    assert sweep.rates == measured

    def resolved(count=8, name="H100", **changes):
        asked = config.resources.model_copy(update=changes)
        node = {"Alive": True, "Resources": {"CPU": 16, "GPU": 2, f"accelerator_type:{name}": 1}}
        return resolve(asked, [node], packed_of(sweep, sweep.cells[:count]))

    found = resolved()
    assert (found.gpus, found.cpus, found.max_in_flight) == (0.25, 2, 16)
    assert resolved(count=5).gpus == 0.5  # two GPUs would be busy with four at most
    assert resolved(count=2).gpus == 1
    assert resolved(name="A100-80G").gpus == 1  # not the card that was measured
    assert resolved(name="H100-80G").gpus == 0.25
    assert resolved(gpus=1.0).gpus == 1
    say_packed(config.resources, found)
    assert "4 backbones at a time share each GPU" in capsys.readouterr().err
    say_packed(config.resources, resolved(count=2))
    together = [replace(cell, backbone=replace(cell.backbone, recipe=parallel(cell))) for cell in sweep.cells]
    assert packing.together(config, together, measured) == 1
    assert packing.together(config, sweep.cells, replace(measured, memory={name: 13e9})) == 4
    assert packing.together(config, sweep.cells, replace(measured, memory={name: 14e9})) == 2
    assert packing.together(config, sweep.cells, replace(measured, memory={})) is None  # measured before that was noted
    assert capsys.readouterr().err == ""


def parallel(cell):
    return cell.backbone.recipe.model_copy(update={"data_parallel": 2})
