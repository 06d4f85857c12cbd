"""How models are trained: loops, which yield the step, and what they are made of."""

from lossgeom.lab.training._drawn import batch_of_step
from lossgeom.lab.training.ascents import ASCENTS, asam, sam
from lossgeom.lab.training.gradient_descent import gradient_descent
from lossgeom.lab.training.gradient_flow import gradient_flow
from lossgeom.lab.training.objective import Objective, Quantity, Regularizer, objective_of
from lossgeom.lab.training.optimize import optimize
from lossgeom.lab.training.optimizers import OPTIMIZERS, OptimizerSettings
from lossgeom.lab.training.schedules import SCHEDULES, ramp
from lossgeom.lab.training.sgd import sgd
from lossgeom.lab.training.stop_rules import STOP_RULES

TRAINING = {
    "gradient_descent": gradient_descent,
    "gradient_flow": gradient_flow,
    "optimize": optimize,
    "sgd": sgd,
}
