"""Plug-ins: registered names in configs, keys, plans, workers and tables; the example through a real Ray worker."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from sweep import plugins, register, table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.cell.cell import run_cell
from sweep.config.problem import ConfigError
from sweep.config.recipe import Probe
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from sweep.driver import sweep as driver
from sweep.embed.plugin_statistics import registered_statistics
from sweep.models import facts
from sweep.models.build import layers_of
from sweep.models.layers import probed_layers
from sweep.probes.data import ProbeData
from sweep.probes.fit import fit_probes
from sweep.study.check import read_config
from sweep.study.costs import layer_widths
from sweep.study.resolve import plugin_code
from sweep.train.augment import policy
from tests.sweep.driver.test_end_to_end import run as run_sweep
from tests.sweep.table.test_fragments import FRAGMENT_SCHEMA, row

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
SMALL = ["--set", "grid.0.seed=0", "--set", "grid.0.width=1"]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """What a test registers and imports is forgotten after it."""
    monkeypatch.setattr(register, "_REGISTERED", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).endswith("_plugin.py"):
            del sys.modules[name]


@pytest.fixture
def copy(tmp_path):
    """The example somewhere else: its module is found beside its config."""
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "example" / "plugin.yaml"


def overrides(tmp_path, *more):
    return [f"cache_dir={tmp_path / 'cache'}", "grid.0.seed=0", "grid.0.width=1", *more]


def edit(config, old, new):
    file = config.with_name("example_plugin.py")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# ------------------------------------------------------------------------------------------------- the example


def test_example_runs_on_a_real_worker_and_stands_in_the_table(copy, tmp_path):
    out, more = tmp_path / "out", [*SMALL, "--set", f"cache_dir={tmp_path / 'cache'}"]
    planned = run_sweep(copy, out, *more, "--plan", cwd=tmp_path)
    assert "2 backbones, 4 curves, 16 probes" in planned.stdout
    assert "already done: 0 curves; to do: 4" in planned.stdout
    done = run_sweep(copy, out, *more, cwd=tmp_path, timeout=120)
    assert "4 of 4 curves are in the table (4 computed now" in done.stdout

    probes = pq.read_table(out / "probes.parquet")
    field = probes.schema.field("participation_ratio")
    assert field.metadata[b"description"].startswith(b"Number of directions that carry the variance")
    found = probes.to_pylist()
    assert len(found) == 16
    assert {probe["problem"] for probe in found} == {None}
    assert {probe["architecture"] for probe in found} == {"tiny_mlp"}
    assert {(probe["family"], probe["depth"], probe["spatial_reduction"]) for probe in found} == {("MLP", 5, 1.0)}
    assert [probe["layer_name"] for probe in found[:4]] == [f"hidden.{n}" for n in range(4)]
    assert {probe["augmentation"] for probe in found} == {"off", "flip_and_jitter"}
    assert {(probe["dataset"], probe["classes"], probe["n_train"]) for probe in found} == {
        ("rings", 4, 240),
        ("few_rings", 6, 120),
    }
    assert {probe["probe_solver"] for probe in found} == {"nearest_mean"}
    assert all(1 <= probe["participation_ratio"] <= probe["layer_width"] for probe in found)
    assert min(probe["top1"] for probe in found if probe["is_id"]) > 0.8  # chance is 0.25
    for probe in found:
        bits = np.unpackbits(np.frombuffer(probe["correct"], np.uint8), count=probe["n_test"])
        assert bits.mean() == pytest.approx(probe["top1"]) == probe["top1_epochs"][0]

    edit(copy, "nothing to set", "nothing to set here")
    assert "already done: 0 curves; to do: 4" in run_sweep(copy, out, *more, "--plan").stdout


def test_layers_command_knows_registered_models():
    done = run_sweep(EXAMPLE / "plugin.yaml", "unused", "--layers", "tiny_mlp", "--resolution", "16")
    assert "tiny_mlp at 16 px: 4 probed layers" in done.stdout
    assert "hidden.3" in done.stdout


# ------------------------------------------------------------------------------------------------- imports


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ["imports[0] = broken_plugin", "no module 'broken_plugin'", "PYTHONPATH"]),
        ("import not_there_at_all", ["imports[0]", "No module named 'not_there_at_all'", "broken_plugin.py, line 1"]),
        ("x = 1\n1 / 0\n", ["imports[0]", "ZeroDivisionError: division by zero", "broken_plugin.py, line 2"]),
        ("def f(:", ["imports[0]", "SyntaxError", "broken_plugin.py, line 1"]),
        ("import sys\nsys.exit(3)", ["imports[0]", "SystemExit: 3"]),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "broken_plugin.py").write_text(text)
    file = tmp_path / "c.yaml"
    file.write_text("name: t\nimports: [broken_plugin]\ngrid: [{architecture: vggm11, id_dataset: fractals}]\n")
    with pytest.raises(ConfigError) as error:
        read_config(file)
    for part in [f"{file}:2", "cannot be imported", *expected]:
        assert part in str(error.value)


def test_what_a_broken_module_registered_is_forgotten(tmp_path, monkeypatch):
    start = "from sweep.plugins import register_probe\n@register_probe('mine')\ndef fit(): ...\n"
    (tmp_path / "half_plugin.py").write_text(start + "1 / 0\n")
    with pytest.raises(register.PluginImportError, match="ZeroDivisionError"):
        register.load(["half_plugin"], str(tmp_path))
    assert register.plugin_names("probe") == ()
    (tmp_path / "half_plugin.py").write_text(start + "# repaired\n")
    register.load(["half_plugin"], str(tmp_path))
    register.load(["half_plugin"], str(tmp_path))  # twice is once
    assert register.plugin_names("probe") == ("mine",)


def test_the_examples_old_imports_work_and_warn_at_their_lines(tmp_path):
    old = "import sweep.plugins\nfrom sweep.config import Probe\nfrom sweep.data.options import DatasetOptions\n"
    new = "from sweep.plugins import Samples\nfrom sweep import plugins\n"
    (tmp_path / "old_plugin.py").write_text(old + new)
    file = tmp_path / "c.yaml"
    file.write_text("name: t\nimports: [old_plugin]\ngrid: [{architecture: vggm11, id_dataset: fractals}]\n")
    with pytest.warns(FutureWarning) as caught:
        read_config(file)
    assert [(Path(each.filename).name, each.lineno, str(each.message).split()[0]) for each in caught] == [
        ("old_plugin.py", 2, "sweep.config"),
        ("old_plugin.py", 3, "sweep.data.options"),
    ]
    assert sys.modules["old_plugin"].Probe is plugins.Probe


def test_modules_may_be_in_another_directory(copy, tmp_path):
    (tmp_path / "code").mkdir()
    shutil.move(copy.with_name("example_plugin.py"), tmp_path / "code")
    with pytest.raises(ConfigError, match="no module 'example_plugin'"):
        read_config(copy)
    assert read_config(copy, ["import_path=../code"]).import_path == str(tmp_path / "code")


def test_a_job_gives_workers_a_path_in_their_copy_of_the_working_directory(copy, monkeypatch, tmp_path):
    config = read_config(copy)
    monkeypatch.chdir(tmp_path)
    assert driver._import_path(config) == str(copy.parent)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert driver._import_path(config) == "example"
    monkeypatch.chdir(copy.parent)
    assert driver._import_path(config) == "."


# ------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("grid.0.architecture=tiny_mpl", ["grid[0].architecture[0] = tiny_mpl", "valid: tiny_mlp,"]),
        ("grid.0.id_dataset=ring", ["grid[0].id_dataset[0] = ring", "valid: rings,"]),
        ("grid.0.augmentation=flip", ["no such augmentation", "flip_and_jitter"]),
        ("datasets.few_rings.generator=wrings", ["no such generator", "valid: rings,"]),
        ("statistics.0=participation", ["statistics[0] = participation", "valid: participation_ratio"]),
        ("probe.solver=nearest", ["probe.solver = nearest", "no such probe solver", "valid: nearest_mean, "]),
        ("rules=[{when: {seed: 0}, probe: {solver: mean}}]", ["rules[0].probe.solver = mean", "nearest_mean"]),
        ("grid.0.resolution=4", ["resolution[0] = 4", "tiny_mlp needs at least 8 px"]),
        ("grid.0.id_classes=5", ["id_classes[0] = 5", "rings has 4 classes"]),
    ],
)
def test_wrong_names_are_answered_with_registered_ones_too(copy, override, expected):
    with pytest.raises(ConfigError) as error:
        read_config(copy, [override])
    for part in expected:
        assert part in str(error.value)


def test_names_are_unique():
    def same(*_positional, **_named):
        return None

    for kind, taken in {
        "model": ["vggm11"],
        "dataset": ["fractals"],
        "augmentation": ["strong"],
        "statistic": [],
        "probe": ["adamw"],
    }.items():
        facts = {"classes": 2, "train": 4, "test": 4} if kind == "dataset" else {}
        decorator = getattr(register, f"register_{kind}")
        for name in taken:
            with pytest.raises(UserError, match=f"{kind} '{name}' is built in"):
                decorator(name, **facts)
        decorator("mine", **facts)(same)
        with pytest.raises(UserError, match=f"{kind} 'mine' of .* is registered already"):
            decorator("mine", **facts)(same)
        with pytest.raises(UserError, match="must match"):
            decorator("no name", **facts)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("register_model('resnet50')(lambda **_: None)", "model 'resnet50' is built in"),
        (
            "register_dataset('cifar10', classes=2, train=4, test=4)(lambda part, options: None)",
            "dataset 'cifar10' is built in",
        ),
        ("register_statistic('rank')(lambda emb_ND, labels_N, *, classes: 0.0)", "'rank' is a column of the table"),
    ],
)
def test_names_that_only_upper_rooms_know_are_taken_too(tmp_path, code, expected):
    (tmp_path / "taken_plugin.py").write_text(f"from sweep.plugins import *\n{code}\n")
    statistics = "[rank]" if "statistic" in code else "[]"
    file = tmp_path / "c.yaml"
    file.write_text(
        f"name: t\nimports: [taken_plugin]\nstatistics: {statistics}\n"
        "grid: [{architecture: vggm11, id_dataset: fractals}]\n"
    )
    with pytest.raises(UserError, match=expected):
        driver.prepare(read_config(file), str(tmp_path / "out"))


# ------------------------------------------------------------------------------------------------- keys


def keys_of(config):
    sweep = driver.prepare(config, "unused")
    return {planned.curve: (planned.weights, planned.key) for planned in sweep.planned}


def test_code_enters_the_keys_of_what_uses_it_and_no_others(tmp_path, monkeypatch):
    file = tmp_path / "c.yaml"
    text = "name: t\ngrid: [{architecture: vggm11, id_dataset: fractals, width: 0.0625}]\n"
    file.write_text(text)
    plain = keys_of(read_config(file))
    module = tmp_path / "keyed_plugin.py"
    module.write_text(
        "from sweep.plugins import register_augmentation, register_statistic\n"
        "@register_statistic('one')\ndef one(*_, **__): return 1.0\n"
        "@register_augmentation('none', version='3')\ndef none(resolution): return lambda image: image\n"
    )
    file.write_text(text + "imports: [keyed_plugin]\n")
    config = read_config(file)
    assert plugin_code(config) == {}
    assert keys_of(config) == plain  # importing alone changes nothing
    with_one = config.model_copy(update={"statistics": ("one",)})
    assert set(plugin_code(with_one)) == {"statistic one"}
    ((weights, curve),), ((same, other),) = plain.values(), keys_of(with_one).values()
    assert weights == same
    assert curve != other

    treated = config.model_copy(update={"grid": (config.grid[0].model_copy(update={"augmentation": ("none",)}),)})
    assert plugin_code(treated) == {"augmentation none": "version 3"}
    before = keys_of(treated), keys_of(with_one)
    monkeypatch.setattr(register, "_REGISTERED", {})
    del sys.modules["keyed_plugin"]
    module.write_text(module.read_text() + "# changed, and the import system must see another size\n")
    register.load(config.imports, config.import_path)
    assert keys_of(treated) == before[0]  # it has a version
    assert keys_of(with_one) != before[1]


def test_code_without_a_file_needs_a_version():
    made = eval("lambda *_, **__: 1.0")
    with pytest.raises(UserError, match="give the decorator a version"):
        register.register_statistic("mine")(made)
    register.register_statistic("mine", version="1")(made)
    assert register.find_plugin("statistic", "mine").code == "version 1"


# ------------------------------------------------------------------------------------------------- workers


def task_of(config, out):
    sweep = driver.prepare(config, str(out))
    return driver.task_of(sweep, sweep.cells[0], gpu=False)


def test_a_worker_that_lacks_the_module_or_has_other_code_says_so(copy, tmp_path, monkeypatch):
    task = task_of(read_config(copy, overrides(tmp_path)), tmp_path / "out")
    other_code = replace(task.settings, code=dict(task.settings.code) | {"model tiny_mlp": "source 0"})
    for change, message in [
        ({"imports": ("not_here_plugin",)}, "no module 'not_here_plugin'"),
        ({"settings": other_code}, "model tiny_mlp: example_plugin is another version here"),
    ]:
        result = run_cell(replace(task, **change))
        assert result.done == ()
        assert len(result.failed) == 2
        records = table.read_failures(Store(task.store_uri), result.failed)
        assert {record["stage"] for record in records} == {"import"}
        assert all(message in record["message"] for record in records)
    monkeypatch.setattr(register, "_REGISTERED", {})
    with pytest.raises(UserError, match="is registered by no module of imports"):
        register.check_code(task.settings.code)


# ------------------------------------------------------------------------------------------------- models


class Dense(nn.Module):
    def __init__(self, pixels, classes, width):
        super().__init__()
        self.hidden = nn.Linear(3 * pixels, width)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        return self.head(torch.relu(self.hidden(images.flatten(1))))


def test_facts_come_from_the_network_where_the_plugin_is_silent():
    def small(*, classes, resolution, width):
        convolutions = [nn.Conv2d(3, round(8 * width), 5, stride=2), nn.Conv2d(round(8 * width), 6, 3)]
        return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))

    register.register_model("small", scalable=True)(small)
    register.register_model("tall", depth=99)(small)
    about = facts.architecture("small")
    assert (about.family, about.stem, about.depth, about.spatial_reduction) == ("CNN", 5, 3, 30 / 64)
    assert facts.architecture("tall").depth == 99
    assert [(x.name, x.width) for x in facts.layers("small", width=2, resolution=16)] == [("0", 64), ("1", 24)]
    assert facts.parameters("small", classes=10) == sum(
        p.numel() for p in small(classes=10, resolution=32, width=1).parameters()
    )
    assert facts.forward_flops("small", resolution=16) > 0
    assert facts.width_problem("small", 2) is None
    assert "scalable=False" in facts.width_problem("tall", 2)
    assert [layer.name for layer in layers_of("small", resolution=16)] == ["0", "1"]


def test_dense_layers_are_vectors():
    model = Dense(16, 3, 7)
    (layer,) = probed_layers(model, resolution=4, pattern="hidden")
    assert (layer.kind, layer.width, layer.side) == ("vector", 7, 0)
    assert torch.equal(layer.embed(torch.ones(2, 7), {}), torch.ones(2, 7))
    with pytest.raises(UserError, match="no layer to probe"):
        probed_layers(model, resolution=4)


def test_a_model_that_cannot_be_built_is_a_problem_of_the_config(copy):
    @register.register_model("stubborn")
    def stubborn(*, classes, resolution, width):
        raise ValueError(f"not at {resolution} px")

    @register.register_model("thing", family="CNN", stem=1, depth=1, spatial_reduction=1.0)
    def thing(**_):
        return 7

    for name, message in {"stubborn": "ValueError: not at 32 px", "thing": "gives a int"}.items():
        with pytest.raises(ConfigError, match=message) as error:
            read_config(copy, [f"grid.0.architecture={name}", "grid.0.width=1"])
        assert "grid[0]" in str(error.value)


def test_a_registered_pattern_is_the_backbones_unless_the_config_has_its_own(copy, tmp_path):
    for more, names in [((), 4), (("layers={tiny_mlp: 'hidden[.][02]'}",), 2)]:
        task = task_of(read_config(copy, overrides(tmp_path, *more)), tmp_path)
        assert len(layer_widths(task.cell.backbone)) == names


# ------------------------------------------------------------------------------------------------- data


def dataset(samples, tmp_path, **options):
    register.register_dataset("mine", classes=2, train=4, test=4)(samples)
    return open_dataset("d", DatasetOptions(kind="plugin", generator="mine", **options), cache_dir=tmp_path)


def test_registered_datasets_are_read_and_fingerprinted(tmp_path):
    def samples(part, options):
        del part
        labels = [label for label in range(options.classes) for _ in range(options.train_per_class)]

        def read(index):
            kinds = [np.full((4, 4, 3), index, np.uint8), Image.new("L", (4, 4), index), np.zeros((4, 4)), "no image"]
            return kinds[index % 4]

        return register.Samples(labels, read)

    one = dataset(samples, tmp_path)
    assert one.train.labels.tolist() == [0, 0, 1, 1]
    images = dict(one.train.read_many(range(4)))
    assert images[0].mode == images[1].mode == "RGB"
    assert images[1].getpixel((0, 0)) == (1, 1, 1)
    assert "float64 array (4, 4)" in str(images[2])
    assert "not str" in str(images[3])
    options = DatasetOptions(kind="plugin", generator="mine")
    prints = {open_dataset("e", changed, cache_dir=tmp_path).fingerprint for changed in [options] * 2}
    assert prints == {one.fingerprint}
    for change in ({"seed": 1}, {"size": 9}, {"classes": 3}, {"train_per_class": 3}):
        prints.add(open_dataset("e", replace(options, **change), cache_dir=tmp_path).fingerprint)
    assert len(prints) == 5
    with pytest.raises(UserError, match=r"'other' is not registered \(there is mine\)"):
        open_dataset("e", replace(options, generator="other"), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (register.Samples([0, 0], None), {}, "labels must be 0 to 1"),
        (register.Samples([0, 1, 2], None), {}, "labels must be 0 to 1"),
        ([0, 1], {}, "gives a list, not sweep.plugins.Samples"),
        (register.Samples([0, 1], None), {"path": "/x"}, "needs a fingerprint"),
    ],
)
def test_wrong_samples_are_named(tmp_path, samples, options, message):
    with pytest.raises(UserError, match=message):
        dataset(lambda part, options: samples, tmp_path, **options)


def test_a_registered_policy_is_a_policy():
    register.register_augmentation("negative", source="evaluation")(lambda resolution: lambda image: 255 - image)
    found = policy("negative")
    assert found.source == "evaluation"
    assert torch.equal(found.build(4)(torch.zeros(3, 4, 4, dtype=torch.uint8)), torch.full((3, 4, 4), 255))
    assert policy("on").source == "training"
    assert register.names("augmentation")[-1] == "negative"


# ------------------------------------------------------------------------------------------------- probes, statistics


def probe_data():
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(60) % 3
    train = [torch.randn(60, d, generator=generator) + labels_N[:, None] for d in (4, 5)]
    broken = torch.full((60, 4), float("nan"))
    return ProbeData(
        train=[train[0], broken, train[1]],
        train_labels_N=labels_N,
        heldout_N=torch.arange(60) < 12,
        test=[train[0][:30], broken[:30], train[1][:30]],
        test_labels_N=labels_N[:30],
        classes=3,
        layer_names=["a", "b", "c"],
    )


@pytest.mark.parametrize("standardize", ["none", "feature"])
def test_a_registered_probe_is_fitted_twice_and_scored(standardize):
    seen = []

    @register.register_probe("means")
    def means(train, labels_N, *, classes, recipe, seed):
        seen.append((len(labels_N), [tuple(x.shape) for x in train], float(train[0].mean()), float(torch.rand(()))))
        centres = [torch.stack([x[labels_N == c].mean(0) for c in range(classes)]) for x in train]
        return [lambda x, c=c: -torch.cdist(x, c) for c in centres]

    data, recipe = probe_data(), Probe(solver="means", standardize=standardize)
    torch.manual_seed(1)
    results = fit_probes(data, recipe, seed=5)
    torch.manual_seed(2)
    assert fit_probes(data, recipe, seed=5) == results
    assert [(n, shapes) for n, shapes, _, _ in seen[:2]] == [(48, [(48, 4), (48, 5)]), (60, [(60, 4), (60, 5)])]
    assert seen[:2] == seen[2:]  # the same draws, whatever the caller's random state
    assert (abs(seen[1][2]) < 1e-6) == (standardize == "feature")
    assert "not finite" in results[1].problem
    first = results[0]
    if standardize == "none":
        x, labels = data.train[0], data.train_labels_N
        centres = torch.stack([x[labels == c].mean(0) for c in range(3)])
        right = torch.cdist(data.test[0], centres).argmin(1) == data.test_labels_N
        assert first.top1 == pytest.approx(float(right.float().mean()))
        assert first.test_loss == pytest.approx(
            float(nn.functional.cross_entropy(-torch.cdist(data.test[0], centres), data.test_labels_N)), rel=1e-5
        )
    assert (first.epoch_chosen, first.top5, first.top1_E) == (1, 1.0, (first.top1,))
    assert first.heldout_top1 > 0.5


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        (lambda train: [], "one function for each of 2 layers"),
        (lambda train: [3, 4], "one function for each of 2 layers"),
        (lambda train: [lambda x: x[:, :2]] * 2, r"gives scores \(12, 2\), not \(12, 3\)"),
    ],
)
def test_a_probe_that_gives_nonsense_is_named(scorers, message):
    register.register_probe("odd")(lambda train, labels_N, **_: scorers(train))
    with pytest.raises(UserError, match=message):
        fit_probes(probe_data(), Probe(solver="odd"), seed=0)


def test_scores_that_are_not_finite_are_a_problem_of_their_layer():
    register.register_probe("inf")(lambda train, labels_N, **_: [lambda x: x[:, :3] / 0] * len(train))
    assert (
        "inf gives scores that are not finite on a" in fit_probes(probe_data(), Probe(solver="inf"), seed=0)[0].problem
    )
    with pytest.raises(UserError, match=r"not registered here .there is converged"):
        fit_probes(probe_data(), Probe(solver="unknown"), seed=0)


def test_statistics_are_per_layer_seeded_and_their_errors_named():
    data = probe_data()
    register.register_statistic("size")(lambda emb_ND, labels_N, *, classes: emb_ND.shape[1] * classes)
    register.register_statistic("none")(lambda emb_ND, labels_N, *, classes: None)
    register.register_statistic("drawn")(lambda emb_ND, labels_N, *, classes: torch.rand(()))
    register.register_statistic("wrong")(lambda emb_ND, labels_N, *, classes: "many")

    def of(*names):
        return registered_statistics(names, data.train, data.train_labels_N, classes=3, seed=1)

    assert of("size", "none") == [
        {"size": 12.0, "none": None},
        {"size": None, "none": None},
        {"size": 15.0, "none": None},
    ]
    assert of() == [{}, {}, {}]
    assert of("drawn") == of("drawn")
    with pytest.raises(UserError, match=r"statistic wrong of .*test_register, probed layer 1: ValueError"):
        of("wrong")


def test_a_statistics_column_travels_with_its_fragment(tmp_path):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k1", [row("k1", mine=2.5)], statistics={"mine": "a number"})
    table.write_fragment(store, "k2", [row("k2")])
    with pytest.raises(ValueError, match="columns that the schema lacks"):
        table.write_fragment(store, "k3", [row("k3", mine=2.5)])
    read = table.read_fragments(store, ["k2", "k1"])
    assert read.schema.names == [*FRAGMENT_SCHEMA.names, "mine"]
    assert read.schema.field("mine").metadata[b"description"] == b"a number"
    assert set(read["mine"].to_pylist()) == {None, 2.5}
    assert table.read_fragments(store, ["k2"]).schema.names == FRAGMENT_SCHEMA.names


def test_the_command_line_names_what_is_wrong(copy, tmp_path):
    edit(copy, "    Probe,\n", "    Prob,\n")
    done = run_sweep(copy, tmp_path / "out", code=2)
    assert "imports[0] = example_plugin: cannot be imported: ImportError" in done.stderr
    assert "example_plugin.py, line" in done.stderr
    assert "Traceback" not in done.stderr
