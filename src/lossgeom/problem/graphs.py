"""The graphs that autograd makes, and what they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

NOT_DIFFERENTIABLE = ("Error", "DelayedError", "NotImplemented")  # names of autograd's nodes


def leaves_of(tensor: Tensor) -> dict[int, Tensor]:
    """The leaves that a tensor was computed from, by their ids."""
    variables = (getattr(node, "variable", None) for node in graph_nodes(tensor))
    return {id(leaf): leaf for leaf in variables if leaf is not None}


def graph_nodes(tensor: Tensor) -> Iterator[Any]:
    """The nodes of the graph that a tensor was computed by, each once."""
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            todo += [following for following, _ in node.next_functions]


def check_differentiable_again(gradient: Tensor) -> None:
    """Refuse a gradient with a part that has no derivative; autograd would take it as zero."""
    if any(node.name().split("::")[-1] in NOT_DIFFERENTIABLE for node in graph_nodes(gradient)):
        raise ValueError(
            "the model uses an operation without second derivatives (such as a "
            "once_differentiable function); what is made of them would be wrong"
        )
