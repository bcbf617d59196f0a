"""How fast networks go, as ``--calibrate`` measured it last, left in the store for the runs that follow."""

from __future__ import annotations

import json
import math
import sys

from sweep.base.store import Store
from sweep.study import Rates

_FOLDER = "calibration/"
_NAME = f"{_FOLDER}rates.json"


def publish_rates(store: Store, rates: Rates) -> None:
    """Leave rates, in place of earlier ones."""
    store.put(_NAME, json.dumps(rates.said(), indent=1).encode())


def kept_rates(store: Store) -> Rates | None:
    """The rates that were left, or None; damaged ones are passed over with a notice."""
    if _NAME not in store.names(_FOLDER):  # a listing is answered with a reason where it is refused, a look is not
        return None
    try:
        return _checked(Rates(**json.loads(store.get(_NAME))))
    except (ValueError, TypeError, AttributeError) as error:
        print(f"notice: {store.path(_NAME)} is damaged ({error}); --calibrate makes it anew", file=sys.stderr)
        return None


def _checked(rates: Rates) -> Rates:
    """ValueError or TypeError if a value is of another type than it was left with."""
    tables = [rates.training, rates.extraction, rates.least, rates.memory, *rates.packing.values()]
    numbers = [rates.products, rates.card, *(value for table in tables for value in table.values())]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("a rate that is no number")
    if not isinstance(rates.device, str) or not isinstance(rates.kind, str):
        raise ValueError("no device")
    return rates
