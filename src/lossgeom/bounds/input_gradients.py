"""Gradients in the input of a model, from how flat its loss is, or from the settings of SGD."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lossgeom.bounds._numbers import Number, Terms, bounded, checked, mapped, rounded
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.bounds.stable_gradients import STABLE, stable_gradients
from lossgeom.lipschitz import Bracket
from lossgeom.losses.likelihoods import Gaussian
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness import multiplicative_inequality, sobolev_seminorms, vector_layers
from lossgeom.smoothness.multiplicative_inequality import MultiplicativeInequality
from lossgeom.stability.sgd import SGDCertificate

PAPER = "Ma and Ying (arXiv:2105.13462)"
FIRST = Assumption(
    "the outputs depend on the input through the product with the first layer's weights alone",
    "declared",
)


def input_gradients(
    weight_norm: Number,
    smallest_input: Number,
    gradients: Number,
    *,
    order: int = 1,
) -> Bound:
    r"""Bound the gradients of a model in its input by those in the weights of its first layer.

    .. math:: g_x^{(k)} \le \frac{\|W_1^\top\|_{2k \to 2k}}{\min_i \|x_i\|_{2k}} \, g_{W_1}^{(k)}

    with the seminorms of :func:`lossgeom.sobolev_seminorms`, elementwise. Proof: the gradient in
    W_1 is :math:`u x_i^\top` and that in the input :math:`W_1^\top u`, at every example and output.

    Args:
        weight_norm: the operator norm of the transposed weights; that of ``order`` k is
            ``operator_norm`` of :func:`lossgeom.multiplicative_inequality`.
        smallest_input: the smallest l_2k norm of an input.
        gradients: g_W1 of order k, or what it is at most.
        order: k.

    Returns:
        An upper bound, infinite for an input of zero, at which the gradients in the weights are
        zero and those in the input need not be; in outputs per unit of input.

    Raises:
        ValueError: for negative numbers.

    Source: Ma and Ying, arXiv:2105.13462.

    >>> round(input_gradients(5.0, 2.0, 3.0).value, 9)
    7.5
    """
    numbers = {
        "norm of the first layer": weight_norm,
        "1 / smallest input": mapped(smallest_input, torch.reciprocal),
        "gradients in its weights": gradients,
    }

    def terms(norm: Tensor, inverse: Tensor, g: Tensor) -> Terms:
        most = math.inf if inverse.isinf() else float(inverse * g)
        return {"gradients": 0.0 if norm == 0 else float(norm) * most}

    return bounded(
        numbers, terms, epsilon=0.0, assumptions=(FIRST,), source=PAPER, trivial=math.inf,
        quantity=f"the seminorm of the gradients in the input, g_x of order {order},",
    )  # fmt: skip


def input_gradient_bounds(
    problem: Problem, order: int = 1, sgd: SGDCertificate | None = None
) -> dict[str, Bound]:
    r"""Bound the gradients of a model in its input by all that is known of it.

    ``"first layer"`` is :func:`input_gradients` as it stands. ``"flatness"`` has those in all
    parameters in the place of those in W_1: of order 1 they are the root of the trace of the
    Hessian, where the loss is ``"squared_error"`` and every example is fitted. Where the first
    layer has a trained bias, whose gradient is u, the inputs are one number longer:

    .. math:: g_x^{(k)} \le \frac{\|W_1^\top\|}{\min_i (\|x_i\|_{2k}^{2k} + 1)^{1/2k}} \, g_W^{(k)}

    ``"SGD"`` has in its place what :func:`stable_gradients` says of them, from the learning rate
    and the batch size alone.

    Args:
        problem: a squared error, with a first layer that maps each example's input; the latter two
            are left out for a convolution, in whose weights gradients may cancel.
        order: k.
        sgd: what :func:`lossgeom.certify_sgd` says of SGD at this point.

    Returns:
        The bounds by name, certified for a problem in float64 but for what SGD is declared to do.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`lossgeom.multiplicative_inequality`.
        ValueError: if SGD is unstable here, or the loss is not a squared error.

    Source: Ma and Ying, arXiv:2105.13462; the length of inputs with a bias is derived here.

    >>> import torch
    >>> from lossgeom import certify_sgd
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> x = torch.tensor([[1.0], [2.0]]).double()
    >>> problem = Problem(model, "squared_error", [(x, model(x).detach())])
    >>> sgd = certify_sgd(problem, lr=0.2, batch_size=1)
    >>> bounds = input_gradient_bounds(problem, sgd=sgd)
    >>> w = model.weight.item()
    >>> [round(bound.value / abs(w), 4) for bound in bounds.values()]  # of |w|, which it is
    [1.5811, 1.5811, 3.1623]
    """
    problem = checked_problem(problem).in_mode("eval")
    found = multiplicative_inequality(problem, [order])[order]
    norm = rounded(problem, found.operator_norm)
    layer, its_weights = found.smallest_input, found.layer_seminorm
    sides = rounded(problem, layer), rounded(problem, its_weights)
    bounds = {"first layer": checked(input_gradients(norm, *sides, order=order))}
    biased = vector_layers(problem).get(found.layer)
    if biased is None:
        return bounds
    length = rounded(problem, (layer ** (2 * order) + biased) ** (0.5 / order))
    flat = sobolev_seminorms(problem, "parameters", [order]).elementwise[order]
    bounds["flatness"] = checked(input_gradients(norm, length, rounded(problem, flat), order=order))
    if sgd is not None:
        bounds["SGD"] = _by_sgd(problem, found, norm, length, sgd, biased=biased)
    return bounds


def _by_sgd(
    problem: Problem,
    found: MultiplicativeInequality,
    norm: Number,
    length: Number,
    sgd: SGDCertificate,
    *,
    biased: bool,
) -> Bound:
    """The same with gradients in the first layer from the settings of SGD."""
    if sgd.state == "unstable":
        raise ValueError(
            "expected SGD to be stable at this point, where its settings bound the gradients; "
            f"it is unstable: {sgd.reasons[0]}"
        )
    stable = replace(STABLE, status="checked" if sgd.state == "stable" else "declared")
    layer: Any = problem.network.module.get_submodule(found.layer)
    weights = layer.out_features * (layer.in_features + biased)
    k = found.k
    moment = stable_gradients(
        sgd.lr, sgd.batch_size, sgd.examples, k, weights=weights, outputs=found.left.shape[1],
        momentum=sgd.momentum, sampling=sgd.sampling, stable=stable,
    )  # fmt: skip
    scale = loss_curvature(problem) ** k
    gradients = Bracket.exactly((moment.value / scale) ** (0.5 / k))
    bound = checked(input_gradients(norm, length, gradients, order=k))
    return replace(
        bound,
        assumptions=(*bound.assumptions, *moment.assumptions),
        source=f"{PAPER}; {moment.source}",
    )


def loss_curvature(problem: Problem) -> float:
    """The number s for which the loss has the Hessian s I in the outputs of an example."""
    loss, batch = problem.criterion, problem.in_examples(problem.first_batch())
    if not isinstance(loss.likelihood, Gaussian) or not loss.average:
        raise ValueError(
            f"expected a mean squared error, whose Hessian in the outputs is the same everywhere, "
            f"got the loss {loss.name!r}"
        )
    with torch.no_grad():
        _, count = loss.terms(problem.outputs(problem.theta, batch), batch)
    return loss.likelihood.curvature * len(batch) / float(count)
