"""The conjugate Gauss-Newton matrix as a sum over layers, with what each summand is made of."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from lossgeom.autodiff.batch_jacobian import BatchJacobian, both_ways
from lossgeom.autodiff.hooks import Calls, Shift, detach_inputs, hooked, size_of_calls
from lossgeom.batches import Batch
from lossgeom.curvature._kept_jacobians import Jacobians
from lossgeom.curvature._parameter_matrix import output_sizes
from lossgeom.curvature.conjugate_gauss_newton import ConjugateGaussNewton
from lossgeom.curvature.output_root import OutputRoot
from lossgeom.estimate import Estimate
from lossgeom.linalg import (
    LinearOperator,
    spectral_norm,
    top_eigenpairs,
    trace,
)
from lossgeom.linalg.memory import MEMORY_BUDGET
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.agreement import ALONE, agree
from lossgeom.problem.nearby import drawn
from lossgeom.trust.trial import guard


@dataclass(frozen=True, eq=False)
class Mediators:
    r"""Numbers that say why a layer's summand is as large as it is.

    .. math:: \lambda_{\max}(K_l) \le \|C\|_2^2 \, \|T_l\|_2^2 \, \|D_l\|_2^2

    Each is measured when it is asked for first. Those of factors that the layer does not have are
    NaN.

    Attributes:
        summand: what is measured.
        tol: on the residuals of eigenvalues and squared norms, relative.
        max_matvecs: products to spend on each.
        seed: of random starts and probes.
    """

    summand: LayerSummand
    tol: float
    max_matvecs: int
    seed: int

    __repr__ = short

    def __str__(self) -> str:
        return (
            f"eigenvalue {self.eigenvalue.value:.3g}, trace {self.trace.value:.3g}, norms: root "
            f"{self.root.value:.3g}, tail {self.tail_jacobian.value:.3g}, layer "
            f"{self.layer_jacobian.value:.3g}; alignment {self.alignment:.3g}"
        )

    @cached_property
    def eigenvalue(self) -> Estimate:
        """The largest eigenvalue of the summand :math:`K_l`."""
        return top_eigenpairs(
            self.summand.matrix, tol=self.tol, max_matvecs=self.max_matvecs, seed=self.seed
        ).top

    @cached_property
    def trace(self) -> Estimate:
        """The trace of the summand."""
        return trace(self.summand.matrix, matvecs=max(self.max_matvecs, 2), seed=self.seed)

    @cached_property
    def root(self) -> Estimate:
        r""":math:`\|C\|_2`, which vanishes where cross-entropy saturates."""
        return self._norm(self.summand.root)

    @cached_property
    def tail_jacobian(self) -> Estimate:
        r""":math:`\|T_l\|_2`, of the layers after l."""
        return self._norm(self.summand.tail_jacobian)

    @cached_property
    def layer_jacobian(self) -> Estimate:
        r""":math:`\|D_l\|_2`, of the layer's outputs in its parameters."""
        return self._norm(self.summand.layer_jacobian)

    @property
    def alignment(self) -> float:
        """The eigenvalue divided by the bound, between 0 and 1."""
        bound = (self.root.value * self.tail_jacobian.value * self.layer_jacobian.value) ** 2
        return self.eigenvalue.value / bound if bound else 0.0

    def _norm(self, factor: LinearOperator | None) -> Estimate:
        if factor is None:
            return Estimate(math.nan, converged=False)
        if not min(factor.shape):
            return Estimate(0.0)
        return spectral_norm(factor, tol=self.tol, max_matvecs=self.max_matvecs, seed=self.seed)


@dataclass(frozen=True, eq=False)
class LayerSummand:
    r"""What one layer adds to the conjugate Gauss-Newton matrix.

    .. math:: K_l = C T_l D_l D_l^\top T_l^\top C^\top

    Attributes:
        name: of the layer; of all modules that share its parameters.
        parameters: names of its parameters.
        matrix: :math:`K_l`, an NC x NC operator.
        root: C, of the whole model, the same for all layers.
        tail_jacobian: :math:`T_l`, the derivative of all outputs in the layer's outputs (NC x M).
        layer_jacobian: :math:`D_l`, the derivative of the layer's outputs in its parameters
            (M x P_l), its inputs held fixed.

    The last two are ``None`` where the layer's parameters act outside calls of their modules (a
    model that reads ``layer.weight`` itself), so that no such product gives the layer's Jacobian.
    """

    name: str
    parameters: tuple[str, ...]
    matrix: ConjugateGaussNewton
    root: OutputRoot
    tail_jacobian: LinearOperator | None
    layer_jacobian: LinearOperator | None

    __repr__ = short

    def mediators(self, *, tol: float = 1e-3, max_matvecs: int = 100, seed: int = 0) -> Mediators:
        """The sizes of the summand and of its factors, each measured when it is asked for.

        Cost: some 10 to 30 products for each of the four norms, ``max_matvecs`` for the trace.

        Args:
            tol: on the residuals of eigenvalues and squared norms, relative.
            max_matvecs: products to spend on each.
            seed: of random starts and probes.
        """
        return Mediators(self, tol, max_matvecs, seed)


def layer_summands(
    problem: Problem, *, memory_budget: int = MEMORY_BUDGET
) -> tuple[LayerSummand, ...]:
    r"""The summands of the conjugate Gauss-Newton matrix, one for each layer.

    .. math:: K = \sum_l K_l, \qquad
        K_l = C \, T_l D_l D_l^\top T_l^\top \, C^\top, \qquad
        T_l = J\!f_L \cdots J\!f_{l+1}

    A layer is a module that owns parameters of the problem, together with all modules that share
    them. The tail T_l is the derivative of the outputs in what the layer puts out, through
    everything that follows, residual connections and further calls of the same layer included, so
    the identity holds for any graph of modules; it is checked for every layer with a random
    vector. The first layer's own input Jacobian is in none of the summands.

    Cost: three forward and two backward passes for each layer, before any product. Every layer's
    operators keep what their budgets allow for as long as the layer is held.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes for each operator to keep between products; 2 GiB.

    Returns:
        One for each layer, in the order of the model's modules.

    Raises:
        NonFiniteError: where the loss is NaN or infinite.

    Source: MacDonald et al., arXiv:2305.14683, eq. (4).

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> problem = Problem(model, "squared_error", [(torch.ones(4, 2), torch.ones(4, 1))])
    >>> first, last = layer_summands(problem)
    >>> first.name, first.parameters, last.layer_jacobian.shape
    ('0', ('0.weight', '0.bias'), (4, 4))
    """
    return tuple(each_layer_summand(problem, memory_budget=memory_budget))


def each_layer_summand(
    problem: Problem, *, memory_budget: int = MEMORY_BUDGET
) -> Iterator[LayerSummand]:
    """Yield what :func:`layer_summands` returns, layer by layer, each made when it is asked for.

    What one keeps between products can then be let go of before the next one is made.
    """
    root = OutputRoot(checked_problem(problem))
    guard(problem, problem.first_batch())  # once for all layers
    for modules, name, parameters in parameter_groups(problem):
        yield _summand(problem, root, modules, name, parameters, memory_budget)


def _summand(
    problem: Problem,
    root: OutputRoot,
    modules: Sequence[nn.Module],
    name: str,
    parameters: tuple[str, ...],
    memory_budget: int,
) -> LayerSummand:
    """Make that of one layer, with its factors if their product is its Jacobian."""
    own = problem.with_parameters([glob.escape(parameter) for parameter in parameters])
    matrix = ConjugateGaussNewton(own, memory_budget=memory_budget)
    tail, layer = _factors(own, modules, memory_budget)
    v = drawn(own.theta)
    holds = agree(tail @ (layer @ v), matrix.jacobian @ v, ALONE)
    return LayerSummand(
        name, parameters, matrix, root, tail if holds else None, layer if holds else None
    )


def parameter_groups(problem: Problem) -> Iterator[tuple[list[nn.Module], str, tuple[str, ...]]]:
    """Yield modules that own parameters, with those they share them with, and their names."""
    network = problem.network
    owned: dict[nn.Module, set[int]] = {}
    for module, _, place in network.slots:
        owned.setdefault(module, set()).add(place)
    names = {module: name for name, module in reversed(list(network.module.named_modules()))}
    left = list(owned)
    while left:
        group = [left.pop(0)]
        places = set(owned[group[0]])
        while sharing := [module for module in left if owned[module] & places]:
            for module in sharing:
                left.remove(module)
                group.append(module)
                places |= owned[module]
        parameters = tuple(network.names[i] for i in sorted(places) if network.shapes[i].numel())
        if parameters:
            yield group, " and ".join(names[m] or "model" for m in group), parameters


def _factors(
    problem: Problem, modules: Sequence[nn.Module], memory_budget: int
) -> tuple[LinearOperator, LinearOperator]:
    """Make the tail Jacobian and the layer Jacobian of modules that share their parameters."""
    sizes = problem.over_batches(lambda batch: size_of_calls(problem, modules, batch))

    def tail(theta: Tensor, batch: Batch) -> BatchJacobian:
        shift = theta.new_zeros(sizes[batch.index], requires_grad=True)
        with hooked(modules, Shift(shift)):
            outputs = problem.outputs(theta.detach(), batch)
        return BatchJacobian(outputs, shift, by_rows=True)

    def layer(theta: Tensor, batch: Batch) -> BatchJacobian:
        calls = Calls()
        with hooked(modules, calls, detach_inputs):
            problem.outputs(theta, batch)
        return BatchJacobian(calls.flat(theta), theta, by_rows=True)

    tails = Jacobians(problem, tail, memory_budget)
    layers = Jacobians(problem, layer, memory_budget)
    rows, theta = output_sizes(problem), problem.theta
    return (
        both_ways(
            (sum(rows), sum(sizes)),
            theta,
            lambda V: tails.push_blocks(V, sizes),
            lambda U: tails.pull_blocks(U, rows),
        ),
        both_ways(
            (sum(sizes), theta.numel()),
            theta,
            layers.push_rows,
            lambda U: layers.pull_rows(U, sizes, theta.numel()),
        ),
    )
