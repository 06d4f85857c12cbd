"""The generalised Gauss-Newton matrix of the empirical loss."""

from __future__ import annotations

from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch
from lossgeom.curvature._linear_losses import note_if_linear
from lossgeom.curvature._parameter_matrix import OutputSandwich, Product
from lossgeom.losses.likelihoods import Likelihood, NoLikelihoodError
from lossgeom.problem import Problem


class GaussNewton(OutputSandwich):
    r"""The P x P Gauss-Newton matrix: the Hessian less the curvature of the model.

    .. math:: G = \sum_b J_b^\top \nabla^2_f s_b \, J_b / \sum_b n_b

    with J the Jacobian of the outputs f of batch b in the flat parameters and the Hessian of the
    summed loss s in those outputs. It is positive semi-definite where the loss is convex in the
    outputs, as cross-entropy and squared error are. It is zero for a loss that is linear in them,
    such as ``nn.L1Loss``, and the notes of the problem then say so. ``nn.NLLLoss`` of
    log-probabilities is taken as the cross-entropy that it is.

    A product takes J v, the loss Hessian's product with it, and J^T of that. What it needs is kept
    as in :class:`Hessian`. Where the loss has a likelihood, its Hessian is taken in closed form:
    second derivatives of a log-softmax lose all digits in single precision as its margin grows.

    Cost of a product: 1 to 2 gradients if all is kept, three if nothing is.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.

    Raises:
        NonFiniteError: from a product, where the loss is NaN or infinite.

    Source: Schraudolph, Fast curvature matrix-vector products (2002); MacDonald et al.,
    arXiv:2305.14683, eq. (3).

    >>> import torch
    >>> from torch import nn
    >>> from lossgeom import Problem
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> GaussNewton(Problem(model, "squared_error", [(x, torch.zeros(2, 1))])).dense()
    tensor([[1., 1.],
            [1., 2.]])
    """

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        product = super().matmat(V)
        if not product.any() and V.any():
            self.problem.cached(note_if_linear)
        return product

    def weighting(self, problem: Problem, outputs: Tensor, batch: Batch) -> tuple[Product, float]:
        likelihood, at = problem.criterion.likelihood, outputs.detach()
        if likelihood is not None:
            with suppress(NoLikelihoodError):
                _, count = problem.terms(at, batch)
                return _curvature(likelihood, at, likelihood.weights(at, batch)), count
        loss = LossAtOutputs.of(problem, outputs, batch)
        return loss.curve, loss.count


def _curvature(likelihood: Likelihood, outputs: Tensor, weights: Tensor) -> Product:
    """Multiply by the loss Hessian in closed form, in single precision at least."""
    wide = torch.promote_types(outputs.dtype, torch.float32)
    f = likelihood.rows(outputs).to(wide)

    def product(u: Tensor) -> Tensor:
        rows = likelihood.hessian(f, likelihood.rows(u).to(wide))
        return likelihood.unrows(weights * rows, outputs).to(u.dtype)

    return product
