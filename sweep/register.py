"""The register of names: models, datasets, augmentations, statistics and probes, the program's own and a user's.

A module that a config names under ``imports`` registers functions with the decorators below; their names are then
as good as ours. The module is imported where the config is read, and in every worker before a cell runs.

The content of the module's file enters the keys of what uses a plug-in, so that changed code computes anew. A
``version`` given to the decorator enters instead: then it is for the author to raise it. What the module imports in
turn is not looked at.

Shapes: N images, M images to score, D width, C classes, R resolution in pixels.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from sweep.base import patience
from sweep.base.errors import UserError

IMPORT_SECONDS = 300.0  # that a plug-in may take to be imported
Kind = Literal["model", "dataset", "augmentation", "statistic", "probe"]
_FACE = "sweep.plugins"  # what a plug-in imports from
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Plugin:
    """A registered function.

    Attributes
    ----------
    code : what of its source enters keys: a hash of the module's file, or the version its author gave.
    facts : what else the decorator was told.
    """

    kind: Kind
    name: str
    make: Callable[..., Any]
    module: str
    code: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Kind and name, as keys and messages have it."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Samples:
    """One part of a registered dataset.

    Attributes
    ----------
    labels : class ids in [0, C), one per image.
    read : index of an image → PIL image, or uint8 array (H, W, 3).
    fingerprint : digest of the files that ``read`` reads; empty if code and options decide every pixel.
    """

    labels: Sequence[int]
    read: Callable[[int], Any]
    fingerprint: str = ""


class PluginImportError(UserError):
    """A module of ``imports`` that cannot be imported; ``position`` is its place in the list."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


# What comes with the program: where it is made, imported when it is first asked for.
OURS: Mapping[Kind, Mapping[str, str]] = {
    "model": {
        "vggm11": "sweep.models.build:vggm11",
        "vggm17": "sweep.models.build:vggm17",
        "vggm11_dagger": "sweep.models.build:vggm11_dagger",
        "vggm17_dagger": "sweep.models.build:vggm17_dagger",
        "resnet18": "sweep.models.build:resnet18",
        "resnet34": "sweep.models.build:resnet34",
        "vit_tiny_patch8": "sweep.models.build:vit_tiny_patch8",
        "vit_tiny_plus_patch8": "sweep.models.build:vit_tiny_plus_patch8",
    },
    "dataset": {
        "fractals": "sweep.data.kinds.builtin.fractals:FRACTALS",
        "glyphs": "sweep.data.kinds.builtin.glyphs:GLYPHS",
        "gratings": "sweep.data.kinds.builtin.gratings:GRATINGS",
        "digits": "sweep.data.kinds.builtin.digits:DIGITS",
    },
    "augmentation": {
        "off": "sweep.train.augment:OFF",
        "on": "sweep.train.augment:ON",
        "strong": "sweep.train.augment:STRONG",
    },
    "statistic": {},
    "probe": {
        "converged": "sweep.probes.converged:fit_converged",
        "adamw": "sweep.probes.adamw:fit_adamw",
        "lbfgs": "sweep.probes.lbfgs:fit_lbfgs",
        "ridge": "sweep.probes.ridge:fit_ridge",
    },
}
# The same for names that say what is built: a regular expression on the whole name → what makes a builder of it.
PATTERNS: Mapping[Kind, Mapping[str, str]] = {
    "model": {
        r"vggm[1-9]\d{0,2}(_dagger)?": "sweep.models.build:by_depth",
        r"mlp[1-9]\d{0,2}x[1-9]\d{0,4}": "sweep.models.build:by_shape",
    }
}
_REGISTERED: dict[tuple[Kind, str], Plugin] = {}


def find_plugin(kind: Kind, name: str | None) -> Plugin | None:
    """A user's plug-in of this name; None if there is none."""
    return _REGISTERED.get((kind, str(name)))


def find_ours(kind: Kind, name: str | None) -> Any:
    """What comes with the program under this name; None if there is nothing."""
    if place := OURS[kind].get(str(name)):
        return _at(place)
    patterns = PATTERNS.get(kind, {}).items()
    place = next((place for pattern, place in patterns if re.fullmatch(pattern, str(name))), None)
    return None if place is None else _at(place)(str(name))


def _at(place: str) -> Any:
    """What stands at a "module:name"."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def plugin_names(kind: Kind) -> tuple[str, ...]:
    """Names of a kind that users' modules registered, in that order."""
    return tuple(name for of, name in _REGISTERED if of == kind)


def names(kind: Kind) -> tuple[str, ...]:
    """Every name of a kind in the register: the program's own, then a user's."""
    return (*OURS[kind], *plugin_names(kind))


# ---------------------------------------------------------------------------------------------- decorators


def register_model(
    name: str,
    *,
    family: str | None = None,
    stem: int | None = None,
    depth: int | None = None,
    spatial_reduction: float | None = None,
    multiple_of: int = 1,
    min_resolution: int = 1,
    scalable: bool = False,
    layers: str | None = None,
    version: str | None = None,
) -> Callable[[Function], Function]:
    """Decorator: an architecture, ``(*, classes, resolution, width) -> nn.Module``.

    The network takes (N, 3, R, R) and gives (N, classes) logits. Facts that are not given here are found by building
    it on the meta device: a module must create its tensors through layers and parameters, or on its inputs' device.

    Parameters
    ----------
    family, stem, depth, spatial_reduction : columns of the table, see :class:`sweep.models.facts.Architecture`.
    multiple_of, min_resolution : of the resolutions it takes, px.
    scalable : whether it heeds ``width``; if not, the grid may not vary it.
    layers : which layers are probed: "conv", "blocks", "stages", "modules", or a regular expression on whole module
        paths. None: the default, blocks of transformers and convolutions of others. A config's own ``layers`` wins.
    version : enters keys instead of the module's content.
    """
    given = {"family": family, "stem": stem, "depth": depth, "spatial_reduction": spatial_reduction}
    ranges = {"multiple_of": multiple_of, "min_resolution": min_resolution, "scalable": scalable}
    return _decorator("model", name, version, given=given, ranges=ranges, layers=layers)


def register_dataset(
    name: str, *, classes: int, train: int, test: int, title: str = "", version: str | None = None
) -> Callable[[Function], Function]:
    """Decorator: a dataset, ``(part, options) -> Samples`` with ``part`` "train" or "test".

    ``options`` is a :class:`sweep.data.options.DatasetOptions` that holds what the config says under ``datasets``;
    where it says nothing, ``classes``, ``train_per_class`` and ``test_per_class`` follow from the numbers given here.

    Parameters
    ----------
    classes, train, test : classes and images of each part, unless the config says otherwise.
    version : enters keys instead of the module's content.
    """
    facts = {"classes": classes, "train": train, "test": test, "title": title or f"registered: {name}"}
    return _decorator("dataset", name, version, **facts)


def register_augmentation(
    name: str, *, source: Literal["evaluation", "training"] = "training", version: str | None = None
) -> Callable[[Function], Function]:
    """Decorator: an augmentation policy, ``(resolution) -> transform`` of uint8 (3, H, W) to uint8 (3, R, R).

    Parameters
    ----------
    source : what is transformed: the R × R "evaluation" image, or the larger "training" image, aspect kept.
    version : enters keys instead of the module's content.
    """
    return _decorator("augmentation", name, version, source=source)


def register_statistic(
    name: str, *, description: str | None = None, version: str | None = None
) -> Callable[[Function], Function]:
    """Decorator: a statistic of an embedding, ``(emb_ND, labels_N, *, classes) -> float | None``.

    It is given the training embeddings of one layer, float32, and becomes the table's column ``name`` in every sweep
    whose config lists it under ``statistics``. None stands for: not defined here.

    Parameters
    ----------
    description : meaning and unit, kept with the column; default: the first line of the docstring.
    version : enters keys instead of the module's content.
    """
    return _decorator("statistic", name, version, description=description)


def register_probe(name: str, *, version: str | None = None) -> Callable[[Function], Function]:
    """Decorator: a probe for ``probe.solver``, ``(train, labels_N, *, classes, recipe, seed) -> scorers``.

    ``train`` holds one float32 (N, D) embedding per layer, ``recipe`` the :class:`sweep.config.Probe`. It returns one
    function per layer, from (M, D) embeddings to (M, C) scores: the highest is the prediction, and their softmax is
    what the table's losses are computed from. It is called twice, without the held-out images and with all.

    Parameters
    ----------
    version : enters keys instead of the module's content.
    """
    return _decorator("probe", name, version)


def _decorator(kind: Kind, name: str, version: str | None, **facts: Any) -> Callable[[Function], Function]:
    _check_name(kind, name)

    def register(make: Function) -> Function:
        module = str(getattr(make, "__module__", "?"))
        if (other := find_plugin(kind, name)) is not None:
            raise UserError(f"{kind} {name!r} of {module} is registered already, by {other.module}: rename one")
        code = _source_hash(make) if version is None else f"version {version}"
        _REGISTERED[kind, name] = Plugin(kind, name, make, module, code, facts)
        return make

    return register


def _check_name(kind: Kind, name: str) -> None:
    pattern = r"[a-z][a-z0-9_]*" if kind == "statistic" else r"[A-Za-z0-9][A-Za-z0-9_.-]*"
    if not re.fullmatch(pattern, name):
        raise UserError(f"{kind} {name!r}: a name must match {pattern}")
    if name in OURS[kind]:
        raise UserError(f"{kind} {name!r} is built in: choose another name")


def _source_hash(make: Callable[..., Any]) -> str:
    inner = inspect.unwrap(make.func if isinstance(make, functools.partial) else make)
    try:
        content = Path(str(inspect.getsourcefile(inner))).read_bytes()
    except (TypeError, OSError):
        raise UserError(f"{make!r} has no source file that could enter keys: give the decorator a version") from None
    return f"source {hashlib.sha256(content).hexdigest()[:20]}"


# ---------------------------------------------------------------------------------------------- imports


def load(modules: Sequence[str], directory: str | None = None) -> None:
    """Import modules for what they register; those that are imported already are left alone.

    Parameters
    ----------
    directory : appended to ``sys.path``, so that what is installed wins.

    Raises
    ------
    PluginImportError
        With the reason, and the place in the user's file where there is one.
    """
    if not modules:
        return
    if directory is not None and (place := str(Path(directory).absolute())) not in sys.path:
        sys.path.append(place)
    importlib.invalidate_caches()
    for position, name in enumerate(modules):
        try:
            with patience.limited(f"the import of {name}", IMPORT_SECONDS):
                importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            _forget_broken()
            raise PluginImportError(position, _reason(name, error, directory)) from error


def warn_of_other_doors(modules: Sequence[str]) -> None:
    """Warn at each line of the modules that imports from this program otherwise than through its public face.

    Such imports work in this release: of what the example plug-in once imported from ``sweep.config`` and
    ``sweep.data.options`` everything is where it was. What stands there may move with the next one.
    """
    for name in modules:
        try:
            text = inspect.getsource(sys.modules[name])
        except (OSError, TypeError):  # no source to look at: compiled, or built in
            continue
        for node in ast.walk(ast.parse(text)):
            for door in _doors(node):
                message = f"{door} may move after this release: a plug-in imports from {_FACE}"
                file = sys.modules[name].__file__ or name
                warnings.warn_explicit(message, FutureWarning, file, getattr(node, "lineno", 0))


def _doors(node: ast.AST) -> list[str]:
    """Modules of this program other than the public face that a statement imports."""
    own = _FACE.partition(".")[0]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        names = [f"{own}.{each.name}" for each in node.names] if node.module == own else [node.module]
    elif isinstance(node, ast.Import):
        names = [each.name for each in node.names]
    else:
        return []
    return [name for name in names if f"{name}.".startswith(f"{own}.") and name != _FACE]


def _forget_broken() -> None:
    """Drop what a module had registered before it failed: Python has dropped the module as well."""
    for key, plugin in list(_REGISTERED.items()):
        if plugin.module not in sys.modules:
            del _REGISTERED[key]


def _reason(name: str, error: BaseException, directory: str | None) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and (name + ".").startswith(error.name + "."):
        where = f"neither in {directory} nor" if directory else "not"
        return f"cannot be imported: no module {error.name!r} {where} on Python's path (set PYTHONPATH, or install it)"
    machinery = ("<frozen", str(Path(importlib.__file__).parent), __file__, str(patience.__file__))
    own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"cannot be imported: {type(error).__name__}: {error}{place}"


def check_code(expected: Mapping[str, str]) -> None:
    """Compare registered code with what keys were made from.

    Parameters
    ----------
    expected : "kind name" → :attr:`Plugin.code`, as :class:`sweep.study.keys.Keyring` has it.

    Raises
    ------
    UserError
        If a plug-in is missing here, or has other code.
    """
    registered = {plugin.label: plugin for plugin in _REGISTERED.values()}
    for label, code in expected.items():
        found = registered.get(label)
        if found is None:
            raise UserError(f"{label} is registered by no module of imports on this machine")
        if found.code != code:
            raise UserError(
                f"{label}: {found.module} is another version here ({found.code}) than where the sweep was started "
                f"({code}): bring both machines to the same code"
            )
