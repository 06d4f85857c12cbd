"""Norms of the Jacobian of each example's outputs in the parameters."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness._parameter_function import parameter_function
from lossgeom.smoothness._pieces import pieces
from lossgeom.smoothness.norms import JacobianNorms, Method, Norm, joined
from lossgeom.smoothness.outputs import Outputs, check_outputs, chosen
from lossgeom.smoothness.search import Search
from lossgeom.trust.trial import Trial, few_of


def parameter_jacobian_norms(
    problem: Problem,
    outputs: Outputs = "logits",
    *,
    norm: Norm = "spectral",
    method: Method | None = None,
    tol: float = 1e-3,
    max_steps: int = 100,
    probes: int = 30,
    seed: int = 0,
) -> JacobianNorms:
    r"""Norms of the Jacobian of every example's outputs in the parameters, in eval mode.

    .. math:: \|J_i\|_2, \|J_i\|_F, \quad
        J_i = \partial f(x_i; \theta) / \partial \theta \in R^{C \times P}

    The squared spectral norm is the largest eigenvalue of the example's own block of the neural
    tangent kernel, and the squared Frobenius norm its trace.

    Cost: for each example by itself, a forward pass and what :func:`jacobian_norms` takes; without
    a method, exact up to 32 outputs and 1 GiB of rows. Memory C P numbers where it is exact, some
    times P and a basis of outputs by Lanczos iteration. Of models whose parameters are all in
    Linear layers that are called once, with one vector for each example, the norms are those in
    what the layers put out, and batched: that takes as long as norms in the input.

    Args:
        problem: model and data; the parameters are those that the problem is measured in.
        outputs: of which the Jacobian is taken, see :func:`jacobian_norms`, and so for the others.
        norm: ``"spectral"`` or ``"frobenius"``.
        method: ``"exact"``, ``"lanczos"`` (spectral), ``"hutchinson"`` (Frobenius), or the cheaper.
        tol: of Lanczos iteration, between 0 and 1.
        max_steps: of Lanczos iteration.
        probes: to sample with, at least 2.
        seed: of the random start and the probes, drawn on the CPU.

    Returns:
        The norms, in units of output per unit of parameter.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`jacobian_norms` does.

    Source: MacDonald et al., arXiv:2305.14683, section 3 (the norms of their Df).

    >>> from torch import nn
    >>> data = [(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.ones(2, 1))]
    >>> problem = Problem(nn.Linear(2, 1, bias=False), "squared_error", data)
    >>> parameter_jacobian_norms(problem).values.tolist()
    [5.0, 1.0]
    """
    check_outputs(outputs)
    search = Search(norm, method, tol, max_steps, probes, seed)
    problem = checked_problem(problem).in_mode("eval")

    def of_batch(here: Problem, batch: Batch) -> list[JacobianNorms]:
        batch = here.in_examples(batch)
        if callable(outputs):
            _check_alone(here, outputs, batch)
        function = parameter_function(here, outputs, batch, scaled=True)
        if not function.others:
            found = pieces(here, function.at, batch, search)
            return [search.of(point, chosen) for point, chosen in found]
        points = (function.at(batch.examples(i, i + 1)) for i in range(len(batch)))
        return [search.of(point, search.choice(point)) for point in points]

    return joined(problem.rows(lambda here: here.over_batches(partial(of_batch, here))))


@torch.no_grad()
def _check_alone(problem: Problem, outputs: Outputs, batch: Batch) -> None:
    """Refuse a function of outputs that gives an example others when others are beside it."""

    def at(examples: Batch) -> Tensor:
        return chosen(problem, outputs, problem.outputs(problem.theta, examples), examples)

    few, _ = few_of(batch)
    alone = torch.cat([at(few.examples(i, i + 1)) for i in range(len(few))])
    if not Trial(problem, few).agree(alone, at(few)):
        raise ValueError(
            "expected the outputs of one example to depend on its own inputs alone, but they "
            "depend on other examples in the batch"
        )
