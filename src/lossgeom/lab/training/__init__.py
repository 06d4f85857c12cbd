"""Training loops, one in each file: generators that yield the step."""

from lossgeom.lab.training.gradient_descent import gradient_descent

TRAINING = {"gradient_descent": gradient_descent}

__all__ = ["TRAINING", "gradient_descent"]
