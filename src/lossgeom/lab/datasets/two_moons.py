"""Two half circles that reach into each other."""

from typing import Any

import torch

from lossgeom.lab.datasets._dataset import TEST, Dataset, Options, drawn_points
from lossgeom.messages.checks import check_number
from lossgeom.messages.extras import required


def two_moons(examples: int = 200, seed: int = 0, noise: float = 0.1, **options: Any) -> Dataset:
    """Points in the plane near one of two half circles, which no line separates.

    Scaling: coordinates as they are drawn, between -1 and 2 but for noise, less their means over
    the training examples. Inputs are (N, 2) in float32, targets 0 and 1; there are 1,000 more
    examples to test on.

    Args:
        examples: to train on.
        seed: of all that is drawn.
        noise: deviation of the normal numbers that are added to each coordinate.
        **options: fields of :class:`Options`.

    Raises:
        ValueError: for no examples, or a noise below 0.
        ImportError: without scikit-learn, which the extra ``lab`` brings.

    Source: scikit-learn's ``make_moons``.

    >>> two_moons(examples=100).train[0].shape
    torch.Size([100, 2])
    """
    check_number("noise", noise, 0, at_low=True)
    made = required("sklearn.datasets").make_moons
    x, y = map(torch.tensor, made(max(examples, 0) + TEST, noise=noise, random_state=seed))
    return drawn_points((x, y), 2).chosen(examples, seed, Options(**options))
