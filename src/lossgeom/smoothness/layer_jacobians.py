"""Jacobians of the outputs in what a linear layer is called with."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness._linear_layer import layer_at
from lossgeom.smoothness._parameter_function import parameter_function
from lossgeom.smoothness._pieces import pieces
from lossgeom.smoothness.exact import all_rows, checked
from lossgeom.smoothness.search import Search


def vector_layers(problem: Problem) -> dict[str, bool]:
    r"""Linear layers that map one vector of each example, and whether their bias is trained.

    The gradient of an output in their weight is :math:`u h^\top`, with what they are called with,
    h, and the gradient in what they put out, u; that is tried on a few examples. The weight and
    the bias are parameters of the problem, and nothing else uses them. Convolutions, and layers
    that map every token of an example, add up such products, which may cancel.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1, bias=False))
    >>> problem = Problem(model, "squared_error", [(torch.ones(4, 2), torch.zeros(4, 1))])
    >>> vector_layers(problem)
    {'0': True, '2': False}
    """
    problem = checked_problem(problem).in_mode("eval")

    def of_share(here: Problem) -> list[dict[str, bool]]:
        batch = here.in_examples(here.first_batch())
        return [parameter_function(here, "logits", batch, scaled=False).layers]

    return problem.rows(of_share)[0]


def layer_singular_values(problem: Problem, layer: str | None = None) -> Float[Tensor, "N n"]:
    r"""Singular values of the Jacobian in what a layer is called with, the largest first.

    .. math:: J_l(x_i) = \partial f(x_i) / \partial h_{l-1}

    along the way through the layer; n is the smaller one of its sizes C and D.

    Cost: C backward passes, and a decomposition of C x D numbers for each example.

    Args:
        problem: model and data; the loss plays no part, and the mode is always eval.
        layer: as for :func:`lossgeom.multiplicative_inequality`.

    Raises:
        TypeError, ValueError, NonFiniteError: as there.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    >>> model[1].weight.data = torch.tensor([[3.0, 4.0]])
    >>> problem = Problem(model, "squared_error", [(torch.ones(2, 2), torch.zeros(2, 1))])
    >>> layer_singular_values(problem, "1").tolist()
    [[5.0], [5.0]]
    """
    problem = checked_problem(problem).in_mode("eval")
    every_row = Search(method="exact")

    def of_batch(here: Problem, batch: Batch) -> Tensor:
        batch = here.in_examples(batch)
        found = layer_at(here, batch, layer)
        points = pieces(here, lambda part: found.at(here, part), batch, every_row)
        D = found.input_shape.numel()
        rows = [checked(all_rows(point))[..., :D].double() for point, _ in points]
        values: Tensor = torch.linalg.svdvals(torch.cat(rows))
        return values

    return torch.cat(problem.rows(lambda here: here.over_batches(partial(of_batch, here))))
