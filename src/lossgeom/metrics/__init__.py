"""Tracked quantities, one in each file: settings that turn a Problem or Step into an Estimate."""

from lossgeom.metrics._metric import Metric
from lossgeom.metrics.accuracy import Accuracy
from lossgeom.metrics.accuracy_under_attack import AccuracyUnderAttack
from lossgeom.metrics.adaptive_sharpness import AdaptiveSharpness
from lossgeom.metrics.alignment import Alignment
from lossgeom.metrics.batch_sharpness import BatchSharpness
from lossgeom.metrics.certified_accuracy import CertifiedAccuracy
from lossgeom.metrics.critical_sharpness import CriticalSharpness
from lossgeom.metrics.critical_step import CriticalStep
from lossgeom.metrics.directional_sharpness import DirectionalSharpness
from lossgeom.metrics.edge_ratio import EdgeRatio
from lossgeom.metrics.effective_sharpness import EffectiveSharpness
from lossgeom.metrics.geometry import Geometry
from lossgeom.metrics.gradient_cosine import GradientCosine
from lossgeom.metrics.gradient_norm import GradientNorm
from lossgeom.metrics.in_mode import InMode
from lossgeom.metrics.jacobian_norm import JacobianNorm
from lossgeom.metrics.lipschitz_global import LipschitzGlobal
from lossgeom.metrics.local_variation import LocalVariation
from lossgeom.metrics.loss import Loss
from lossgeom.metrics.memory import Memory
from lossgeom.metrics.momentum_batch_sharpness import MomentumBatchSharpness
from lossgeom.metrics.parameter_jacobian_norm import ParameterJacobianNorm
from lossgeom.metrics.plateau_gap import PlateauGap
from lossgeom.metrics.progressive_sharpening import ProgressiveSharpening
from lossgeom.metrics.realised_edge import RealisedEdge
from lossgeom.metrics.sampling_error import SamplingError
from lossgeom.metrics.self_stabilisation import SelfStabilisation
from lossgeom.metrics.sharpness import Sharpness
from lossgeom.metrics.sobolev_seminorm import SobolevSeminorm
from lossgeom.metrics.step import Step, StepMetric
from lossgeom.metrics.structure import Structure
from lossgeom.metrics.update_curvature import UpdateCurvature
from lossgeom.metrics.update_norm import UpdateNorm
from lossgeom.metrics.worst_case_sharpness import WorstCaseSharpnessLower

METRICS: tuple[type[Metric], ...] = (
    Loss,
    Accuracy,
    GradientNorm,
    Sharpness,
    AdaptiveSharpness,
    WorstCaseSharpnessLower,
    BatchSharpness,
    JacobianNorm,
    ParameterJacobianNorm,
    SobolevSeminorm,
    LipschitzGlobal,
    LocalVariation,
    AccuracyUnderAttack,
    CertifiedAccuracy,
    SamplingError,
)

STEP_METRICS: tuple[type[StepMetric], ...] = (
    EdgeRatio,
    EffectiveSharpness,
    RealisedEdge,
    UpdateCurvature,
    CriticalStep,
    CriticalSharpness,
    GradientCosine,
    MomentumBatchSharpness,
    DirectionalSharpness,
    UpdateNorm,
    Alignment,
    ProgressiveSharpening,
    SelfStabilisation,
    PlateauGap,
    Sharpness,
)

__all__ = [
    "METRICS",
    "STEP_METRICS",
    "Accuracy",
    "AccuracyUnderAttack",
    "AdaptiveSharpness",
    "Alignment",
    "BatchSharpness",
    "CertifiedAccuracy",
    "CriticalSharpness",
    "CriticalStep",
    "DirectionalSharpness",
    "EdgeRatio",
    "EffectiveSharpness",
    "Geometry",
    "GradientCosine",
    "GradientNorm",
    "InMode",
    "JacobianNorm",
    "LipschitzGlobal",
    "LocalVariation",
    "Loss",
    "Memory",
    "Metric",
    "MomentumBatchSharpness",
    "ParameterJacobianNorm",
    "PlateauGap",
    "ProgressiveSharpening",
    "RealisedEdge",
    "SamplingError",
    "SelfStabilisation",
    "Sharpness",
    "SobolevSeminorm",
    "Step",
    "StepMetric",
    "Structure",
    "UpdateCurvature",
    "UpdateNorm",
    "WorstCaseSharpnessLower",
]
