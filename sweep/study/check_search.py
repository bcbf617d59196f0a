"""What a recipe search may ask for: which recipe keys, within which bounds, for which backbones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from sweep.config import DESIGN_KEYS, RECIPE_KEYS, SCRATCH, Config, KeyPath, Problem, Range, Recipe, Search

FIXED = {
    "train_on": "a search trains without the held-out part, which judges its trials",
    "checkpoint_on": "a search judges every trial by its best held-out epoch",
    "evaluate_every": "a search reads a score of every epoch",
    "data_parallel": "a trial is one process",
    "precision": "arithmetic is no property of a recipe: set recipe.precision, or vary it in the grid",
}
SEARCHED: tuple[str, ...] = tuple(key for key in RECIPE_KEYS if key not in FIXED)


def check_search(config: Config) -> Iterator[Problem]:
    """Problems of the ``search`` section, if there is one."""
    search = config.search
    if search is None:
        return
    for position, key in enumerate(search.per):
        if key not in DESIGN_KEYS or key == "seed":
            valid = tuple(name for name in DESIGN_KEYS if name != "seed")
            yield Problem(("search", "per", position), key, "recipes cannot differ by that", valid)
    for key in search.recipe:
        yield from _searched(config, search, key)
    yield from _warmup(config, search)
    if not any(SCRATCH in block.pretraining for block in config.grid):
        yield Problem(("search",), None, "every backbone of the grid is downloaded: there is no training to tune")


def _searched(config: Config, search: Search, key: str) -> Iterator[Problem]:
    at: KeyPath = ("search", "recipe", key)
    if key not in SEARCHED:
        yield Problem(at, None, FIXED.get(key, "no such recipe key"), SEARCHED)
        return
    if any(getattr(block, key) is not None for block in config.grid):
        yield Problem(at, None, "the grid varies it: what is a variable of the study cannot be tuned away")
    space = search.recipe[key]
    if isinstance(space, Range):
        if space.low >= space.high:
            yield Problem((*at, "low"), space.low, f"must be less than high, {space.high:g}")
        if space.log and space.low == 0:
            yield Problem((*at, "low"), space.low, "a logarithmic range starts above 0")
        values: Mapping[str | int, Any] = {"low": whole(key, space.low), "high": whole(key, space.high)}
    else:
        values = dict(enumerate(space))
    for place, value in values.items():
        yield from _valid(key, value, (*at, place))


def _warmup(config: Config, search: Search) -> Iterator[Problem]:
    """Warm-up must end before training does, whatever is drawn; without a searched key its value in the config."""
    ends = {
        key: (space.low, space.high) if isinstance(space, Range) else space
        for key in ("epochs", "warmup_epochs")
        for space in [search.recipe.get(key, (getattr(config.recipe, key),))]
    }
    shortest, longest = min(ends["epochs"]), max(ends["warmup_epochs"])
    if ends.keys() & search.recipe.keys() and longest >= shortest:
        yield Problem(
            ("search", "recipe"), None, f"epochs may be {shortest:g}, which is not more than warmup_epochs, {longest:g}"
        )


def whole(key: str, value: Any) -> Any:
    """A bound as the recipe key takes it: epochs are whole numbers."""
    return int(value) if Recipe.model_fields[key].annotation is int and float(value).is_integer() else value


def _valid(key: str, value: Any, at: KeyPath) -> Iterator[Problem]:
    try:
        Recipe.model_validate({key: value})
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        yield Problem(at, value, message[0].lower() + message[1:])
