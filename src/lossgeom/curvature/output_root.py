"""A root of the loss Hessian in the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch
from lossgeom.curvature._linear_losses import note_if_linear
from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.linalg import LinearOperator, MatrixFree, plain_arithmetic
from lossgeom.losses.likelihoods import Likelihood
from lossgeom.problem import Problem, checked_problem

LARGEST_BLOCK = 2048  # outputs of one example whose loss Hessian is decomposed densely
NEGATIVE = 1e-6  # of the largest eigenvalue; below, rounding and not a concave loss

RowProduct = Callable[[Tensor], Tensor]


class OutputRoot(ProblemMatrix):
    r"""C, a root of the Hessian of the empirical loss in all outputs, an NC x NC matrix.

    .. math:: C^\top C = \nabla^2_f \gamma(f), \quad \gamma(f) = \sum_b s_b(f) / \sum_b n_b

    It has a block for each observation. For cross-entropy with probabilities p the block is
    :math:`\sqrt{w / n}\, \mathrm{diag}(\sqrt p)(I - 1 p^\top)`, in closed form; for squared errors
    it is a multiple of the identity, and for any other loss the symmetric root of the example's
    Hessian. Where the paper takes the symmetric root throughout, another root turns C J J^T C^T by
    an orthogonal matrix, and changes neither spectrum nor norms.

    Args:
        problem: the loss and where to take it.

    Cost: one forward pass, when it is first used; for a loss without a known likelihood as many
    products with the loss Hessian as an example has outputs.

    Raises:
        ValueError: if the loss is not convex in the outputs, depends on several examples at once,
            or is none with a known likelihood and has more than 2048 outputs per example.
        NonFiniteError: where the loss is NaN or infinite.

    Source: MacDonald et al., arXiv:2305.14683, eq. (4).

    >>> from torch import nn
    >>> data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    >>> OutputRoot(Problem(nn.Linear(1, 1), "squared_error", data)).dense().diagonal()
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    rows = "outputs"
    columns = "outputs"
    degree = 0.5

    def __init__(self, problem: Problem) -> None:
        with checked_problem(problem).data.kept():  # which others do not share, or an error
            self.problem = problem

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return MatrixFree.like(
            self, lambda U: self._multiply(U, transposed=True), lambda: self, size=self.shape
        )

    def matmat(self, V: Float[Tensor, "NC k"]) -> Float[Tensor, "NC k"]:
        return self._multiply(V, transposed=False)

    def _multiply(self, U: Tensor, transposed: bool) -> Tensor:
        blocks, scale = self.problem.cached(_blocks)
        pieces = torch.split(U, [block.outputs.numel() for block in blocks])
        with plain_arithmetic(self.device):
            results = []
            for block, piece in zip(blocks, pieces, strict=True):
                product = block.transposed if transposed else block.product
                columns = [product(u.reshape(block.outputs.shape)) for u in piece.unbind(1)]
                results.append(torch.stack([c.reshape(-1) for c in columns], dim=1))
            return scale * torch.cat(results)


def _blocks(problem: Problem) -> tuple[list[BatchRoot], float]:
    """Roots of the summed loss of each batch, and the root of what sums are divided by."""
    found = problem.over_batches(lambda batch: _block(problem, batch))
    if problem.criterion.likelihood is None:
        problem.cached(note_if_linear)
    _, divisor = problem.reduced(lambda _: ((0.0, block.count) for block in found))
    return found, divisor**-0.5


@torch.no_grad()
def _block(problem: Problem, batch: Batch) -> BatchRoot:
    return batch_root(problem, problem.outputs(problem.theta, batch), batch)


def batch_root(problem: Problem, outputs: Tensor, batch: Batch) -> BatchRoot:
    """Make the root of the Hessian of the summed loss of a batch at its outputs."""
    likelihood = problem.criterion.likelihood
    if likelihood is None:
        with torch.enable_grad():
            return _from_blocks(LossAtOutputs.of(problem, outputs, batch), problem.criterion.name)
    _, count = problem.terms(outputs, batch)
    return _from_likelihood(likelihood, outputs, batch, count)


@dataclass(frozen=True, eq=False)
class BatchRoot:
    """C and its transpose on the outputs of one batch."""

    outputs: Tensor
    count: float
    product: RowProduct
    transposed: RowProduct


def _from_likelihood(
    likelihood: Likelihood, outputs: Tensor, batch: Batch, count: float
) -> BatchRoot:
    f = likelihood.rows(outputs)
    scale = likelihood.weights(outputs, batch).sqrt()

    def product(u: Tensor) -> Tensor:
        return likelihood.unrows(scale * likelihood.root(f, likelihood.rows(u)), outputs)

    def transposed(u: Tensor) -> Tensor:
        scaled = scale * likelihood.rows(u)
        return likelihood.unrows(likelihood.root_transposed(f, scaled), outputs)

    return BatchRoot(outputs, count, product, transposed)


def _from_blocks(loss: LossAtOutputs, name: str) -> BatchRoot:
    """Symmetric roots of the Hessian of each example's loss."""
    loss.check_separable(name)
    outputs = loss.outputs.detach()
    B, c = len(outputs), outputs[0].numel()
    if c > LARGEST_BLOCK:
        raise ValueError(
            f"the loss {name!r} has no known likelihood, and its Hessian in {c} outputs of an "
            f"example is too large to decompose; expected at most {LARGEST_BLOCK}"
        )
    blocks = outputs.new_zeros(B, c, c)
    for j in range(c):
        unit = torch.zeros_like(outputs).reshape(B, c)
        unit[:, j] = 1
        blocks[:, :, j] = loss.curve(unit.reshape(outputs.shape)).reshape(B, c)
    values, vectors = torch.linalg.eigh(blocks.double())
    if values.min() < -NEGATIVE * values.abs().max():
        raise ValueError(
            f"the loss {name!r} is not convex in the outputs (curvature {values.min():.3g}), so "
            "its Hessian there has no root, and the Gauss-Newton matrix no conjugate"
        )
    root = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.transpose(1, 2)
    root = root.to(outputs)
    shape = outputs.shape

    def product(u: Tensor) -> Tensor:
        rows: Tensor = root @ u.reshape(B, c, 1)
        return rows.reshape(shape)

    return BatchRoot(outputs, loss.count, product, product)
