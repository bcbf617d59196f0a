"""What a config asks for against what there is: names, sizes, combinations. Nothing heavy is imported.

Each check yields :class:`~sweep.config.Problem` with the key path, the value and the valid choices.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweep import register
from sweep.base.errors import UserError
from sweep.config import (
    DERIVED,
    GRID_VARIABLES,
    INTERVENTION,
    RECIPE_KEYS,
    SCRATCH,
    Block,
    Config,
    KeyPath,
    ProbeSection,
    Problem,
    Recipe,
    RecipeRule,
    Rule,
    read_yaml,
)
from sweep.data import DATASETS, forget_datasets
from sweep.models import facts
from sweep.study.check_datasets import check_data_files, check_datasets, check_shifted
from sweep.study.check_models import check_architectures, check_default_layers, check_layers
from sweep.study.check_probes import kept_probes, probe_steps, probe_sweeps, solvers
from sweep.study.check_search import check_search
from sweep.study.check_tasks import check_interventions, check_tasks
from sweep.study.check_weights import check_block, check_entries, check_files
from sweep.study.grid import asked_epochs, block_values, probe_datasets, recipe_of, resolution_of
from sweep.study.resolve import dataset_names, declared_sizes, probed_names
from sweep.study.sources import known_corpora
from sweep.study.subset import subset


def read_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    need_data: bool = False,
    only: Sequence[str] = (),
    size: str | None = None,
) -> Config:
    """Read a config file, load its plug-ins, check it against what there is.

    Parameters
    ----------
    path, overrides : see :func:`sweep.config.read_yaml`.
    need_data : also require the files of every dataset in use to be there.
    only, size : what is kept of the grid, see :func:`sweep.study.subset.subset`; all of it is checked.

    Raises
    ------
    ConfigError
        With file, key path, value and the valid choices of every mistake found.
    UserError
        If no block is of that name or size.
    """
    forget_datasets()
    reading = read_yaml(path, overrides)
    config = reading.config
    try:
        register.load(config.imports, config.import_path)
    except register.PluginImportError as error:
        problem = Problem(("imports", error.position), config.imports[error.position], str(error))
        raise reading.error([problem]) from error
    register.warn_of_other_doors(config.imports)
    if problems := check(config):
        raise reading.error(problems)
    config = subset(config, only, size)
    if need_data and (problems := [*check_data_files(config), *check_files(config)]):
        raise reading.error(problems)
    return config


def check(config: Config) -> list[Problem]:
    """All problems of a config that pydantic cannot see; whether files are there is another question."""
    problems = [*_names(config), *solvers(config), *_rules(config), *check_datasets(config), *_resources(config)]
    problems += [*check_entries(config), *check_search(config), *_taken()]
    if not problems:
        for number, block in enumerate(config.grid):
            wrong = list(check_block(config, block, number))  # weights that are not known have no resolution
            problems += [*check_default_layers(config, ("grid", number, "architecture"), block.architecture)]
            problems += [*(wrong or _shapes(config, block, number)), *_counts(config, block, number)]
            problems += _recipes(config, block, number)
            problems += check_tasks(config, block, number)
        problems += check_interventions(config)
        problems += [*_epochs(config), *probe_sweeps(config), *probe_steps(config), *kept_probes(config)]
    return problems


def _taken() -> Iterator[Problem]:
    """Plug-ins under the name of a timm model or of a dataset of the study, which the register does not know."""
    known_elsewhere: Mapping[register.Kind, Container[str]] = {"model": facts.timm_names(), "dataset": DATASETS}
    for kind, known in known_elsewhere.items():
        for name in register.plugin_names(kind):
            if name in known:
                yield Problem(("imports",), name, f"{kind} {name!r} is built in: choose another name for the plug-in")


def _unknown(path: KeyPath, values: Iterable[str], valid: Iterable[str], what: str) -> Iterator[Problem]:
    choices = tuple(valid)
    for position, value in enumerate(values):
        if value not in choices:
            yield Problem((*path, position), value, f"no such {what}", choices)


def _names(config: Config) -> Iterator[Problem]:
    datasets, augmentations = dataset_names(config), register.names("augmentation")
    probed = probed_names(config)
    yield from _unknown(("probe_datasets",), config.probe_datasets, probed, "dataset")
    yield from check_shifted(config)
    for number, block in enumerate(config.grid):
        at: KeyPath = ("grid", number)
        yield from check_architectures((*at, "architecture"), block.architecture)
        trained = SCRATCH in block.pretraining
        valid = datasets if trained else (*datasets, *(name for name in known_corpora() if name not in datasets))
        what = "dataset" if trained else "dataset or corpus"
        yield from _unknown((*at, "id_dataset"), block.id_dataset or (), valid, what)
        yield from _unknown((*at, "probe_datasets"), block.probe_datasets or (), probed, "dataset")
        yield from _unknown((*at, "augmentation"), block.augmentation or (), augmentations, "augmentation")
        yield from _without_id(config, block, at)
    yield from _unknown(("statistics",), config.statistics, register.plugin_names("statistic"), "registered statistic")
    yield from _unknown_keys(("roles",), config.roles, (*GRID_VARIABLES, INTERVENTION), "grid variable")
    yield from _adjusted(config)
    yield from check_layers(config)


def _without_id(config: Config, block: Block, at: KeyPath) -> Iterator[Problem]:
    """A block without an ID dataset: of downloaded weights, with something else to probe."""
    if block.id_dataset is not None:
        return
    if SCRATCH in block.pretraining:
        yield Problem((*at, "id_dataset"), None, "this key is required: scratch backbones are trained on it")
    elif not probe_datasets(config, block):
        yield Problem((*at, "probe_datasets"), [], "nothing is probed: name datasets, or an id_dataset")
    for key in ("id_classes", "images_per_class"):
        if getattr(block, key) != ("all",):
            yield Problem((*at, key), list(getattr(block, key)), "has no meaning without an id_dataset")


def _adjusted(config: Config) -> Iterator[Problem]:
    """Variables of ``adjust`` and their confounders, of the grid or derived from it."""
    valid = (*GRID_VARIABLES, *DERIVED)
    yield from _unknown_keys(("adjust",), config.adjust, valid, "variable")
    for name, others in config.adjust.items():
        yield from _unknown(("adjust", name), others, [v for v in valid if v != name], "other variable")


def _unknown_keys(path: KeyPath, keys: Iterable[str], valid: tuple[str, ...], what: str) -> Iterator[Problem]:
    for key in keys:
        if key not in valid:
            yield Problem((*path, key), key, f"no such {what}", valid)


def _rules(config: Config) -> Iterator[Problem]:
    known = {
        "id_dataset": dataset_names(config),
        "augmentation": register.names("augmentation"),
        "pretraining": None,
    }
    numbered: list[tuple[KeyPath, RecipeRule]] = [(("recipes", n), rule) for n, rule in enumerate(config.recipes)]
    numbered += [(("rules", n), rule) for n, rule in enumerate(config.rules)]
    for at, rule in numbered:
        yield from _unknown_keys((*at, "when"), rule.when, GRID_VARIABLES, "grid variable")
        yield from check_architectures((*at, "when", "architecture"), rule.when.get("architecture", ()))
        for key, valid in known.items():
            if valid is not None:
                yield from _unknown((*at, "when", key), rule.when.get(key, ()), valid, key.replace("id_", ""))
        yield from _unknown_keys((*at, "recipe"), rule.recipe, RECIPE_KEYS, "recipe key")
        yield from _values((*at, "recipe"), Recipe, rule.recipe)
        if isinstance(rule, Rule):
            yield from _unknown_keys((*at, "probe"), rule.probe, tuple(ProbeSection.model_fields), "probe key")
            yield from _values((*at, "probe"), ProbeSection, rule.probe)


def _values(path: KeyPath, model: type[Recipe] | type[ProbeSection], values: Any) -> Iterator[Problem]:
    try:
        model.model_validate({key: value for key, value in values.items() if key in model.model_fields})
    except ValidationError as error:
        for detail in error.errors():
            key, *place = detail["loc"]
            place = place if isinstance(values[key], list | tuple) else []  # a single value stands for a list of one
            yield Problem((*path, key, *place), detail["input"], detail["msg"])


def _resources(config: Config) -> Iterator[Problem]:
    """``auto`` looks at the nodes that are there; with ``wait_for_nodes`` there may be none yet. What only a GPU
    computes needs one, and a precision stands once.
    """
    extraction = config.extraction.precision
    if config.autocast and extraction not in ("float32", config.autocast):
        yield Problem(("autocast",), config.autocast, f"extraction.precision says {extraction}: leave autocast out")
    for at, said in (("recipe", config.recipe.precision), ("extraction", extraction)):
        if said == "tf32" and config.resources.gpus == 0:
            valid = ("float32", "bfloat16")
            yield Problem((at, "precision"), said, "is an arithmetic of GPUs, and resources.gpus is 0", valid)
    if config.resources.wait_for_nodes and config.resources.gpus == "auto":
        message = "wait_for_nodes needs a number: auto cannot look at nodes that are still to come"
        yield Problem(("resources", "gpus"), "auto", message, ("0", "0.5", "1"))


def _shapes(config: Config, block: Block, number: int) -> Iterator[Problem]:
    at: KeyPath = ("grid", number)
    for name in block.architecture:
        about = facts.architecture(name)
        for position, resolution in _resolutions(config, block, name):
            path = (*at, "resolution", position)
            if resolution is None:
                yield Problem(path, "native", f"nobody says which resolution the weights of {name} were made for")
            elif resolution % about.multiple_of:
                lower = resolution // about.multiple_of * about.multiple_of
                valid = tuple(str(v) for v in (lower, lower + about.multiple_of) if v)
                yield Problem(path, resolution, f"{name} needs a multiple of its patch, {about.multiple_of}", valid)
            elif resolution < about.min_resolution:
                yield Problem(path, resolution, f"{name} needs at least {about.min_resolution} px")
            elif problem := _unbuildable(name, resolution):
                yield Problem(path, resolution, problem)
        for position, width in enumerate(block.width):
            if problem := facts.width_problem(name, width):
                yield Problem((*at, "width", position), width, f"{name}: {problem}")


def _resolutions(config: Config, block: Block, name: str) -> set[tuple[int, int | None]]:
    """Every resolution of an architecture in a block, with its position there; None for an unknown native one."""
    return {
        (position, resolution_of(config, {"architecture": name, "pretraining": weights, "resolution": resolution}))
        for position, resolution in enumerate(block.resolution)
        for weights in block.pretraining
    }


def _unbuildable(name: str, resolution: int) -> str | None:
    """Why a registered model cannot be built for a resolution; others are known to be."""
    if register.find_plugin("model", name):
        try:
            facts.layers(name, resolution=resolution)
        except UserError as error:
            return str(error)
    return None


def _counts(config: Config, block: Block, number: int) -> Iterator[Problem]:
    at: KeyPath = ("grid", number)
    for name in block.id_dataset or ():
        known = declared_sizes(config, name)
        if known is None:
            continue
        for position, classes in enumerate(block.id_classes):
            if classes != "all" and classes > known.classes:
                yield Problem((*at, "id_classes", position), classes, f"{name} has {known.classes} classes")
            if classes != "all" and classes < 2:
                yield Problem((*at, "id_classes", position), classes, "a classifier needs at least 2 classes")
        for position, images in enumerate(block.images_per_class):
            if images != "all" and images * known.classes > known.train:
                there = known.train // known.classes
                yield Problem(
                    (*at, "images_per_class", position),
                    images,
                    f"{name} has {there} training images per class",
                )
            if images != "all" and images < 2:
                yield Problem((*at, "images_per_class", position), images, "at least 2: one of them is held out")


def _recipes(config: Config, block: Block, number: int) -> Iterator[Problem]:
    """Recipes as they come out of defaults, rules and grid: warm-up must end before training does."""
    reported: set[object] = set()
    for values in block_values(block):
        if values["pretraining"] != SCRATCH:
            continue
        recipe = recipe_of(config, values)
        pair = (recipe.warmup_epochs, recipe.epochs)
        if recipe.warmup_epochs >= recipe.epochs and pair not in reported:
            reported.add(pair)
            where: KeyPath = ("grid", number, "epochs") if block.epochs else ("recipe", "epochs")
            yield Problem(where, recipe.epochs, f"must be more than warmup_epochs, {recipe.warmup_epochs}")
        for problem in (_processes(config, block, number, recipe), _chosen_unseen(block, number, recipe)):
            if problem and problem.path not in reported:
                yield problem
                reported.add(problem.path)


def _chosen_unseen(block: Block, number: int, recipe: Recipe) -> Problem | None:
    """The images that choose the kept epoch must not be trained on."""
    if (recipe.train_on, recipe.checkpoint_on) != ("all", "heldout"):
        return None
    where: KeyPath = ("grid", number, "train_on") if block.train_on else ("recipe", "train_on")
    message = "checkpoint_on: heldout would choose the epoch by images that it was trained on"
    return Problem(where, "all", message, ("fit", "all with checkpoint_on: last", "all with checkpoint_on: test"))


def _processes(config: Config, block: Block, number: int, recipe: Recipe) -> Problem | None:
    """Processes that train together: equal parts of a batch, two images at least, and a whole GPU or none for each."""
    processes, batch, gpus = recipe.data_parallel, recipe.batch_size, config.resources.gpus
    if processes == 1:
        return None
    for key in ("mixup", "cutmix"):  # a batch that is parted would be mixed within its parts only
        if getattr(recipe, key):
            at: KeyPath = ("grid", number, key) if getattr(block, key) else ("recipe", key)
            return Problem(
                at, getattr(recipe, key), f"mixes whole batches: not with data_parallel = {processes}", ("0",)
            )
    if batch % processes or batch < 2 * processes:
        where: KeyPath = ("grid", number, "data_parallel") if block.data_parallel else ("recipe", "data_parallel")
        valid = tuple(str(n) for n in range(1, batch // 2 + 1) if batch % n == 0)
        return Problem(where, processes, f"must divide batch_size, {batch}, into parts of 2 or more images", valid)
    if gpus != "auto" and gpus not in (0, 1):
        message = f"each of the {processes} processes of recipe.data_parallel needs a GPU of its own"
        return Problem(("resources", "gpus"), gpus, message, ("auto", "0", "1"))
    return None


def _epochs(config: Config) -> Iterator[Problem]:
    """Epochs to probe along ID training: there must be such a training, and it must last so long."""
    found: dict[KeyPath, Problem] = {}
    for values in (values for block in config.grid for values in block_values(block)):
        path, epochs = asked_epochs(config, values)
        weights, name = values["pretraining"], values["architecture"]
        if epochs and weights != SCRATCH:
            message = f"the weights {weights} of {name} are downloaded, without their epochs: set it by a rule"
            found.setdefault(path, Problem(path, list(epochs), message, ("when: {pretraining: scratch}",)))
            continue
        last = recipe_of(config, values).epochs
        for position, epoch in enumerate(epochs):
            if epoch > last:
                at, message = (*path, position), f"{name} on {values['id_dataset']} is trained for {last} epochs"
                found.setdefault(at, Problem(at, epoch, message, (f"0 to {last}",)))
    return iter(found.values())
