"""The exceptions that mean something beyond their place."""


class UserError(Exception):
    """A mistake the user can mend: shown as one message, without a traceback.

    The message names what is wrong, where it stands, what would be valid, and what to do next.
    """


class StorageError(OSError):
    """The store of a sweep cannot be read or written now: disk full, read-only, network, credentials."""

    def __init__(self, errno: int | None, message: str) -> None:
        super().__init__(errno, message)

    def __str__(self) -> str:
        return str(self.args[1])


class DeviceError(Exception):
    """A device or its driver has failed: no fault of what was computed, another place may do it.

    Attributes
    ----------
    node : where it happened, once the driver's task has noted it.
    """

    node: str | None = None


class InterruptedSweepError(Exception):
    """A signal ended the run early; what is finished is kept."""
