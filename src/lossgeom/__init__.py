"""Measure the geometry of a loss and the smoothness of its model, and say what follows.

The public names are listed in :mod:`lossgeom._public`. They are imported, and torch with them, when
the first of them is used: the command line is in control before that.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing's own takes longer to import than the rest of this
if TYPE_CHECKING:
    from lossgeom._public import *  # noqa: F403

    __version__: str
else:

    def __getattr__(name):
        public = importlib.import_module("lossgeom._public")
        if name not in ("__all__", "__version__", *public.__all__):
            raise AttributeError(f"module 'lossgeom' has no attribute {name!r}")
        globals()[name] = getattr(public, name)  # where it is found from then on
        return globals()[name]


def __dir__() -> list[str]:
    public = importlib.import_module("lossgeom._public")
    return [*public.__all__, "__version__"]
