"""A look at a model, before it is measured, for what would make every measurement wrong."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from lossgeom.batches import Batch
from lossgeom.problem.evaluation import Evaluation, check_arguments
from lossgeom.problem.network import graph_nodes

OWN_FUNCTION = vars(torch.autograd.Function)["apply"].__func__.__code__
CHECKPOINTING = (
    "activation checkpointing computes parts of the model again after the parameters have been "
    "put back; switch it off to measure (model.gradient_checkpointing_disable() in transformers)"
)


def checked_outputs(
    at: Evaluation, thetas: tuple[Tensor, Tensor], batch: Batch, live: nn.Module
) -> tuple[Tensor, list[str]]:
    """Evaluate a model twice, to find what makes it something else than a function of theta.

    Args:
        at: the model.
        thetas: two leaves with the same numbers.
        batch: its inputs.
        live: the user's model, whose parameters must not be used.

    Returns:
        The outputs, and notes on what was switched in the evaluation, or is by the model.

    Raises:
        TypeError: if the inputs of the batch are not arguments of the model, or not known.
        ValueError: if the model keeps state from call to call, reaches tensors that require
            gradients other than through its parameters, or uses activation checkpointing.
    """
    with disable_saved_tensors_hooks(CHECKPOINTING):
        try:
            with _Watch(thetas[0].device.type, at.autocast) as watch:
                first, second = (at.outputs(theta, batch) for theta in thetas)
        except RuntimeError as error:
            if CHECKPOINTING in str(error):
                raise ValueError(CHECKPOINTING) from None
            raise
        except TypeError:
            if at.forward is None:
                check_arguments(at.network.module, batch)
            raise
    before, leaves = leaves_of(first), leaves_of(second)
    # what a call makes for itself, such as coordinates to differentiate in, is another each time
    beside = [leaf for key, leaf in leaves.items() if key in before]
    kept = id(thetas[0]) in leaves  # of the first call, in the second one
    if kept or not torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(
            "two evaluations of the model at the same parameters and inputs differ, so its loss is "
            "not a function of the parameters; remove what it keeps from call to call"
        )
    if beside:
        own = names_among(live, beside)
        raise ValueError(
            "the model uses tensors that require gradients and are not reached as parameters of "
            "its modules (kept in a list, or by a function that holds the module); make them "
            "parameters of a module, or detach them"
            + f". They are {own} of your own model: use the model that forward= is given"
            * bool(own)
        )
    if made := [leaf for leaf in leaves.values() if leaf is not thetas[1]]:
        _check_backward(second, made)
    return first.detach(), watch.notes


def _check_backward(outputs: Tensor, leaves: list[Tensor]) -> None:
    """Go to leaves that the call made: modules may be hidden in what leads to no parameters."""
    try:
        torch.autograd.grad(outputs.sum(), leaves, allow_unused=True)
    except RuntimeError as error:  # of something that is not differentiated where one measures
        if "use_reentrant" in str(error):
            raise ValueError(CHECKPOINTING) from None


def names_among(live: nn.Module, leaves: list[Tensor]) -> str:
    """Names of the parameters of the user's model among some leaves."""
    found = {id(leaf) for leaf in leaves}
    names = [name for name, p in live.named_parameters() if id(p) in found]
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def leaves_of(tensor: Tensor) -> dict[int, Tensor]:
    """The leaves that a tensor was computed from, by their ids."""
    variables = (getattr(node, "variable", None) for node in graph_nodes(tensor))
    return {id(leaf): leaf for leaf in variables if leaf is not None}


class _Watch(TorchFunctionMode):
    """Notices attention, and contexts that a model opens around what depends on its parameters.

    Args:
        kind: of the parameters' device.
        autocast: the type that is asked for.
    """

    def __init__(self, kind: str, autocast: torch.dtype | None) -> None:
        TorchFunctionMode.__init__(self)
        self.kind, self.autocast = kind, autocast
        self.notes: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inside = func is F.multi_head_attention_forward and not (kwargs or {}).get("need_weights")
        if inside or func is F.scaled_dot_product_attention:
            self._note(
                "scaled_dot_product_attention switched to its math back end, which has second "
                "derivatives"
            )
        if torch.is_autocast_enabled(self.kind):
            dtype = torch.get_autocast_dtype(self.kind)
            if dtype != self.autocast:
                self._note(
                    f"the model opens torch.autocast itself: what is in it is rounded to {dtype}"
                )
        if not torch.is_grad_enabled() and _computed(func, args):
            self._note(
                "the model opens torch.no_grad itself: what it computes of its parameters in there "
                "counts as a constant"
            )
        return result

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _computed(func: Any, args: Any) -> bool:
    """Whether numbers are made of something that can be differentiated, and is not by its owner."""
    if getattr(func, "__name__", "") in ("__get__", "detach", "detach_", "size", "dim"):
        return False
    parts = [part for arg in args for part in (arg if isinstance(arg, (tuple, list)) else [arg])]
    differentiable = any(isinstance(part, Tensor) and part.requires_grad for part in parts)
    return differentiable and not _in_own_function()


def _in_own_function() -> bool:
    """Whether this is called in the forward of an autograd.Function, which has its backward."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is OWN_FUNCTION:
            return True
        frame = frame.f_back
    return False
