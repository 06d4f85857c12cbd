"""Optimisers as dynamical systems."""

from lossgeom.curvature import unwrapped_optimizer
from lossgeom.stability.adaptive_sharpness import adaptive_sharpness
from lossgeom.stability.batch_sharpness import batch_sharpness
from lossgeom.stability.critical_step import CriticalStep, critical_sharpness, critical_step
from lossgeom.stability.directional_sharpness import directional_sharpness
from lossgeom.stability.edge_factors import EdgeFactors, edge_factors
from lossgeom.stability.edge_series import EdgeSeries
from lossgeom.stability.effective_sharpness import effective_sharpness
from lossgeom.stability.eigenspace_share import eigenspace_share
from lossgeom.stability.linear_filter import LinearFilter, edge
from lossgeom.stability.live_critical_step import live_critical_step
from lossgeom.stability.optimizer_state import OptimizerState, optimizer_state
from lossgeom.stability.realised_edge import realised_edge
from lossgeom.stability.rounding import loss_rounding
from lossgeom.stability.self_stabilisation import (
    SelfStabilisation,
    noise_along,
    plateau_gap,
    self_stabilisation,
)
from lossgeom.stability.sgd import (
    ExampleCurvatures,
    SGDCertificate,
    certify_sgd,
    example_curvatures,
    mean_square_threshold,
)
from lossgeom.stability.threshold import Threshold, stability_threshold
from lossgeom.stability.undefined import UndefinedError
from lossgeom.stability.update_curvature import update_curvature
from lossgeom.stability.verdict import edge_verdict
from lossgeom.stability.verdict_text import Verdict
from lossgeom.stability.worst_case_sharpness import worst_case_sharpness_lower
