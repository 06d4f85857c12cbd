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
        if name == "__all__":
            return [name for name in __dir__() if not name.startswith("_")]
        if name == "__version__" or not name.startswith("_"):
            public = importlib.import_module("lossgeom._public")
            if hasattr(public, name):
                globals()[name] = getattr(public, name)  # where it is found from then on
                return globals()[name]
        raise AttributeError(f"module 'lossgeom' has no attribute {name!r}")


def __dir__() -> list[str]:
    public = importlib.import_module("lossgeom._public")
    return sorted(name for name in vars(public) if name == "__version__" or name[0] != "_")
