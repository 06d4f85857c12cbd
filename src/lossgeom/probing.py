"""A look at a model, before it is measured, for what would make every measurement wrong."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from lossgeom.network import Call, Mode, Network, graph_nodes


def probe(
    network: Network, theta: Tensor, calls: tuple[Call, Call], mode: Mode, seed: Any
) -> list[str]:
    """Make the same call twice, to find what makes a model something else than a function of theta.

    Returns:
        Notes on what had to be switched in the evaluation.

    Raises:
        ValueError: if the model keeps state from call to call, reaches tensors that require
            gradients other than through its parameters, or uses activation checkpointing.
    """
    with disable_saved_tensors_hooks(CHECKPOINTING):
        try:
            with _Attention() as attention:
                first, second = (network(theta, call, mode, seed) for call in calls)
        except RuntimeError as error:
            if CHECKPOINTING in str(error):
                raise ValueError(CHECKPOINTING) from None
            raise
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(
            "two evaluations of the model at the same parameters and inputs differ, so its loss is "
            "not a function of the parameters; remove what it keeps from call to call"
        )
    if any(getattr(node, "variable", theta) is not theta for node in graph_nodes(first)):
        raise ValueError(
            "the model uses tensors that require gradients and are not reached as parameters of "
            "its modules (kept in a list, or by a function that holds the module); make them "
            "parameters of a module, or detach them"
        )
    notes: list[str] = attention.notes
    return notes


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
