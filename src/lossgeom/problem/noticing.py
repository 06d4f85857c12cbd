"""What a model does around what depends on its parameters, noticed while it is called."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

OWN_FUNCTION = vars(torch.autograd.Function)["apply"].__func__.__code__


@dataclass(eq=False)
class Noticing(TorchFunctionMode):
    """Notices attention, and contexts that a model opens around what depends on its parameters.

    Attributes:
        kind: of the parameters' device.
        autocast: the type that is asked for.
        notes: what was noticed.
    """

    kind: str
    autocast: torch.dtype | None
    notes: list[str] = field(default_factory=list)

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
    """Whether numbers are computed from something that autograd would differentiate."""
    if getattr(func, "__name__", "") in ("__get__", "detach", "detach_", "size", "dim"):
        return False
    parts = [part for arg in args for part in (arg if isinstance(arg, (tuple, list)) else [arg])]
    differentiable = any(isinstance(part, Tensor) and part.requires_grad for part in parts)
    return differentiable and not _in_own_function()


def _in_own_function() -> bool:
    """Whether this runs in the forward pass of an autograd.Function, which has its own backward."""
    return any(frame.f_code is OWN_FUNCTION for frame, _ in traceback.walk_stack(None))
