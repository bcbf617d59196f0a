"""The one exception whose message is written for the person at the keyboard."""


class UserError(Exception):
    """A mistake the user can mend: shown as one message, without a traceback.

    The message names what is wrong, where it stands, what would be valid, and what to do next.
    """
