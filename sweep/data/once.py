"""What is found out once per process, and forgotten when a new command begins."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from sweep.base.errors import UserError

Value = TypeVar("Value")
_FOUND: list[dict[Any, Any]] = []


def once(function: Callable[..., Value]) -> Callable[..., Value]:
    """Remember a function's results by its positional arguments, and what a user must mend as well."""
    found: dict[Any, Value | UserError] = {}
    _FOUND.append(found)

    @functools.wraps(function)
    def asked(*arguments: Any) -> Value:
        """The result for these arguments."""
        if arguments not in found:
            try:
                found[arguments] = function(*arguments)
            except UserError as error:
                found[arguments] = error
        result = found[arguments]
        if isinstance(result, UserError):
            raise result
        return result

    return asked


def forget_datasets() -> None:
    """Look at the files anew: a command begins, and they may have changed since the last one of this process."""
    for found in _FOUND:
        found.clear()
