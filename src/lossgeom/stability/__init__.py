"""Optimisers as dynamical systems."""

from lossgeom.stability.threshold import Threshold, stability_threshold

__all__ = ["Threshold", "stability_threshold"]
