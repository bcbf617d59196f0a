"""DuckDB over a store of probes, with the views of ``views.sql``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis.tables import continual, readings, stored
from analysis.tables.errors import UserError
from analysis.tables.metrics import ACCURACIES

if TYPE_CHECKING:
    import duckdb

VIEWS = Path(__file__).with_name("views.sql")


def connect(found: stored.Stored, *, accuracy: str = "heldout") -> duckdb.DuckDBPyConnection:
    """Open a database in memory whose views read the store when they are asked.

    Parameters
    ----------
    accuracy : key of :data:`analysis.tables.metrics.ACCURACIES`; ``SET VARIABLE accuracy`` changes it later.

    Raises
    ------
    UserError
        If DuckDB is not installed, or the probes lack a column that the views need.
    """
    try:
        import duckdb
    except ImportError:
        raise UserError("DuckDB is not installed: pip install 'tunnel-sweep[browse]'") from None
    if accuracy not in ACCURACIES:
        raise UserError(f"accuracy {accuracy}: must be one of {', '.join(ACCURACIES)}")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("source", found.probes)
    connection.register("planned", found.planned)
    connection.register("failure_records", found.failures)
    if (place := readings.beside(found.uri)) is not None:
        connection.register("readings", readings.dataset(place))
    if (courses := continual.named(found.uri, found.about.get("name"))) is not None:
        connection.register("continual", courses)
    connection.execute(f"SET VARIABLE accuracy = '{accuracy}'")
    try:
        connection.execute(VIEWS.read_text(encoding="utf-8"))
    except duckdb.BinderException as error:
        raise UserError(f"{found.uri}: not a table of probes ({str(error).splitlines()[0]})") from None
    return connection
