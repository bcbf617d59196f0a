from .export import export as export
from .found import find as find
