"""The number that an optimiser's threshold of stability is compared with."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from lossgeom.curvature.preconditioned_hessian import check_current
from lossgeom.estimate import Estimate
from lossgeom.linalg import top_eigenpairs
from lossgeom.problem import Problem
from lossgeom.stability.optimizer_state import optimizer_state


def effective_sharpness(
    problem: Problem,
    *optimizers: Optimizer,
    tol: float = 1e-3,
    max_matvecs: int = 100,
    start: Tensor | None = None,
    seed: int = 0,
) -> Estimate:
    r"""The largest eigenvalue of the matrix that decides about an optimiser's stability.

    .. math:: \lambda_{\max}(P^{-1/2} H P^{-1/2})

    of :class:`lossgeom.PreconditionedHessian`; or of the Hessian itself, or with weight decay, for
    SGD with one learning rate. Full-batch training is at the edge of stability where it is
    ``stability_threshold(*optimizers)``, whose ``matrix`` says which of these it is. With a
    preconditioner it has no unit and contains the learning rates.

    Cost: as of :func:`lossgeom.sharpness`, 10 to 25 Hessian-vector products on most networks, each
    about two gradients over all the data.

    Args:
        problem: where the model of the optimisers is now.
        optimizers: all of the model, also inside those of Accelerate or Lightning.
        tol: on the residual, relative to the eigenvalue.
        max_matvecs: products to spend; more than that and ``converged`` is False.
        start: (P,) vector to start from, such as the eigenvector at a nearby point.
        seed: of the random start.

    Returns:
        The eigenvalue with its residual, ``converged``, ``matvecs`` and ``verified``.

    Raises:
        TypeError: if one is not an optimiser, or there is none.
        ValueError: if no threshold of theirs is known, they do not update all parameters of the
            problem, have taken no step yet, or the model has been trained since the problem was
            made.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Cohen et al., Adaptive gradient methods at the edge of stability, arXiv:2207.14484.

    >>> import torch, lossgeom as lg
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = lg.Problem(model, "squared_error", [(torch.ones(1, 1), torch.ones(1, 1))])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> effective_sharpness(problem, optimizer).value / lg.stability_threshold(optimizer)
    0.25
    """
    matrix = optimizer_state(problem, *optimizers).matrix(problem)
    check_current(problem, *optimizers)
    return top_eigenpairs(matrix, tol=tol, max_matvecs=max_matvecs, start=start, seed=seed).top
