"""Hours from a few seconds: they add up what the grid asks for."""

import re

from sweep import commands
from sweep.cell import calibration
from sweep.study.check import read_config

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
        said = commands.calibrated(read_config(tmp_path / "c.yaml"))
        numbers = re.search(
            r"([\d.e-]+) hours \(ID training ([\d.e-]+), extraction ([\d.e-]+), probes ([\d.e-]+)\)", said
        )
        total, *parts = map(float, numbers.groups())
        assert min(parts) > 0
        assert abs(total - sum(parts)) <= 0.06 * total  # two digits are printed
        found.append(parts[0])
    assert 20 < found[1] / found[0] < 500  # 100, but for what else the machine does
