"""Products with the derivative of a gradient in flat parameters, by autograd's graph of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lossgeom.losses.graphs import check_differentiable_again, graph_nodes

CUT = "SplitWithSizesBackward0"  # the node of what cuts a vector in tensors of several sizes


def second_derivative(
    result: Tensor, leaf: Float[Tensor, " P"], u: Tensor
) -> Callable[..., Float[Tensor, " P"]]:
    """Make the product with the derivative of the gradient of <u, result> in a leaf.

    A model cuts the leaf in its parameters. Gradients stay in these pieces, which saves a copy of
    all of them; products come in memory of their own.

    Args:
        result: computed from the leaf.
        leaf: what to differentiate in.
        u: in the shape of the result.

    Raises:
        ValueError: if a part of the gradient has no derivative.

    >>> theta = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> first, others = theta.split_with_sizes([1, 2])
    >>> H = second_derivative(first.square() @ others[:1], theta, torch.tensor(1.0))
    >>> H(torch.tensor([1.0, 0.0, 0.0])).tolist()
    [4.0, 2.0, 0.0]
    """
    pieces: Sequence[Any] = [leaf]
    sizes = [leaf.numel()]
    if (cut := _cut(result, leaf)) is not None:
        sizes = list(cut._saved_split_sizes)
        pieces = [GradientEdge(cut, place) for place in range(len(sizes))]
    found = (
        torch.autograd.grad(result, pieces, u, create_graph=True, allow_unused=True)
        if result.requires_grad
        else ()
    )
    places = [i for i, part in enumerate(found) if part is not None and part.requires_grad]
    gradients = [found[i] for i in places]
    check_differentiable_again(*gradients)

    def product(v: Tensor, *, last: bool = False) -> Tensor:
        if not gradients:  # they do not depend on the leaf
            return torch.zeros_like(v)
        parts = v.split_with_sizes(sizes)
        pulled = torch.autograd.grad(
            gradients,
            pieces,
            [parts[i] for i in places],
            retain_graph=not last,
            allow_unused=True,
        )
        both = zip(parts, pulled, strict=True)
        return torch.cat([torch.zeros_like(v) if Hv is None else Hv for v, Hv in both])

    return product


def _cut(result: Tensor, leaf: Tensor) -> Any:
    """The node that cuts a leaf in pieces, where a graph uses it in no other way."""
    own = get_gradient_edge(leaf).node
    users = [
        node
        for node in graph_nodes(result)
        if any(following is own for following, _ in node.next_functions)
    ]
    return users[0] if len(users) == 1 and users[0].name() == CUT else None
