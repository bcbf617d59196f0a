"""A question as a config: which models on which data; what a user would write for the same sweep by hand."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from sweep.answer.names import Model, models_of
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.config import SCRATCH, Config, ConfigError, Problem, WeightsEntry, closest
from sweep.data import Library, cache_dir, dataset_options, known_datasets
from sweep.models import facts
from sweep.study import block_values, read_config
from sweep.table import read_plans

CONFIG_FILE = "best_layer.yaml"
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes
    ----------
    base : values of a config that all rounds share.
    data : name of the dataset in it.
    resolutions : side of a model's input, px, where it is not that of its weights.
    """

    base: Mapping[str, Any]
    data: str
    models: tuple[Model, ...]
    resolutions: Mapping[Model, int | str] = field(default_factory=dict)
    few_shot: int | None = None

    @property
    def name(self) -> str:
        """Of the config."""
        return str(self.base["name"])

    def only(self, models: Sequence[Model]) -> Question:
        """The same of some of its models."""
        return replace(self, models=tuple(models))

    def config(self, **changed: Any) -> dict[str, Any]:
        """As a config has it: one block for each model, and only the dataset is probed."""
        values = {**self.base, "probe_datasets": [self.data], "keep_probes": "best", **changed}
        values["grid"] = [
            {
                "architecture": model.architecture,
                "pretraining": model.pretraining,
                "resolution": self.resolutions.get(model, "native"),
            }
            for model in self.models
        ]
        return values

    def said_of_layers(self) -> dict[str, str]:
        """By architecture what its config says of its layers."""
        said = self.base.get("layers", {})
        return {model.architecture: said for model in self.models} if isinstance(said, str) else dict(said)

    def with_images(self, per_class: int | None, test_per_class: int | None = None) -> dict[str, Any]:
        """The section ``datasets`` with at most so many images of a class."""
        entries = {name: dict(entry) for name, entry in self.base.get("datasets", {}).items()}
        entry = entries.setdefault(self.data, {})
        caps = {"train_per_class": per_class, "test_per_class": test_per_class}
        return entries | {self.data: entry | {key: cap for key, cap in caps.items() if cap is not None}}


def ask(
    *,
    data: str | None,
    models: Sequence[str],
    weights: Sequence[str] = (),
    config: Path | None = None,
    few_shot: int | None = None,
    resolution: int | None = None,
    overrides: Sequence[str] = (),
) -> Question:
    """What the command line asks.

    Raises
    ------
    UserError
        If it names something that is not there.
    """
    if few_shot is not None and few_shot < 2:
        raise UserError(f"--few-shot {few_shot}: at least 2 images of a class: one of them is held out")
    if resolution is not None and resolution < 1:
        raise UserError(f"--resolution {resolution}: the side of an image, px")
    read = read_config(config, overrides) if config else None
    base = read.model_dump(mode="json", exclude_unset=True) if read else _set({}, overrides)
    name, entry = _data(data, read)
    base["datasets"] = {**base.get("datasets", {}), **({name: entry} if entry else {})}
    base["name"] = f"best-{name}"
    own = _own_weights(weights)
    base["weights"] = {**base.get("weights", {}), **{key: {"path": path} for key, path in own.items()}}
    entries = {key: WeightsEntry.model_validate(value) for key, value in base["weights"].items()}
    chosen = models_of(models, entries, list(own)) if models else _of_grid(read)
    sides = {model: resolution or _side(model, read) for model in chosen}
    for key in ("rules", "recipes", "search", "roles", "statistics", "keep_embeddings", "recipe"):
        base.pop(key, None)  # of ID training and of studies; nothing is trained here
    return Question(base, name, tuple(chosen), {m: side for m, side in sides.items() if side}, few_shot)


def _set(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides of a config that there is no file of."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"--set {override}: expected key.path=value")
        *above, last = key.split(".")
        place = values
        for part in above:
            place = place.setdefault(part, {})
        place[last] = yaml.safe_load(text)
    return values


def _data(said: str | None, config: Config | None) -> tuple[str, dict[str, Any] | None]:
    """Name of the dataset, and its entry where the config has none."""
    if said is None:
        probed = dict.fromkeys(config.probe_datasets if config else ())
        if len(probed) != 1:
            there = f"; the config probes {', '.join(probed)}" if probed else ""
            raise UserError(f"--data: which images? Give a folder of class folders, or an archive of one{there}")
        return next(iter(probed)), None
    declared = config.datasets if config else {}
    path = Path(said).expanduser()
    if said in declared or (said in known_datasets() and not path.exists()):
        return said, None
    if not path.exists():
        near = closest(said, (*declared, *known_datasets()))
        hint = f"; did you mean the dataset {near[0]}?" if near else ""
        raise UserError(f"--data {said}: no such folder or archive{hint}")
    stem = path.resolve().name
    for ending in _ARCHIVES:
        stem = stem.removesuffix(ending)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "images"
    name = f"my-{name}" if name in known_datasets() or name in declared else name
    return name, {"path": str(path.resolve())}


def _own_weights(said: Sequence[str]) -> dict[str, Any]:
    """Entry name → path, or architecture → path, of ``[ARCHITECTURE=]FILE``."""
    found: dict[str, Any] = {}
    for word in said:
        architecture, equals, rest = word.rpartition("=")
        path = Path(rest).expanduser()
        if not path.is_file():
            raise UserError(f"--weights {word}: no such file")
        if equals and architecture not in facts.names():
            raise UserError(f"--weights {word}: {architecture} is no architecture; closest: "
                            f"{', '.join(closest(architecture, facts.names())[:3])}")  # fmt: skip
        whole = str(path.resolve())
        name = _entry_name(Path(whole), architecture, found)
        found[name] = {**found.get(name, {}), architecture: whole} if equals else whole
    return found


def _entry_name(path: Path, architecture: str, found: Mapping[str, Any]) -> str:
    """That of the file; of two files called alike the second one's folder tells them apart, else a number."""
    stem, folder = (re.sub(r"[^A-Za-z0-9_-]+", "-", part.partition(".")[0]) for part in (path.name, path.parent.name))
    names = itertools.chain((stem or "mine", f"{folder}-{stem}"), (f"{stem}-{number}" for number in itertools.count(2)))
    return next(name for name in names if _free(found.get(name), path, architecture))


def _free(there: Any, path: Path, architecture: str) -> bool:
    """Whether an entry may hold a file, of one architecture or (empty) of any, beside what is there."""
    if there is None:
        return True
    if isinstance(there, dict):
        return bool(architecture) and there.get(architecture, str(path)) == str(path)
    return not architecture and there == str(path)


def _of_grid(config: Config | None) -> list[Model]:
    """Backbones of a config's grid that have weights."""
    values = [each for block in config.grid for each in block_values(block)] if config else []
    found = {Model(v["architecture"], v["pretraining"]): None for v in values if v["pretraining"] != SCRATCH}
    if not found:
        raise UserError("--models: which models? Names of timm, patterns, a file of names, or: suggest")
    return list(found)


def _side(model: Model, config: Config | None) -> int | str | None:
    """The resolution that a config's grid has for a model, or for its architecture."""
    values = [each for block in config.grid for each in block_values(block)] if config else []
    same = [v for v in values if v["architecture"] == model.architecture]
    exact = [v for v in same if v["pretraining"] == model.pretraining] or same
    return exact[0]["resolution"] if exact else None


def checked(values: Mapping[str, Any], store: Store, file: str = CONFIG_FILE) -> Config:
    """Leave a config in a store and read it as any other.

    Raises
    ------
    UserError
        With one line, if something in it cannot be.
    """
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    place = Path(cache_dir(None) / "answers" / f"{values['name']}-{file}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")
    try:
        found = read_config(place, need_data=True)
    except ConfigError as error:
        said = "; ".join(_about(problem.path, values) + _with_choices(problem) for problem in error.problems)
        raise UserError(said.replace("\n", " ")) from error
    store.put(file, text.encode())
    return found


def _with_choices(problem: Problem) -> str:
    """What is wrong, and the closest of what would be right."""
    near = closest(str(problem.value), problem.valid)[:5] or problem.valid[:5]
    return problem.message + (f" ({', '.join(near)})" if near else "")


def _about(path: Sequence[int | str], values: Mapping[str, Any]) -> str:
    """Whom a mistake of a config concerns, in the words of the command line."""
    if len(path) > 1 and path[0] == "grid":
        block = values["grid"][path[1]]
        return f"{block['architecture']}.{block['pretraining']}: "
    return f"{'.'.join(map(str, path))}: "


def refuse_other(store: Store, name: str) -> None:
    """UserError if another sweep lives there: its table would be overwritten."""
    try:
        plans = [plan.name for plan in read_plans(store)] if store.names("plans/") else []
    except UserError:
        plans = ["another one, damaged"]
    if others := [plan for plan in plans if plan != name]:
        raise UserError(f"--out {store.uri}: holds the sweep {others[0]}, whose table would be lost: name another")


def refuse_few(config: Config, name: str) -> None:
    """UserError if the images cannot be split: seen before anything is computed."""
    options = {name: dataset_options(config, name)}
    Library(options, str(cache_dir(config)), config.split_seed, config.holdout).select(name)
