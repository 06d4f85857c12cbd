"""Optimisers as dynamical systems."""

from lossgeom.stability.optimizer_state import OptimizerState, optimizer_state
from lossgeom.stability.threshold import Threshold, stability_threshold
