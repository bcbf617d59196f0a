"""A probe as something to use elsewhere: network up to the layer, pooling, classifier, labels, pixels, a loader.

The face of the room stands in ``__init__.pyi``; what it names is imported when it is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
