"""How a model is called with a batch, and what of its answer are its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lossgeom.batches import TARGET_KEYS, Batch

TARGETS = ", ".join(map(repr, TARGET_KEYS))

Forward = Callable[[nn.Module, Any], Tensor]


def call_model(module: nn.Module, batch: Batch, forward: Forward | None) -> Tensor:
    """The outputs for a batch, by ``forward(module, batch as its owner wrote it)`` if given.

    Raises:
        TypeError: if the answer is neither a tensor nor a mapping with one at ``"logits"``.
    """
    if forward is not None:
        outputs = forward(module, batch.raw)
    elif isinstance(batch.arguments, dict):
        outputs = module(**batch.arguments)
    else:
        outputs = module(*batch.arguments)
    if isinstance(outputs, Mapping) and "logits" in outputs:  # of Hugging Face
        outputs = outputs["logits"]
    if not isinstance(outputs, Tensor):
        raise TypeError(
            "expected the model to return a tensor, or a mapping with its outputs at 'logits', "
            f"got {type(outputs).__name__}; say which with Problem(..., forward=lambda model, "
            "batch: ...)"
        )
    return outputs


def check_arguments(module: nn.Module, batch: Batch) -> None:
    """Say what a model takes, where that is not what a batch has.

    Raises:
        TypeError: if the inputs of the batch are not arguments of the model, or not known.
    """
    arguments = batch.arguments
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return  # of something that is not written in Python
    try:
        if isinstance(arguments, dict):
            where = "" if batch.targets is not None else f", and no targets at {TARGETS}"
            given = f"keywords {sorted(arguments)}{where}"
            signature.bind(**arguments)
        else:
            given = f"{len(arguments)} arguments"
            signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(
            f"{type(module).__name__} takes {signature}, and batch {batch.index} has {given} for "
            f"it ({error}); say how to call it with Problem(..., forward=lambda model, batch: ...)"
        ) from None
