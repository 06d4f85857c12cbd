"""Imports of libraries that only an optional extra brings."""

import importlib
from typing import Any


def required(module: str) -> Any:
    """Import a module of the extra ``lab``, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here and comes with the extra 'lab': pip install 'lossgeom[lab]'"
        ) from error
