"""A file of recipes beside a config: read, checked, and weaker than the config's own rules. What a search draws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.config import Range, Search
from sweep.config.problem import ConfigError
from sweep.study.check import read_config
from sweep.study.grid import block_values, expand, recipe_of
from sweep.study.recipes import propose
from sweep.study.resolve import sizes

CONFIG = """
name: t
recipes: {file}
grid: [{{architecture: [vggm11, vggm17], id_dataset: fractals, augmentation: [off, on]}}]
recipe: {{lr: 1e-2, weight_decay: 5e-2}}
"""
RECIPES = """
# where they come from
- when: {architecture: vggm11}
  recipe: {lr: 1e-3}
- when: {architecture: vggm11, augmentation: on}
  recipe: {lr: 2e-3, epochs: 40}
"""


def write(tmp_path, recipes=RECIPES, more="", file="found/recipes.yaml"):
    (tmp_path / "found").mkdir(exist_ok=True)
    (tmp_path / "found" / "recipes.yaml").write_text(recipes)
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(file=file) + more)
    return config


def recipes(config):
    return {
        (values["architecture"], values["augmentation"]): recipe_of(config, values)
        for values in block_values(config.grid[0])
    }


def test_recipes_are_part_of_the_config(tmp_path):
    config = read_config(write(tmp_path))
    assert [rule.recipe for rule in config.recipes] == [{"lr": 1e-3}, {"lr": 2e-3, "epochs": 40}]
    found = recipes(config)
    assert {key: (r.lr, r.epochs) for key, r in found.items()} == {
        ("vggm11", "off"): (1e-3, 100),
        ("vggm11", "on"): (2e-3, 40),
        ("vggm17", "off"): (1e-2, 100),
        ("vggm17", "on"): (1e-2, 100),
    }


def test_own_rules_and_the_grid_win(tmp_path):
    more = "rules: [{when: {augmentation: on}, recipe: {lr: 5e-3}}]\n"
    config = read_config(write(tmp_path, more=more), ["grid.0.epochs=7"])
    assert [(r.lr, r.epochs) for r in recipes(config).values()] == [(1e-3, 7), (5e-3, 7), (1e-2, 7), (5e-3, 7)]


def test_the_file_may_come_from_the_command_line(tmp_path):
    file = write(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text("- {when: {architecture: vggm17}, recipe: {lr: 3e-3}}\n")
    assert len(read_config(file, [f"recipes={other}"]).recipes) == 1
    other.write_text("- {when: {architecture: vggm17}, recipe: {lr: no}}\n")
    with pytest.raises(ConfigError, match=r"recipes\[0\]\.recipe\.lr = no") as error:
        read_config(file, [f"recipes={other}"])
    assert f"{other}:1" in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("vggm11}", "vgm11}"), ["recipes.yaml:3: recipes[0].when.architecture[0] = vgm11", "valid: vggm11,"]),
        (("{lr: 1e-3}", "{ler: 1e-3}"), ["recipes.yaml:4: recipes[0].recipe.ler", "valid: lr,"]),
        (("epochs: 40", "epochs: 4.5"), ["recipes.yaml:6: recipes[1].recipe.epochs = 4.5"]),
        (("{lr: 1e-3}", "{lr: 1e-3}\n  probe: {lr: 1}"), ["recipes.yaml:5: recipes[0].probe", "valid: recipe, when"]),
        (("epochs: 40", "epochs: 3"), ["must be more than warmup_epochs"]),
        ((RECIPES, "lr: 1e-3"), ["recipes.yaml: a recipes file is a list of"]),
        ((RECIPES, "# nothing"), ["recipes.yaml: this recipes file is empty"]),
        ((RECIPES, "- [when"), ["recipes.yaml: not valid YAML"]),
    ],
)
def test_mistakes_in_the_file_are_named_there(tmp_path, change, expected):
    assert change[0] in RECIPES
    with pytest.raises(ConfigError) as error:
        read_config(write(tmp_path, RECIPES.replace(*change)))
    for part in expected:
        assert part in str(error.value)


def test_an_absent_file_is_named_with_those_that_are_there(tmp_path):
    with pytest.raises(ConfigError, match=r"found/recipe\.yaml: no such recipes file; there are .*recipes\.yaml"):
        read_config(write(tmp_path, file="found/recipe.yaml"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    file = tmp_path_factory.mktemp("grid") / "one.yaml"
    file.write_text("name: one\ngrid: [{architecture: vggm11, id_dataset: fractals}]\n")
    config = read_config(file)
    return expand(config, lambda name: sizes(config, name))


@st.composite
def wholes(draw):
    """A range of whole numbers above 0."""
    low = draw(st.integers(1, 300))
    return Range(low=low, high=low + draw(st.integers(20, 3000)), log=draw(st.booleans()))


@st.composite
def reals(draw):
    """A range of numbers over one to six powers of ten."""
    low = 10 ** draw(st.floats(-7, 0))
    return Range(low=low, high=low * 10 ** draw(st.floats(1, 6)), log=draw(st.booleans()))


def share_below(space, value):
    """Closed form: the share of draws up to a value, evenly over the range or over its logarithm."""
    scale = math.log if space.log else float
    return (scale(value) - scale(space.low)) / (scale(space.high) - scale(space.low))


def distance(values, cdf):
    """Kolmogorov and Smirnov's: the largest difference of the share up to a value, found and expected."""
    found = np.searchsorted(np.sort(values), np.unique(values), side="right") / len(values)
    return np.abs(found - [cdf(value) for value in np.unique(values).tolist()]).max()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(real=reals(), whole=wholes(), choices=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_search_draws_what_the_config_says(grid, real, whole, choices, seed):
    """Within the bounds, both included, evenly on the scale that is asked for; whole numbers and choices likewise."""
    recipe = {"lr": real, "batch_size": whole, "warmup_epochs": tuple(range(choices))}
    search = Search(trials=401, seed=seed, recipe=recipe)
    _, *trials = propose(search, grid)
    drawn = {key: np.array([dict(trial.searched)[key] for trial in trials]) for key in search.recipe}
    assert len(trials) == 400
    assert real.low <= drawn["lr"].min()
    assert drawn["lr"].max() <= real.high
    assert distance(drawn["lr"], lambda value: share_below(real, value)) < 0.04
    assert set(drawn["batch_size"].tolist()) <= set(range(int(whole.low), int(whole.high) + 1))
    each = Range(low=whole.low, high=whole.high + 1, log=whole.log)  # a whole number stands for what follows it
    assert distance(drawn["batch_size"], lambda value: share_below(each, value + 1)) < 0.04
    counts = np.bincount(drawn["warmup_epochs"], minlength=choices)
    assert np.abs(counts / 400 - 1 / choices).max() < 0.04


@settings(max_examples=10, deadline=None, derandomize=True)
@given(low=st.integers(1, 20), more=st.integers(1, 6), log=st.booleans())
def test_a_search_reaches_both_bounds_of_whole_numbers(grid, low, more, log):
    space = Range(low=low, high=low + more, log=log)
    found = propose(Search(trials=20, recipe={"batch_size": space}), grid)
    default, *drawn = (dict(trial.searched)["batch_size"] for trial in found)
    assert {default, *drawn} == {default, *range(low, low + more + 1)}
