"""How near the outputs are to the targets, from the largest loss of an example."""

from __future__ import annotations

import math

import torch

from lossgeom.batches import Batch
from lossgeom.losses.likelihoods import Gaussian, Softmax
from lossgeom.problem import Problem, checked_problem


def fit_of_cost(problem: Problem) -> float:
    r"""A distance that no example's outputs are farther from its targets than.

    .. math:: \|f(x_i) - f^*(x_i)\|_2 \le \ell = \sqrt{\max_i c_i / \alpha}, \qquad
        c(f, f^*) \ge \alpha \|f - f^*\|_2^2

    with the cost :math:`c_i` of example i, summed over its outputs. For half of a squared Euclidean
    norm :math:`\alpha = 1/2`, for ``nn.MSELoss()`` 1. For cross-entropy c is the cross-entropy less
    the entropy of the label, which label smoothing makes positive: the relative entropy of label
    and softmax, f is the softmax of the outputs, f* the label, smoothed, and :math:`\alpha = 1`.
    Proof: by Pinsker's inequality :math:`KL \ge \frac12 \|p - q\|_1^2`; the positive and the
    negative part of :math:`p - q` have the same sum s, so that :math:`\|p - q\|_1 = 2 s`, while
    :math:`\|p - q\|_2^2 \le 2 s^2`. Examples and positions that ``ignore_index`` leaves out have no
    targets, and are left out.

    Cost: a forward pass, and the loss of every example alone.

    Args:
        problem: with the loss ``"squared_error"``, ``"cross_entropy"`` of single examples, or the
            torch criterion of either, without weights of classes.

    Raises:
        ValueError: for another loss.

    Source: MacDonald et al., arXiv:2305.14683, theorem 5.1, for l; alpha of cross-entropy is
    derived here.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(1, 1)
    >>> _ = nn.init.ones_(model.weight), nn.init.zeros_(model.bias)
    >>> data = [(torch.tensor([[0.0], [3.0]]), torch.tensor([[0.5], [1.0]]))]
    >>> fit_of_cost(Problem(model, "squared_error", data))
    2.0
    """
    checked_problem(problem)
    likelihood, entropy = problem.criterion.likelihood, problem.criterion.label_entropy
    if isinstance(likelihood, Gaussian):
        alpha = likelihood.curvature / 2
    elif isinstance(likelihood, Softmax) and entropy is not None:
        alpha = 1.0
    else:
        raise ValueError(
            "expected a loss that bounds a squared distance, 'squared_error', 'cross_entropy' or "
            f"a torch criterion like them without weights, got {problem.criterion.name!r}"
        )

    @torch.no_grad()
    def largest(batch: Batch) -> float:
        batch = problem.in_examples(batch)
        outputs, costs = problem.outputs(problem.theta, batch), []
        for i in range(len(batch)):
            output, one = outputs[i : i + 1], batch.examples(i, i + 1)
            least = entropy(output, one) if entropy is not None else 0.0
            costs.append(problem.terms(output, one)[0].item() - least)
        return max(costs)

    found = problem.rows(lambda here: here.over_batches(largest))
    return math.sqrt(max(0.0, *found) / alpha)
