"""SGD near a minimum: which learning rates keep it there."""

from lossgeom.stability.sgd.bounds import certainly_stable, largest_batch_sharpness
from lossgeom.stability.sgd.certificate import SGDCertificate
from lossgeom.stability.sgd.certify import certify_sgd
from lossgeom.stability.sgd.examples import (
    ExampleCurvatures,
    TooLargeError,
    example_curvatures,
)
from lossgeom.stability.sgd.mean_square import mean_square_threshold, mean_square_thresholds
from lossgeom.stability.sgd.moments import moment_threshold
from lossgeom.stability.sgd.momentum import momentum_threshold, noise_gain
from lossgeom.stability.sgd.necessary import (
    moment_constraint,
    necessary_conditions,
    noise_kernel,
    noise_kernel_threshold,
)
from lossgeom.stability.sgd.nonuniformity import coherence, nonuniformity
from lossgeom.stability.sgd.reshuffling import reshuffling_threshold
from lossgeom.stability.sgd.sampling import SAMPLINGS, Sampling, noise_share, smallest_batch
from lossgeom.stability.sgd.stationary import StationaryState, stationary_state
from lossgeom.stability.sgd.zeroth_order import zeroth_order_bounds, zeroth_order_threshold
