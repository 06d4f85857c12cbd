"""Second moment of the gradients of observations."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch, tensors_of
from lossgeom.curvature._parameter_matrix import OutputSandwich, Product
from lossgeom.losses.likelihoods import Softmax
from lossgeom.problem import Problem
from lossgeom.problem.examples import SecondDimensionError


class EmpiricalFisher(OutputSandwich):
    r"""The P x P empirical Fisher matrix: the sum of squares of the gradients of observations.

    .. math:: F = \sum_b \sum_{o \in b} g_o g_o^\top \Big/ \sum_b n_b, \quad
        g_o = J_o^\top \nabla_f s_o

    with the terms s of the observations o. An observation is one target of a cross-entropy (a
    token, a pixel), and one example of any other loss. Unlike every curvature it scales with the
    square of the loss, and it is not a curvature: away from a perfect fit of the right likelihood
    it differs from the Fisher matrix (Kunstner et al., arXiv:1905.12558).

    Cost of a product: 1 to 2 gradients if all is kept, three if nothing is.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.

    Raises:
        ValueError: from a product, if the loss of one example depends on the outputs of others, or
            examples lie along the second dimension.
        NonFiniteError: from a product, where the loss is NaN or infinite.

    >>> import torch
    >>> from torch import nn
    >>> from lossgeom import Problem
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> problem = Problem(model, "squared_error", [(x, torch.tensor([[2.0], [4.0]]))])
    >>> EmpiricalFisher(problem).dense()
    tensor([[2., 0.],
            [0., 8.]])
    """

    degree = 2.0

    def weighting(self, problem: Problem, outputs: Tensor, batch: Batch) -> tuple[Product, float]:
        U, count = observed_gradients(problem, outputs, batch)
        likelihood = problem.criterion.likelihood

        def weigh(u: Tensor) -> Tensor:
            rows = u.reshape(len(u), -1) if likelihood is None else likelihood.rows(u)
            found: Tensor = U * (U * rows).sum(1, keepdim=True)
            if likelihood is None:
                return found.reshape(outputs.shape)
            return likelihood.unrows(found, outputs)

        return weigh, count


def observed_gradients(
    problem: Problem, outputs: Tensor, batch: Batch
) -> tuple[Float[Tensor, "M c"], float]:
    """Take the gradient of each observation's terms in its outputs; also their number of terms.

    There is a row for each target of a cross-entropy, or example of any other loss.
    """
    likelihood = problem.criterion.likelihood
    if not isinstance(likelihood, Softmax):
        _check_first_dimension(problem, outputs, batch)
    loss = LossAtOutputs.of(problem, outputs, batch)
    residual = loss.residual.detach()
    if likelihood is not None:
        return likelihood.rows(residual), loss.count
    loss.check_separable(problem.criterion.name)
    return residual.reshape(len(residual), -1), loss.count


def _check_first_dimension(problem: Problem, outputs: Tensor, batch: Batch) -> None:
    """Refuse rows of outputs that are time steps, where the model looks like that."""
    steps = [t for t in tensors_of(batch.inputs) if t.ndim > 1 and t.shape[:2] == outputs.shape[:2]]
    if outputs.ndim < 2 or not steps:
        return
    try:
        problem.in_examples(batch, mixed=True)
    except SecondDimensionError:
        raise
    except Exception:  # of examples that cannot be taken apart, which need not be here
        return
