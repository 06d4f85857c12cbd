"""The dimension of the set that the points of a data set seem to lie on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.messages.checks import check_whole
from lossgeom.messages.extras import required

FEWEST = 22  # points: one of the methods looks at 20 neighbours


@dataclass(frozen=True)
class IntrinsicDimension:
    """Two estimates of the dimension of the support of a distribution.

    Attributes:
        two_nearest_neighbours: from the ratios of the distances to the two nearest points.
        maximum_likelihood: from the distances to the 20 nearest points.
        N: how many points there were.

    >>> found = IntrinsicDimension(Estimate(2.0), Estimate(1.9), N=1000)
    >>> f"{found.rate(4000)}"
    '0.547879, predicted'
    """

    two_nearest_neighbours: Estimate
    maximum_likelihood: Estimate
    N: int

    def rate(self, N: int) -> Estimate:
        r"""Extrapolate by which factor the covering radius falls with N points in place of these.

        .. math:: \Big( \frac{\log N / N}{\log N_0 / N_0} \Big)^{1/d}

        with the larger estimate d. It is Theorem 4.2 of arXiv:2305.14683 for a smooth support and a
        constant density on it, which no data set is known to have: a prediction, no bound.
        """
        check_whole(2, N=N)
        d = max(self.two_nearest_neighbours.value, self.maximum_likelihood.value)
        ratio = (math.log(N) / N) / (math.log(self.N) / self.N)
        return Estimate(ratio ** (1 / d), predicted=True)


def intrinsic_dimension(points: Float[Tensor, "N D"]) -> IntrinsicDimension:
    r"""Estimate the intrinsic dimension of data, by scikit-dimension.

    Where the density hardly changes from a point to its nearest ones, the ratio :math:`r_2 / r_1`
    of the distances to the two nearest has the distribution function :math:`1 - \mu^{-d}`, to which
    d is fitted, without the largest tenth. By maximum likelihood
    :math:`1 / d = \mathrm{mean}_{i, j < k} \log (r_{ik} / r_{ij})` with k = 20, which is a little
    small near the border of the support. Both are small in high dimensions, where no point has
    near ones.

    Cost: the nearest points of each, N^2 D at most.

    Args:
        points: at least 22, all different, of at least 2 coordinates.

    Raises:
        ValueError: for fewer points, or two that are the same, or numbers that are not finite.
        ImportError: without scikit-dimension, which the extra ``dimension`` brings.

    Source: Facco et al., arXiv:1803.06992; Levina and Bickel, Maximum Likelihood Estimation of
    Intrinsic Dimension (2004), with the mean of MacKay and Ghahramani (2005).

    >>> import torch
    >>> from lossgeom.bounds import Cube
    >>> plane = Cube(2).sample(2000) @ torch.ones(2, 5).triu().double()
    >>> found = intrinsic_dimension(plane)
    >>> round(found.two_nearest_neighbours.value, 1), round(found.maximum_likelihood.value, 1)
    (2.0, 1.9)
    """
    rows = points.double().cpu().numpy()
    different = len(np.unique(rows, axis=0))
    if len(rows) < FEWEST or different < len(rows):
        raise ValueError(
            f"expected at least {FEWEST} points, all different, got {len(rows)}, of which "
            f"{different} are different: points.unique(dim=0) leaves each once"
        )
    methods = required("skdim.id")
    two, likeliest = (float(m.fit(rows).dimension_) for m in (methods.TwoNN(), methods.MLE()))
    return IntrinsicDimension(Estimate(two), Estimate(likeliest), len(rows))
