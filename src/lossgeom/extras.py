"""Imports of libraries that only an optional extra brings."""

import importlib
import importlib.util
from typing import Any

LAB = ("jinja2", "matplotlib", "scipy", "sklearn")  # what the extra brings, as it is imported


def required(module: str, extra: str = "lab") -> Any:
    """Import a module of an extra, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(_missing(module, extra)) from error


def require_lab() -> None:
    """Raise if anything of the extra ``lab`` is missing, before all is computed that needs it."""
    missing = [module for module in LAB if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(_missing(", ".join(missing), "lab"))


def _missing(modules: str, extra: str) -> str:
    install = f"pip install 'lossgeom[{extra}]'"
    return f"{modules} is needed here and comes with the extra {extra!r}: {install}"
