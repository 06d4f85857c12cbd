"""Optimisers as dynamical systems."""

from lossgeom.stability.threshold import Threshold, stability_threshold
