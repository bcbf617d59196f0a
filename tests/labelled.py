"""The table of a sweep as far as it is done, without writing it."""

from sweep import driver, table


def labelled(sweep):
    """Rows of the finished curves of a prepared sweep, in plan order, with their labels."""
    done = table.listing(sweep.store).done
    return table.labelled_probes(sweep.store, [curve for curve in driver.plan_of(sweep).curves if curve.key in done])
