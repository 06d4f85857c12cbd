"""A look at a model, before it is measured, for what would make every measurement wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from lossgeom.problem.isolation import seeded
from lossgeom.problem.network import graph_nodes


def probe(
    evaluated: Callable[[Tensor], Tensor], thetas: tuple[Tensor, Tensor], live: nn.Module
) -> tuple[Tensor, list[str]]:
    """Evaluate a model twice, to find what makes it something else than a function of theta.

    Args:
        evaluated: its outputs at theta, for the same inputs each time.
        thetas: two leaves with the same numbers.
        live: the user's model, whose parameters must not be used.

    Returns:
        The outputs, and notes on what had to be switched in the evaluation.

    Raises:
        ValueError: if the model keeps state from call to call, reaches tensors that require
            gradients other than through its parameters, or uses activation checkpointing.
    """
    with disable_saved_tensors_hooks(CHECKPOINTING):
        try:
            with _Attention() as attention:
                first, second = map(evaluated, thetas)
        except RuntimeError as error:
            if CHECKPOINTING in str(error):
                raise ValueError(CHECKPOINTING) from None
            raise
    beside = leaves_before(first, second)
    kept = any(leaf is thetas[0] for leaf in beside)  # of the first call, in the second one
    if kept or not torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(
            "two evaluations of the model at the same parameters and inputs differ, so its loss is "
            "not a function of the parameters; remove what it keeps from call to call"
        )
    own = _named(live, beside)
    if beside:
        raise ValueError(
            "the model uses tensors that require gradients and are not reached as parameters of "
            "its modules (kept in a list, or by a function that holds the module); make them "
            "parameters of a module, or detach them"
            + f". They are {own} of your own model: use the model that forward= is given"
            * bool(own)
        )
    made = [leaf for leaf in _leaves(second) if leaf is not thetas[1]]
    if made:
        _check_backward(second, made)
    return first.detach(), attention.notes


def _check_backward(outputs: Tensor, leaves: list[Tensor]) -> None:
    """Go to leaves that the call made: modules may be hidden in what leads to no parameters."""
    try:
        torch.autograd.grad(outputs.sum(), leaves, allow_unused=True)
    except RuntimeError as error:  # of something that is not differentiated where one measures
        if "use_reentrant" in str(error):
            raise ValueError(CHECKPOINTING) from None


def _named(live: nn.Module, leaves: list[Tensor]) -> str:
    """Names of the parameters of the user's model among some leaves."""
    found = {id(leaf) for leaf in leaves}
    names = [name for name, p in live.named_parameters() if id(p) in found]
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def leaves_before(first: Tensor, second: Tensor) -> list[Tensor]:
    """The leaves that two graphs share, which are those that were there before both calls.

    What a call makes for itself, such as coordinates to differentiate in, is another each time.
    """
    earlier = {id(leaf): leaf for leaf in _leaves(first)}  # alive, so that ids stay theirs
    return [leaf for leaf in _leaves(second) if id(leaf) in earlier]


def _leaves(tensor: Tensor) -> Iterator[Tensor]:
    variables = (getattr(node, "variable", None) for node in graph_nodes(tensor))
    return (leaf for leaf in variables if leaf is not None)


def leaves_of_loss(
    total: Callable[[Tensor], Tensor], outputs: Tensor, thetas: tuple[Tensor, ...]
) -> list[Tensor]:
    """The leaves besides the outputs that a loss is computed from, by evaluating it twice.

    Those of the parameters' leaves count from the first time on: a loss may empty what it reads.
    """
    with seeded(outputs.device, 0), torch.enable_grad():
        first, second = (total(outputs.clone().requires_grad_()) for _ in range(2))
    shared = leaves_before(first, second)
    own = [leaf for leaf in _leaves(first) if any(leaf is theta for theta in thetas)]
    return [*shared, *own]


def notes_on_loss(leaves: list[Tensor], live: nn.Module) -> list[str]:
    """What to say of such leaves.

    Raises:
        ValueError: if they are parameters of the user's model.
    """
    own = _named(live, leaves)
    if own:
        raise ValueError(
            f"the loss uses parameters of your own model ({own}), not those that are measured in, "
            "so what depends on them would count as a constant. Compute it from the model that "
            "forward= is given, Problem(..., forward=lambda model, batch: ...), and return it with "
            "the outputs; ObjectiveHessian adds weight decay"
        )
    numbers = sum(leaf.numel() for leaf in leaves)
    return [f"parameters of the loss held fixed: {numbers} numbers"] * bool(leaves)


CHECKPOINTING = (
    "activation checkpointing computes parts of the model again after the parameters have been "
    "put back; switch it off to measure (model.gradient_checkpointing_disable() in transformers)"
)


class _Attention(TorchFunctionMode):
    """Notices the function whose default back end cannot be differentiated twice."""

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.notes: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inside = func is F.multi_head_attention_forward and not (kwargs or {}).get("need_weights")
        if (inside or func is F.scaled_dot_product_attention) and not self.notes:
            self.notes.append(
                "scaled_dot_product_attention switched to its math back end, which has second "
                "derivatives"
            )
        return func(*args, **(kwargs or {}))
