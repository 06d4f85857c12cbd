"""Training loops, one in each file: generators that yield the step."""

from lossgeom.lab.training._drawn import batch_of_step
from lossgeom.lab.training.gradient_descent import gradient_descent
from lossgeom.lab.training.optimize import optimize
from lossgeom.lab.training.sgd import sgd

TRAINING = {"gradient_descent": gradient_descent, "optimize": optimize, "sgd": sgd}
