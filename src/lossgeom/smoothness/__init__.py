"""The model as a function of its input."""

from lossgeom.smoothness.jacobian_norm import jacobian_norms

__all__ = ["jacobian_norms"]
