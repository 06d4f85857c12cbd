"""Kronecker factors of the Gauss-Newton blocks of linear and convolutional layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature._layers import Layer
from lossgeom.curvature.layer_rows import Curvature, LayerRows, layer_rows
from lossgeom.linalg import plain_arithmetic
from lossgeom.linalg.kronecker_product import KroneckerEigenbasis, KroneckerProduct
from lossgeom.messages.reprs import short
from lossgeom.messages.wording import unknown
from lossgeom.problem import NoBatchesError, Problem, checked_problem

Sharing = Literal["expand", "reduce"]
Block = KroneckerProduct | KroneckerEigenbasis


@dataclass(frozen=True, eq=False, repr=False)
class KroneckerFactors:
    r"""The two factors of a layer's block.

    .. math:: K = E[M] \otimes E[x x^\top]

    on vec(W) in row-major order: the entry of output i and input j is at i n + j.

    Attributes:
        name: of the layer; of all modules that share its parameters.
        parameters: names of its weight, and of its bias if it has one.
        joined: whether the last input is the 1 that the bias is the weight of.
        inputs: :math:`E[x x^\top]`, not centred.
        outputs: E[M], in which the scale of the loss is.
        mean_input: E[x].
        eigenbasis: of K, with eigenvalues that were corrected; ``None`` where none were.
        bias_eigenbasis: the same of the block of a bias that is not joined.
    """

    name: str
    parameters: tuple[str, ...]
    joined: bool
    inputs: Float[Tensor, "n n"]
    outputs: Float[Tensor, "m m"]
    mean_input: Float[Tensor, " n"]
    eigenbasis: KroneckerEigenbasis | None = None
    bias_eigenbasis: KroneckerEigenbasis | None = None

    __repr__ = short

    @property
    def matrix(self) -> Block:
        """K, an mn x mn operator: the block of the weight, or of weight and bias if joined."""
        return self.eigenbasis or KroneckerProduct(self.outputs, self.inputs)

    @property
    def bias_matrix(self) -> Block | None:
        """E[M], an m x m operator: the block of a bias that is not joined, if there is one."""
        if self.joined or len(self.parameters) == 1:
            return None
        one = self.outputs.new_ones(1, 1)
        return self.bias_eigenbasis or KroneckerProduct(self.outputs, one)

    @property
    def corrected(self) -> Float[Tensor, "m n"] | None:
        """The corrected eigenvalues of K, if they were asked for."""
        return None if self.eigenbasis is None else self.eigenbasis.values


def kronecker_factors(
    problem: Problem,
    *,
    curvature: Curvature = "exact",
    sharing: Sharing = "expand",
    bias: bool = False,
    corrected: bool = False,
    seed: int = 0,
    samples: int = 1,
) -> tuple[KroneckerFactors, ...]:
    r"""Kronecker factors of the Gauss-Newton blocks of linear and convolutional layers.

    .. math:: H_l = \frac{1}{n} \sum_b M_b \otimes x_b x_b^\top \approx
        \Big(\frac{1}{n} \sum_b M_b\Big) \otimes \Big(\frac{1}{N} \sum_b x_b x_b^\top\Big)
        = E[M] \otimes E[x x^\top], \qquad M_b = U_b^\top \nabla^2_f s_b\, U_b

    for N examples with inputs x of a layer, the derivative U of the model's outputs f in the
    layer's outputs, the summed loss s and its number of terms n. Between piecewise linear
    activations the sum on the left is the Hessian's block, and for others the Gauss-Newton
    matrix's. An example whose targets are all ignored counts in neither factor.

    Where a layer acts at S positions of an example (tokens, the patches of a convolution, several
    calls), the block is that of :math:`G = \sum_s g_s x_s^\top`, with gradients g at the
    positions, and the factors approximate it further: ``"expand"`` takes the positions of all
    examples as rows, the sums of :math:`g_s g_s^\top` and the mean of :math:`x_s x_s^\top`;
    ``"reduce"`` takes one row for each example, :math:`\sum_s g_s` and the mean of :math:`x_s`.

    Memory: m^2 + n^2 numbers for each layer, beside one batch with its graph, the patches of one
    layer, and gradients at what layers put out, of as many columns at once as 256 MiB hold.
    Splitting the data into other batches changes nothing.

    Cost: a forward pass, and a backward pass without gradients in the parameters for each column
    of the root: as many as an example has outputs for ``"exact"``, ``samples`` for ``"sampled"``,
    one for each target of an example for ``"empirical"``; all of it twice with ``corrected``.

    Args:
        problem: the loss and where to take it.
        curvature: ``"exact"`` takes the Hessian of the loss in the outputs, as
            :class:`GaussNewton` does: the decoupling of a Hessian, and KFAC "of type 2".
            ``"sampled"`` takes gradients at targets that the model draws, right in expectation
            (KFAC proper); ``"empirical"`` those at the true targets, as :class:`EmpiricalFisher`.
        sharing: ``"expand"`` or ``"reduce"``.
        bias: whether to join the bias, as the weight of a last input that is 1.
        corrected: whether to put the diagonal of the exact blocks in the eigenbasis of the factors
            in the place of its eigenvalues (EKFAC): the best of all matrices in this basis.
        seed: of the targets that are drawn.
        samples: for each observation.

    Returns:
        Those of each layer, in the order of the modules. Parameters of other modules, and of
        layers that are used in other ways than by calls on rows of the examples, are left out, and
        ``problem.notes`` say why. A layer that is called several times, or shares its parameters
        with others, has all positions of all calls.

    Raises:
        ValueError: for a model without such layers; a loss that is not convex in the outputs, or
            has no known likelihood to sample from; more than 2048 outputs of an example with
            ``"exact"``.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261 (decoupling); Martens and Grosse,
    arXiv:1503.05671 (KFAC); Grosse and Martens, arXiv:1602.01407 (convolutions); Eschenhagen et
    al., arXiv:2311.00636 (expand and reduce); George et al., arXiv:1806.03884 (EKFAC).

    >>> from torch import nn
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(x, torch.zeros(2, 1))])
    >>> (factors,) = kronecker_factors(problem)
    >>> factors.inputs, factors.outputs
    (tensor([[1., 1.],
            [1., 2.]]), tensor([[1.]]))
    """
    if sharing not in get_args(Sharing):
        raise ValueError(unknown("sharing", sharing, get_args(Sharing)))
    checked_problem(problem)
    over = partial(layer_rows, problem, curvature=curvature, bias=bias, seed=seed, samples=samples)
    sums: dict[Layer, _Sums] = {}

    def add(rows: LayerRows) -> None:
        facts = rows.layer.name, rows.layer.parameters, rows.joined
        sums.setdefault(rows.layer, _Sums(facts)).add(rows, sharing == "reduce")

    with plain_arithmetic(problem.theta.device):
        terms = over(add)
        told = problem.ranks.gathered([own.facts for own in sums.values()])
        if (layers := next(filter(None, told), None)) is None:
            raise NoBatchesError
        each = sums.values() or map(_Sums, layers)  # where only other processes have data
        factors = [own.factors(problem, terms) for own in each]
        return tuple(_corrected(problem, factors, over) if corrected else factors)


class _Sums:
    """The sums that the factors of a layer are made of, ``None`` without data.

    Attributes:
        facts: the layer's name, those of its parameters, and whether the bias is joined.
    """

    def __init__(self, facts: tuple[str, tuple[str, ...], bool]) -> None:
        self.facts = facts
        self.outputs: Any = None
        self.inputs: Any = None
        self.input: Any = None
        self.rows = 0

    def add(self, rows: LayerRows, reduced: bool) -> None:
        x, g = rows.inputs, rows.gradients
        self.outputs = _with_squares(self.outputs, g.sum(2) if reduced else g)
        if rows.first:
            x = (x.mean(1) if reduced else x).flatten(0, -2)
            self.inputs = _with_squares(self.inputs, x)
            self.input = x.sum(0) if self.input is None else self.input + x.sum(0)
            self.rows += len(x)

    def factors(self, problem: Problem, terms: float) -> KroneckerFactors:
        outputs, divisor = problem.reduced(
            lambda _: [(self.outputs, terms)] * (self.outputs is not None)
        )
        added = problem.ranks.sum
        N = max(added(self.rows), 1)
        return KroneckerFactors(
            *self.facts,
            inputs=added(self.inputs) / N,
            outputs=outputs / divisor,
            mean_input=added(self.input) / N,
        )


def _with_squares(total: Tensor | None, rows: Float[Tensor, "... n"]) -> Float[Tensor, "n n"]:
    """Add the squares v v^T of rows to a sum, in place but for the first."""
    flat = rows.flatten(0, -2)
    return flat.T @ flat if total is None else total.addmm_(flat.T, flat)


def _corrected(
    problem: Problem, factors: Sequence[KroneckerFactors], over: Callable[..., float]
) -> list[KroneckerFactors]:
    """Put the diagonal of the exact blocks in the place of the eigenvalues."""
    sums = {}
    for own in factors:
        basis = own.matrix.eigenbasis()
        sums[own.name] = basis, torch.zeros_like(basis.values), torch.zeros_like(own.outputs[0])

    def add(rows: LayerRows) -> None:
        basis, total, apart = sums[rows.layer.name]
        g, x = rows.gradients @ basis.left, rows.inputs @ basis.right
        apart += g.sum(2).square().sum((0, 1))
        if x.shape[1] == 1:
            total.addmm_(g.square().sum(0)[:, 0].T, x[:, 0].square())
            return
        for of_one, at in zip(g.unbind(1), x, strict=True):  # K S m and S n
            total += (of_one.mT @ at).square().sum(0)

    terms = over(add)
    added, divisor = problem.ranks.sum, problem.reduced(lambda _: [(0.0, terms)])[1]
    together = [torch.cat([total, apart[:, None]], 1) for _, total, apart in sums.values()]
    found = []
    for own, (basis, *_), both in zip(factors, sums.values(), together, strict=True):
        values, one = added(both) / divisor, own.outputs.new_ones(1, 1)
        weights = KroneckerEigenbasis(basis.left, basis.right, values[:, :-1])
        biases = KroneckerEigenbasis(basis.left, one, values[:, -1:])
        found.append(replace(own, eigenbasis=weights, bias_eigenbasis=biases))
    return found
