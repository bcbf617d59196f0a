"""Series of tasks and interventions against what there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from sweep.base.errors import UserError
from sweep.config import (
    DESIGN_KEYS,
    EPOCH,
    EVERY,
    GRID_VARIABLES,
    MEASURED,
    RECIPE_KEYS,
    SCRATCH,
    Block,
    Config,
    FineTuning,
    KeyPath,
    Problem,
)
from sweep.models import facts
from sweep.study.grid import block_values, layers_said, probe_datasets, recipe_of, resolution_of
from sweep.study.interventions import span_of
from sweep.study.resolve import dataset_names, declared_sizes
from sweep.study.tasks import fine_tuning
from sweep.study.when import matches

_SAME = ("architecture", "width", "resolution")  # of a backbone that gives layers: their shapes follow from these


def check_tasks(config: Config, block: Block, number: int) -> Iterator[Problem]:
    """What a block says of tasks."""
    at: KeyPath = ("grid", number)
    if block.tasks is None:
        return
    if block.pretraining != (SCRATCH,):
        yield Problem((*at, "pretraining"), list(block.pretraining), "tasks are learned from scratch", (SCRATCH,))
    yield from _datasets(config, block, at) if isinstance(block.tasks[0], str) else _parts(config, block, at)
    for values in block_values(block):
        recipe = recipe_of(config, values)
        if recipe.data_parallel > 1:
            yield Problem((*at, "data_parallel"), recipe.data_parallel, "one process learns tasks", ("1",))
            break
    if "ood" in config.continual.split and not probe_datasets(config, block):
        yield Problem(("continual", "split"), "ood", "the block has no probe_datasets that could decide it", ("id95",))
    yield from _splits(config, block)
    yield from _fine_tuning(config, block)


def _datasets(config: Config, block: Block, at: KeyPath) -> Iterator[Problem]:
    names = [str(name) for name in block.tasks or ()]
    for position, name in enumerate(names):
        if name not in dataset_names(config):
            yield Problem((*at, "tasks", position), name, "no such dataset", dataset_names(config))
    if len(names) < 2:
        yield Problem((*at, "tasks"), names, "at least two datasets; or a number of parts, 2 or more")
    if block.id_dataset != (names[0],):
        yield Problem((*at, "id_dataset"), list(block.id_dataset or ()), "is the first of the tasks", (names[0],))
    if block.id_classes != ("all",):
        yield Problem((*at, "id_classes"), list(block.id_classes), "tasks that are datasets have all classes", ("all",))


def _parts(config: Config, block: Block, at: KeyPath) -> Iterator[Problem]:
    for name in block.id_dataset or ():
        known = declared_sizes(config, name)
        for position, parts in enumerate(block.tasks or ()):
            for classes in block.id_classes:
                there = known.classes if classes == "all" and known else classes
                if isinstance(there, int) and isinstance(parts, int) and there < 2 * parts:
                    said = f"{there} classes of {name} make no {parts} tasks of at least 2 classes"
                    yield Problem((*at, "tasks", position), parts, said)


def _splits(config: Config, block: Block) -> Iterator[Problem]:
    """Layers that are named must be there, in every architecture of the block."""
    for name in block.architecture:
        values = {"architecture": name, "pretraining": SCRATCH, "resolution": block.resolution[0]}
        side = resolution_of(config, values)
        try:
            layers = facts.layers(name, resolution=side or 32, layers=layers_said(config, name))
        except UserError:
            continue  # said elsewhere
        names = tuple(layer.name for layer in layers)
        for position, word in enumerate(config.continual.split):
            if word in (*MEASURED, EVERY, *names) or (isinstance(word, int) and word <= len(names)):
                continue
            said = f"no such layer of {name}, which has {len(names)}"
            yield Problem(("continual", "split", position), word, said, (*MEASURED, EVERY, *names))


def _fine_tuning(config: Config, block: Block) -> Iterator[Problem]:
    said, at = config.continual.fine_tune, ("continual", "fine_tune")
    valid = (*RECIPE_KEYS, "decay_epochs")
    unknown = [key for key in said or {} if key not in valid]
    for key in unknown:
        yield Problem((*at, key), key, "no such recipe key", valid)
    if unknown or said is None:
        return
    try:
        recipe: FineTuning | None = fine_tuning(config, recipe_of(config, next(iter(block_values(block)))))
    except ValidationError as error:
        for detail in error.errors():
            yield Problem((*at, *detail["loc"]), detail["input"], detail["msg"])
        return
    if recipe is not None and recipe.warmup_epochs >= recipe.epochs:
        yield Problem((*at, "epochs"), recipe.epochs, f"must be more than warmup_epochs, {recipe.warmup_epochs}")


def check_interventions(config: Config) -> Iterator[Problem]:
    """What ``intervene`` says: layers, what they are set to, and for which backbones."""
    for number, each in enumerate(config.intervene):
        at: KeyPath = ("intervene", number)
        if span_of(each.layers) is None:
            yield Problem((*at, "layers"), each.layers, "no layers", ("7", "9..10", "9..", "..4", EVERY))
        for key in each.when:
            if key not in GRID_VARIABLES:
                yield Problem((*at, "when", key), key, "no such grid variable", GRID_VARIABLES)
        if not isinstance(each.to, str):
            yield from _donor(config, each.to, (*at, "to"))
        elif each.to == "initial":
            yield from _initial(config, each.when, (*at, "to"))


def _donor(config: Config, said: Mapping[str, Any], at: KeyPath) -> Iterator[Problem]:
    valid = (EPOCH, *(key for key in (*DESIGN_KEYS, *RECIPE_KEYS) if key not in _SAME))
    for key, value in said.items():
        if key not in valid:
            yield Problem((*at, key), value, "not in which the other backbone can differ", valid)
    if not said:
        yield Problem(at, {}, "says not in what the other backbone differs", ("initial", "random", "{epoch: 1}"))


def _initial(config: Config, when: Mapping[str, tuple[Any, ...]], at: KeyPath) -> Iterator[Problem]:
    """Nobody knows what downloaded weights were before they were trained."""
    for values in (values for block in config.grid for values in block_values(block)):
        if values["pretraining"] != SCRATCH and matches(when, values):
            said = f"not known of the weights {values['pretraining']}"
            yield Problem(at, "initial", said, ("random", "when: {pretraining: scratch}"))
            return
