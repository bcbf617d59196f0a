"""ID training: weights that are loaded, or trained and put into the store.

The face of the room stands in ``__init__.pyi``; what it names is imported when it is first asked for, so that a config
is checked without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
