"""Optimisers as dynamical systems."""

from lossgeom.stability.threshold import stability_threshold

__all__ = ["stability_threshold"]
