"""What a first batch shows of a model, besides what makes measuring wrong: what has to be said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossgeom.batches import Batch

AGREEMENT = 1e-3  # relative, of outputs that only rounding tells apart
ROUNDED_AGREEMENT = 5e-2  # under autocast
OWN_FUNCTION = vars(torch.autograd.Function)["apply"].__func__.__code__


class OpenedContexts(TorchFunctionMode):
    """Notices contexts that a model opens itself, around what is computed from its parameters.

    Args:
        device: of the parameters.
        autocast: the type that is asked for.
    """

    def __init__(self, device: torch.device, autocast: torch.dtype | None) -> None:
        TorchFunctionMode.__init__(self)
        self.notes: list[str] = []
        self._kind, self._autocast = device.type, autocast
        self._unseen = {"autocast", "no_grad"}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "autocast" in self._unseen and torch.is_autocast_enabled(self._kind):
            dtype = torch.get_autocast_dtype(self._kind)
            if dtype != self._autocast:
                self._unseen.remove("autocast")
                self.notes.append(
                    f"the model opens torch.autocast itself: what is in it is rounded to {dtype}"
                )
        if "no_grad" in self._unseen and not torch.is_grad_enabled() and _computed(func, args):
            self._unseen.remove("no_grad")
            self.notes.append(
                "the model opens torch.no_grad itself: what it computes of its parameters in there "
                "counts as a constant"
            )
        return result


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


def depends_on_others(
    run: Callable[[Batch], Tensor], outputs: Tensor, batch: Batch, rounded: bool
) -> bool:
    """Whether the outputs of the first half of a batch are others when it is alone.

    ``False`` also where that is not known, because it cannot be cut or run alone.
    """
    half = len(batch) // 2
    if not half or outputs.ndim == 0 or len(outputs) != len(batch):
        return False
    with suppress(Exception):  # of whatever a model says to half of a batch
        alone = run(batch.examples(0, half)).detach()
        return alone.shape == outputs[:half].shape and not _same(alone, outputs[:half], rounded)
    return False


def unset_mode_note(
    outputs: Tensor,
    in_training: Callable[[], Tensor],
    losses: Callable[[], tuple[float, float]],
    rounded: bool,
) -> str | None:
    """What to say where no mode was asked for, if the model is another one in train mode.

    Args:
        outputs: of a batch, in eval mode.
        in_training: makes those in train mode.
        losses: makes the loss of the batch in eval mode, and that in train mode.
        rounded: whether autocast is on.
    """
    said = "measured in mode='eval', because no mode= was given"
    try:
        others = in_training()
    except Exception as error:  # of whatever a model says in train mode
        what = str(error).strip().partition("\n")[0]
        return f"{said}; in mode='train' the model raises {type(error).__name__}: {what}"
    if others.shape == outputs.shape and _same(others, outputs, rounded):
        return None
    try:
        here, there = losses()
    except Exception:  # which the measurement raises again
        return f"{said}; in mode='train', in which models are trained, the outputs are others"
    return (
        f"{said}; on the first batch the loss is {here:.4g} in it, and {there:.4g} in "
        "mode='train', in which models are trained"
    )


def _same(a: Tensor, b: Tensor, rounded: bool) -> bool:
    tolerance = ROUNDED_AGREEMENT if rounded else AGREEMENT
    difference = (a - b).double().norm()
    return bool(difference <= tolerance * b.double().norm() or (a == b).all())
