"""Files of Matlab that datasets come with."""

import importlib
import io
from typing import Any

from sweep.base.errors import UserError


def read_mat(content: bytes, what: str, **options: Any) -> dict[str, Any]:
    """The variables of a ``.mat`` file; ``what`` begins the message if it is none."""
    matlab = importlib.import_module("scipy.io.matlab")  # slow to import
    try:
        return matlab.loadmat(io.BytesIO(content), **options)
    except (matlab.MatReadError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(f"{what} cannot be read ({error}); fetch it again") from error
