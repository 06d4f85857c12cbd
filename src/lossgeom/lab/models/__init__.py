"""Models, one in each file: settings and a seed that give a module."""

from lossgeom.lab.models.mlp import mlp

MODELS = {"mlp": mlp}

__all__ = ["MODELS", "mlp"]
