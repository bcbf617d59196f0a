"""What a config says of downloaded and local weights against what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sweep.base.errors import UserError
from sweep.config import RECIPE_KEYS, SCRATCH, Block, ByArchitecture, Config, KeyPath, Problem, WeightsEntry
from sweep.data import used_datasets
from sweep.models import facts, shards, study_file, study_weights
from sweep.study.grid import WEIGHTS, block_values, probe_datasets
from sweep.study.sources import TIMM, known_corpora, weights_source

_PLACES = ("path", "timm", "torchvision")
_WORDS = {SCRATCH: "training from scratch", TIMM: "timm's default weights"}


def check_entries(config: Config) -> Iterator[Problem]:
    """The section ``weights`` by itself."""
    for name, entry in config.weights.items():
        at: KeyPath = ("weights", name)
        if name in _WORDS:
            yield Problem(at, None, f"{name!r} in pretraining means {_WORDS[name]}: choose another name")
        if sum(getattr(entry, place) is not None for place in _PLACES) != 1:
            yield Problem(at, None, "needs either a path or the name of torchvision weights or a tag of timm", _PLACES)
        for place in _each(entry.torchvision):
            if not re.fullmatch(r"\w+_Weights\.\w+", place):
                example = ("ResNet50_Weights.IMAGENET1K_V2",)
                yield Problem((*at, "torchvision"), place, "not a name of torchvision weights", example)
        if (entry.mean is None) != (entry.std is None):
            yield Problem(at, None, "mean and std belong together: give both or neither")
        if entry.key and entry.path is None:
            yield Problem((*at, "key"), entry.key, "is a place in a file: it needs a path")
        if entry.key_map and entry.timm:
            yield Problem((*at, "key_map"), dict(entry.key_map), "timm's own weights have timm's names: it has no use")
        yield from _patterns(at, entry)
        yield from _corpus(at, entry)


def _each(said: ByArchitecture | None) -> tuple[str, ...]:
    """What an entry says, for one architecture or for several."""
    if said is None:
        return ()
    return tuple(said.values()) if isinstance(said, Mapping) else (said,)


def _patterns(at: KeyPath, entry: WeightsEntry) -> Iterator[Problem]:
    for pattern, replacement in entry.key_map.items():
        try:
            re.compile(pattern).sub(replacement, "")
        except (re.error, IndexError) as error:
            yield Problem((*at, "key_map", pattern), replacement, f"not a regular expression: {error}")


def _corpus(at: KeyPath, entry: WeightsEntry) -> Iterator[Problem]:
    """A corpus that the program does not know needs a number of images, or γ stays unknown for no reason."""
    said = entry.trained_on
    known = tuple(known_corpora())
    if said is not None and said.corpus is not None and said.corpus not in known and said.images is None:
        message = "no corpus that is known: say its images too, trained_on: {corpus: …, images: …}"
        yield Problem((*at, "trained_on"), said.corpus, message, known)


def check_block(config: Config, block: Block, number: int) -> Iterator[Problem]:
    """The weights that a block asks for: whether they exist, what means nothing to them, what must be known of them."""
    wrong = list(_asked(config, block, number))
    yield from wrong or _unseen(config, block, ("grid", number))


def _asked(config: Config, block: Block, number: int) -> Iterator[Problem]:
    """Whether weights exist for a block's architectures, and what has no meaning for them."""
    at: KeyPath = ("grid", number)
    named = [name for name in block.pretraining if name != SCRATCH]
    for name in block.architecture:
        tags = facts.architecture(name).weights
        files = (known.name for known in study_weights() if known.file and known.architecture == name)
        valid = (SCRATCH, *((TIMM, *tags) if tags else ()), *dict.fromkeys((*config.weights, *files)))
        for position, pretraining in enumerate(block.pretraining):
            path = (*at, "pretraining", position)
            if pretraining not in valid:
                yield Problem(path, pretraining, f"{name} has no weights of that name", valid)
            elif pretraining in config.weights:
                yield from _entry_for(config.weights[pretraining], pretraining, name)
    if not named:
        return
    for key in ("augmentation", *RECIPE_KEYS):
        if getattr(block, key) is not None:
            yield Problem(
                (*at, key),
                list(getattr(block, key)),
                f"has no meaning for downloaded weights ({named[0]}): give them a block of their own without it",
            )
    if block.width != (1.0,):
        yield Problem((*at, "width"), list(block.width), f"weights {named[0]} exist for width 1 only", ("1",))


def _unseen(config: Config, block: Block, at: KeyPath) -> Iterator[Problem]:
    """What must be known of weights where the block does not say it, or asks for it."""
    for values in block_values(block):
        source = weights_source(config, values["architecture"], values["pretraining"])
        if source is None:
            continue
        if WEIGHTS in (values["evaluation_view"], config.evaluation_view) and source.view(32) is None:
            path: KeyPath = (*at, "evaluation_view") if values["evaluation_view"] else ("evaluation_view",)
            message = f"nobody says how {values['pretraining']} of {values['architecture']} is evaluated"
            yield Problem(path, WEIGHTS, message, ("study", "exact"))
            return
    given = {*used_datasets(config)}
    if not {*(block.id_dataset or ()), *probe_datasets(config, block)} & given:
        yield Problem(at, None, "there is nothing to probe: name probe_datasets, or where the ID dataset is")


def _entry_for(entry: WeightsEntry, pretraining: str, architecture: str) -> Iterator[Problem]:
    """What an entry says for one architecture that the grid combines it with."""
    place = next(place for place in _PLACES if getattr(entry, place) is not None)
    said, at = getattr(entry, place), ("weights", pretraining, place)
    if isinstance(said, Mapping) and architecture not in said:
        yield Problem(at, list(said), f"says nothing of {architecture}, which the grid combines with {pretraining}")
    elif place == "timm":
        tag, tags = (
            (said[architecture] if isinstance(said, Mapping) else said),
            facts.architecture(architecture).weights,
        )
        if tag not in (TIMM, *tags):
            yield Problem(at, tag, f"{architecture} has no weights of that name", tags)
    elif place == "torchvision":
        yield from _torchvision(at, said[architecture] if isinstance(said, Mapping) else said)


def _torchvision(at: KeyPath, name: str) -> Iterator[Problem]:
    from sweep.models import torchvision_facts  # torchvision: only when a config asks for it

    try:
        torchvision_facts(name)
    except UserError as error:
        yield Problem(at, name, str(error))


def check_files(config: Config) -> Iterator[Problem]:
    """Problems of the files of every checkpoint in use."""
    used = {(v["architecture"], v["pretraining"]): None for block in config.grid for v in block_values(block)}
    reported = set()
    for architecture, pretraining in used:
        source = weights_source(config, architecture, pretraining)
        if source is None or source.kind != "file" or source.name in reported:
            continue
        reported.add(source.name)
        at: KeyPath = ("weights", pretraining, "path")
        if not Path(source.name).is_file():
            known = study_file(pretraining, architecture)
            where = f"; fetch it: {known.source} (licence {known.licence})" if known else ""
            yield Problem(at, source.name, f"no such checkpoint file (is data_root right?){where}")
        for part in shards(Path(source.name)) if Path(source.name).is_file() else ():
            if not part.is_file():
                yield Problem(at, source.name, f"names a part that is not there: {part.name}")
