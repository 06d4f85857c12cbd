"""A polynomial of one variable, to be regressed on a few points."""

from typing import Any

import torch
from torch import Tensor

from lossgeom.lab.datasets._dataset import Dataset, Options, regressed
from lossgeom.messages.checks import check_whole


def chebyshev(examples: int = 20, seed: int = 0, degree: int = 3, **options: Any) -> Dataset:
    r"""A Chebyshev polynomial on equally spaced points of the interval from -1 to 1.

    .. math:: x_i = -1 + 2 (i - 1) / (N - 1), \qquad y_i = T_k(x_i) = \cos(k \arccos x_i)

    without noise. The test examples are the points half way between those to train on. The seed
    decides the order of both and nothing else.

    Scaling: none; inputs and targets are (N, 1) in float32, from -1 to 1.

    Args:
        examples: N, to train on, 2 or more.
        seed: of their order.
        degree: k.
        **options: ``input_scale`` and ``target_scale`` of :class:`Options`; there are no labels.

    Raises:
        ValueError: for fewer than 2 examples, a degree below 0, or options that are for labels.

    Source: Cohen et al., Gradient descent on neural networks typically occurs at the edge of
    stability, arXiv:2103.00065, whose toy regression has 20 such points.

    >>> x, y = chebyshev(examples=5, degree=2).train
    >>> torch.allclose(y, 2 * x**2 - 1, atol=1e-6)
    True
    """
    check_whole(0, degree=degree)
    if examples < 2:
        raise ValueError(f"expected 2 examples or more to train on, got {examples}")
    x = torch.linspace(-1, 1, examples, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)

    def on(points: Tensor) -> tuple[Tensor, Tensor]:
        points = points[torch.randperm(len(points), generator=generator), None]
        return points.float(), torch.cos(degree * torch.arccos(points)).float()

    train, test = on(x), on((x[1:] + x[:-1]) / 2)
    told = f"none; the Chebyshev polynomial of degree {degree} from -1 to 1"
    return regressed(train, test, told, Options(**options))
