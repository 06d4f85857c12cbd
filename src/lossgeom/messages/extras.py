"""Imports of libraries that only an optional extra brings."""

import importlib
import importlib.util
from typing import Any

# What is imported where it is used, and the smallest extra that brings it.
EXTRAS = {
    "PIL": "datasets",
    "accelerate": "accelerate",
    "datasets": "datasets",
    "jinja2": "report",
    "lightning": "lightning",
    "matplotlib": "plot",
    "mlflow": "mlflow",
    "pandas": "tables",
    "pyarrow": "tables",
    "ray": "ray",
    "scipy": "numerics",
    "skdim": "dimension",
    "sklearn": "lab",
    "submitit": "slurm",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "transformers": "transformers",
    "wandb": "wandb",
}
LAB = ("jinja2", "matplotlib", "scipy", "sklearn")  # what that extra brings, as it is imported


def required(module: str) -> Any:
    """Import a module of an extra, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(_missing(module, EXTRAS[name])) from error


def require_lab() -> None:
    """Raise if anything of the extra ``lab`` is missing, before all is computed that needs it."""
    missing = [module for module in LAB if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(_missing(", ".join(missing), "lab"))


def _missing(modules: str, extra: str) -> str:
    install = f"pip install 'lossgeom[{extra}]'"
    return f"{modules} is needed here and comes with the extra {extra!r}: {install}"
