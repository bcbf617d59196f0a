"""Every mistake in a config: named at once, with file, key path, value and the valid choices."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.config.problem import ConfigError, closest
from sweep.config.schema import Config
from sweep.study.check import read_config

ROOT = Path(__file__).resolve().parents[3]
GOOD = """
name: t
grid:
  - architecture: vggm11
    id_dataset: fractals
    augmentation: [off, on]
probe_datasets: [glyphs]
"""


def write(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return file


def test_yaml_1_2_words_and_numbers(tmp_path):
    config = read_config(write(tmp_path, GOOD + "recipe: {lr: 1e-3, epochs: 7}\n"))
    assert config.grid[0].augmentation == ("off", "on")
    assert config.recipe.lr == 0.001
    assert config.recipe.epochs == 7
    with pytest.raises(Exception, match="frozen"):
        config.name = "other"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("name: t", "name: t\nprobee: {}"), ["c.yaml:3", "probee", "unknown key", "valid: probe,"]),
        (("vggm11", "vgm11"), ["grid[0].architecture[0] = vgm11", "valid: vggm11,"]),
        (("fractals", "fractal"), ["grid[0].id_dataset[0] = fractal", "no such dataset", "valid: fractals,"]),
        (("[glyphs]", "[glyfs]"), ["probe_datasets[0] = glyfs", "valid: glyphs,"]),
        (("[off, on]", "[off, om]"), ["grid[0].augmentation[1] = om", "no such augmentation", "valid: on,"]),
        (("name: t", "name: t\nadjust: {dept: [stem]}"), ["adjust.dept = dept", "no such variable", "valid: depth,"]),
        (("name: t", "name: t\nadjust: {depth: [stem, depth]}"), ["adjust.depth[1] = depth", "no such other"]),
        (("[off, on]", "off\n    resolution: 8"), ["resolution[0] = 8", "at least"]),
        (("vggm11", "vit_tiny_patch8\n    resolution: 36"), ["resolution[0] = 36", "multiple", "valid: 32, 40"]),
        (("vggm11", "vit_tiny_patch8\n    width: 0.3"), ["width[0] = 0.3", "vit_tiny_patch8"]),
        (("[off, on]", "off\n    id_classes: [10, 1000000]"), ["id_classes[1] = 1000000", "has 100 classes"]),
        (("[off, on]", "off\n    images_per_class: 100000"), ["images_per_class[0] = 100000", "per class"]),
        (("[off, on]", "off\n    id_classes: ten"), ["id_classes[0] = ten", "valid integer", "'all'"]),
        (("[off, on]", "off\n    lr: -1"), ["grid[0].lr[0] = -1", "greater than 0"]),
        (("[off, on]", "off\n    seed: [0, 1.5]"), ["grid[0].seed[1] = 1.5", "valid integer"]),
        (("[off, on]", "off\n    seed: 3000000000"), ["grid[0].seed[0] = 3000000000", "2147483647"]),
        (("[off, on]", "off\n    pretraining: dino"), ["pretraining[0] = dino", "vggm11", "valid: "]),
        (
            ("vggm11", "resnet50\n    pretraining: tv2_in1k"),
            ["grid[0].augmentation", "no meaning", "block of their own"],
        ),
        (("name: t", "name: t\nrecipe: {epochs: 3}"), ["recipe.epochs = 3", "more than warmup_epochs"]),
        (
            ("name: t", "name: t\nrecipe: {train_on: all}"),
            ["recipe.train_on = all", "trained on", "checkpoint_on: last"],
        ),
        (("[off, on]", "off\n    train_on: [fit, all]"), ["grid[0].train_on = all", "images that it was trained on"]),
        (("name: t", "name: t\nresources: {gpus: 0}\nrecipe: {precision: tf32}"), ["recipe.precision = tf32", "GPUs"]),
        (("name: t", "name: t\nrecipe: {precision: float16}"), ["recipe.precision = float16", "bfloat16"]),
        (("name: t", "name: t\nautocast: float16\nextraction: {precision: tf32}"), ["autocast = float16", "tf32"]),
        (("name: t", "name: t\nroles: {sed: replicate}"), ["roles.sed", "valid: seed"]),
        (("name: t", "name: t\nroles: {seed: boss}"), ["roles.seed = boss", "treatment"]),
        (("name: t", "name: t\nlayers: {vggm11: '('}"), ["layers.vggm11 = (", "regular expression"]),
        (("name: t", "name: t\nrules: [{when: {archi: x}, recipe: {lr: 1}}]"), ["rules[0].when.archi", "architecture"]),
        (("name: t", "name: t\nrules: [{when: {seed: 0}, recipe: {ler: 1}}]"), ["rules[0].recipe.ler", "valid: lr,"]),
        (("name: t", "name: t\nrules: [{when: {seed: 0}, probe: {lr: no}}]"), ["rules[0].probe.lr = no"]),
        (("name: t", "name: t\nprobe: {solver: lbfgs, lr: [0.1, 1.0]}"), ["probe.lr", "list weight_decay"]),
        (("name: t", "name: t\nprobe: {epochs: 15}"), ["probe.epochs = 15", "no such key", "solver: adamw"]),
        (("name: t", "name: t\nrules: [{when: {seed: 0}, probe: {lr: 0.1}}]"), ["rules[0].probe.lr = 0.1", "adamw"]),
        (("name: t", "name: t\nprobe: {solver: ridge, seeds: 2}"), ["probe.seeds = 2", "nothing at random"]),
        (("name: t", "name: t\nprobe: {weight_decay: [0, -1]}"), ["probe.weight_decay[1] = -1"]),
        (("name: t", "name: t\ndatasets: {mine: {}}"), ["datasets.mine", "needs a path"]),
        (("name: t", "name: t\ndatasets: {mine: {generator: x}}"), ["no such generator", "glyphs"]),
        (("name: t\n", ""), ["c.yaml:2", "name", "required"]),
        (("name: t", "name: t\nname: u"), ["stands twice"]),
        (("grid:", "grid: ["), ["not valid YAML"]),
        (("name: t", "name: [t"), ["not valid YAML"]),
    ],
)
def test_mistakes_are_named(tmp_path, change, expected):
    text = GOOD.replace(*change)
    assert text != GOOD
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_config(file)
    for part in ["c.yaml", *expected]:
        assert part in str(error.value)


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "aliases"),
        ("name: t\ndatasets: {\"bugs\\ud83d\": {path: x}}\n", "surrogates not allowed"),
        ("name: &me [*me]\n", "aliases"),
        (GOOD + "# " + "x" * 200_000, "more than 200,000 characters"),
        ("base: &base {epochs: 7}\nrecipe: {<<: *base, lr: 1}\n", r"merge keys \(<<\) are none of YAML 1.2"),
        (GOOD + "7: x\n", "the key 7 is not a word"),
    ],
)  # fmt: skip
def test_what_would_take_for_ever_or_means_nothing_is_answered_at_once(tmp_path, text, expected):
    with pytest.raises(ConfigError, match=expected):
        read_config(write(tmp_path, text))


def test_aliases_of_an_override_are_counted_too(tmp_path):
    bomb = "grid={" + BOMB.replace("\n", ", ").rstrip(", ") + "}"
    with pytest.raises(ConfigError, match=r"--set grid=.*aliases \(\*\) stand for more"):
        read_config(write(tmp_path, GOOD), [bomb])


def test_several_mistakes_come_together(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_config(write(tmp_path, GOOD.replace("vggm11", "vgm11").replace("glyphs", "glyfs")))
    assert len(error.value.problems) == 2


def test_missing_files_fail_a_run_but_not_a_plan(tmp_path):
    mine = "datasets: {mine: {path: nowhere.tar, classes: 3, train: 30, test: 30}}\n"
    file = write(tmp_path, GOOD.replace("[glyphs]", "[glyphs, mine, cub200]") + mine)
    read_config(file)
    with pytest.raises(ConfigError) as error:
        read_config(file, need_data=True)
    assert "datasets.mine.path = " in str(error.value)
    assert str(tmp_path / "nowhere.tar") in str(error.value)
    assert "set datasets.cub200.path" in str(error.value)


def test_overrides(tmp_path):
    file = write(tmp_path, GOOD)
    config = read_config(file, ["recipe.lr=1e-4", "grid.0.seed=[1, 2]", "grid.0.augmentation=off", "name=other"])
    assert config.recipe.lr == 1e-4
    assert config.grid[0].seed == (1, 2)
    assert config.grid[0].augmentation == ("off",)
    assert config.name == "other"
    for override, expected in [
        ("recipe.ler=1", ["--set recipe.ler=1", "unknown key", "valid: lr,"]),
        ("recipe.lr=big", ["--set recipe.lr=big: recipe.lr = big"]),
        ("grid.7.seed=1", ["list of 1 items"]),
        ("name.x=1", ["single value"]),
        ("nonsense", ["expected key.path=value"]),
        ("name=" + "[" * 3000, ["not valid YAML"]),
        ("grid.0.width=1e300", ["width", "less than or equal to 1000"]),
    ]:
        with pytest.raises(ConfigError) as error:
            read_config(file, [override])
        for part in expected:
            assert part in str(error.value)


def test_unreadable_files(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"no such config file; there are .*c\.yaml"):
        read_config(tmp_path / "d.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"cannot be read|not valid YAML"):
        read_config(tmp_path / "b.yaml")
    with pytest.raises(ConfigError, match="mapping"):
        read_config(write(tmp_path, "- 1\n"))


def test_a_mistake_costs_little_more_than_a_second(tmp_path):
    file = write(tmp_path, GOOD.replace("fractals", "fractal"))
    command = [sys.executable, str(ROOT / "sweep" / "run.py"), "--config", str(file)]
    subprocess.run(command, capture_output=True, check=False)  # compiles bytecode, fills the page cache
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time: what else the machine does is not its fault
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "valid: fractals" in done.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda f: f.name)
def test_shipped_configs_are_valid_and_introduced(file):
    assert isinstance(read_config(file), Config)
    assert file.read_text().startswith("# ")


def test_closest_match_comes_first():
    assert closest("resnet81", ["vggm11", "resnet18", "resnet34"])[0] == "resnet18"
