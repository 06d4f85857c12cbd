"""Norms of the input-output Jacobian."""

from __future__ import annotations

from lossgeom.batches import Batch
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness._input_function import InputFunction
from lossgeom.smoothness._pieces import pieces
from lossgeom.smoothness.norms import JacobianNorms, Method, Norm, joined
from lossgeom.smoothness.outputs import Outputs
from lossgeom.smoothness.search import Search


def jacobian_norms(
    problem: Problem,
    outputs: Outputs = "logits",
    *,
    norm: Norm = "spectral",
    wrt: str | int | None = None,
    embedding: str | None = None,
    method: Method | None = None,
    tol: float = 1e-3,
    max_steps: int = 100,
    probes: int = 30,
    seed: int = 0,
) -> JacobianNorms:
    r"""Norms of the input-output Jacobian at every example, in eval mode.

    .. math:: \|J_i\|_2 = \max_{\|v\| = 1} \|J_i v\|, \quad \|J_i\|_F^2 = \sum_{c, d} J_{i, cd}^2,
        \quad J_i = \partial f(x_i) / \partial x_i \in R^{C \times D}

    An example's outputs are flattened to C numbers, its inputs to D: for a sequence, all of its
    positions.

    ``"exact"`` takes all C rows, and for the spectral norm the eigenvalues, in float64, of their
    Gram matrix, C x C or D x D, whichever is smaller.
    ``"lanczos"`` iterates with J J^T or J^T J, whichever is smaller, until the residual
    ``||J J^T u - s^2 u||`` of every example is at most ``2 tol s^2``: within about tol s of s there
    is then a singular value. It goes on to a hundredth of that, where rounding lets it, because the
    second largest can pass for the largest at first; that it does not is as sure as with every
    Krylov method from a random start. ``"hutchinson"`` samples the Frobenius norm with random sign
    vectors, ``probes`` of them. Without a method, norms are exact up to 32 outputs (or as many as
    probes) and 1 GiB of rows an example, and not above.

    Cost: a forward pass and, exact, C backward passes; by Lanczos, about two for each step, some
    ten steps; sampled, one for each probe. Batches are worked on in pieces of some 32 MiB. The
    value of an example depends neither on its batch nor on the piece, up to rounding.

    Args:
        problem: model and data; the loss plays no part but to say, for a softmax of outputs of more
            than two dimensions, which one holds the classes. The mode is always eval.
        outputs: of the model as it is (``"logits"``), after a softmax over the classes
            (``"softmax"``), or what a function ``(outputs, batch)`` makes of them: a row of
            numbers for each example, with the batch as its owner wrote it.
        norm: ``"spectral"`` or ``"frobenius"``.
        wrt: which input to differentiate in, where the model takes several: the key of a keyword,
            the place of a positional one.
        embedding: name of a module whose output is differentiated in, in the place of an input:
            for tokens, their embedding.
        method: ``"exact"``, ``"lanczos"`` (spectral), ``"hutchinson"`` (Frobenius), or the cheaper.
        tol: of Lanczos iteration, between 0 and 1.
        max_steps: of Lanczos iteration; what has not converged by then says so.
        probes: to sample with, at least 2.
        seed: of the random start and the probes, drawn on the CPU.

    Returns:
        The norms, see :class:`lossgeom.JacobianNorms`.

    Raises:
        TypeError: if the model takes several inputs and none is named.
        ValueError: for settings out of their range, integer inputs without an embedding, unknown
            names, outputs that are not one row per example, outputs of one example that
            depend on another, a softmax of one output, or Lanczos iteration with a model that has
            no second derivatives, by which it multiplies.
        NonFiniteError: where an output or its Jacobian is NaN or infinite.

    Source: MacDonald et al., arXiv:2305.14683, sections 3 and 6; Golub and Van Loan, Matrix
    Computations (2013), section 10.4; Hutchinson, A stochastic estimator of the trace (1990).

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> problem = Problem(model, "cross_entropy", [(torch.ones(2, 2), torch.tensor([0, 1]))])
    >>> jacobian_norms(problem).values.tolist(), jacobian_norms(problem, norm="frobenius").max
    ([4.0, 4.0], 5.0)
    """
    search = Search(norm, method, tol, max_steps, probes, seed)
    problem = checked_problem(problem).in_mode("eval")

    def of_share(here: Problem) -> list[list[JacobianNorms]]:
        function = InputFunction(here, outputs, wrt, embedding)

        def of_batch(batch: Batch) -> list[JacobianNorms]:
            found = pieces(here, function.at, batch, search)
            return [search.of(point, chosen) for point, chosen in found]

        return here.over_batches(of_batch)

    return joined(problem.rows(of_share))
