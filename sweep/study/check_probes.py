"""What a config asks of its probes: a solver that there is, and keys that this solver reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweep import register
from sweep.config import AUTO, CONVERGED, NO_PENALTY_KEYS, PENALTIES, Config, KeyPath, Problem
from sweep.study.grid import block_values, probes_of


def solvers(config: Config) -> Iterator[Problem]:
    """Solvers of probes, in the ``probe`` section and in rules."""
    valid = register.names("probe")
    asked: list[tuple[KeyPath, Any]] = [(("probe", "solver"), config.probe.solver)]
    asked += [
        (("rules", number, "probe", "solver"), rule.probe["solver"])
        for number, rule in enumerate(config.rules)
        if "solver" in rule.probe
    ]
    for path, solver in asked:
        if solver not in valid:
            yield Problem(path, solver, "no such probe solver", valid)


def kept_probes(config: Config) -> Iterator[Problem]:
    """Weights can be kept of our own solvers only: a plug-in's probe is a function."""
    if config.keep_probes is None:
        return
    for values in (values for block in config.grid for values in block_values(block)):
        probes, _ = probes_of(config, values)
        if register.find_ours("probe", probes[0].solver) is None:
            message = f"solver {probes[0].solver} is a plug-in's, which gives scores and no weights to keep"
            yield Problem(("keep_probes",), config.keep_probes, message)
            return


def probe_steps(config: Config) -> Iterator[Problem]:
    """Keys of a solver that takes steps, where the one that holds takes none: a config that means the papers' probe."""
    sections: list[tuple[KeyPath, Mapping[str, Any]]] = [
        (("rules", number, "probe"), rule.probe) for number, rule in enumerate(config.rules)
    ]
    if all(probe.get("solver", CONVERGED) == CONVERGED for _, probe in sections):  # else they may be meant for a rule
        section = config.probe
        sections.append((("probe",), {key: getattr(section, key) for key in section.model_fields_set}))
    for path, given in sections:
        folds, solver = given.get("folds", 1), given.get("solver", config.probe.solver)
        if folds not in (1, "auto") and solver != CONVERGED:
            yield Problem((*path, "folds"), folds, f"solver {solver} is not cross-fitted: only {CONVERGED} is", ("1",))
        if given.get("epochs") == AUTO and solver not in (CONVERGED, "adamw"):
            yield Problem(
                (*path, "epochs"), AUTO, f"solver {solver} has no epochs that end by themselves: only adamw has"
            )
        if solver == CONVERGED:
            for key in NO_PENALTY_KEYS:
                if key in given:
                    message = f"solver {CONVERGED} has no such key: leave it out, or say solver: adamw, the papers'"
                    value = given[key][0] if isinstance(given[key], tuple) and len(given[key]) == 1 else given[key]
                    yield Problem((*path, key), value, message)


def probe_sweeps(config: Config) -> Iterator[Problem]:
    """Lists of the probe section that its solver has no use for."""
    for values in (values for block in config.grid for values in block_values(block)):
        probes, seeds = probes_of(config, values)
        solver, rates = probes[0].solver, tuple(dict.fromkeys(probe.lr for probe in probes))
        if solver in PENALTIES and len(rates) > 1:
            yield Problem(("probe", "lr"), list(rates), f"solver {solver} has no learning rate: list weight_decay")
            return
        if solver in PENALTIES and seeds > 1:
            yield Problem(("probe", "seeds"), seeds, f"solver {solver} draws nothing at random", ("1",))
            return
