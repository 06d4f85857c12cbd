"""The Hessian of the empirical loss."""

from __future__ import annotations

from lossgeom.curvature._parameter_matrix import GradientDerivative


class Hessian(GradientDerivative):
    r"""The P x P Hessian of the empirical loss in the flat parameters.

    .. math:: H = \sum_b \nabla^2 s_b(\theta) / \sum_b n_b

    with the sum of terms s and their number n of each batch. What a product needs besides the
    vector is computed once per batch, in pieces of large batches, and kept as long as it holds no
    more than ``memory_budget`` bytes; for the rest it is computed anew for every block of vectors.

    Cost of a product: 1.2 to 2 gradients if all is kept, three if nothing is.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.
        compiled: whether products that are recorded, of models with convolutions, are compiled by
            ``torch.compile``, each shape compared at its first use; the problem's ``notes`` say
            where that does not do. On a CPU it takes 6 to 9 seconds and makes products no faster.

    Raises:
        NonFiniteError: from a product, where the loss is NaN or infinite.

    Source: Pearlmutter, Fast exact multiplication by the Hessian (1994).

    >>> import torch
    >>> from torch import nn
    >>> from lossgeom import Problem
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> Hessian(Problem(model, "squared_error", [(x, torch.zeros(2, 1))])).dense()
    tensor([[1., 1.],
            [1., 2.]])
    """
