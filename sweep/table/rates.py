"""How fast networks go, as ``--calibrate`` measured it last, left in the store for the runs that follow."""

from __future__ import annotations

import json
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
        return Rates(**json.loads(store.get(_NAME)))
    except (ValueError, TypeError) as error:
        print(f"notice: {store.path(_NAME)} is damaged ({error}); --calibrate makes it anew", file=sys.stderr)
        return None
