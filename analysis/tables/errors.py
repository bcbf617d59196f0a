"""The one exception of this half whose message is written for the person at the keyboard."""


class UserError(Exception):
    """A mistake the user can mend: shown as one message, without a traceback.

    The message names what is wrong, where it stands (file, column, row), and what would be valid.
    """
