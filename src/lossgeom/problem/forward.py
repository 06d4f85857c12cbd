"""How a model is called with a batch, and what of its answer are its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
            "batch: ...). For a loss of several, let forward= join them, such as torch.cat([a, b], "
            "1), and the loss take them apart again"
        )
    return outputs


@contextmanager
def batch_statistics_explained(batch: Batch) -> Iterator[None]:
    """Say which batch is too small for BatchNorm in train mode."""
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"batch {batch.index}, of {len(batch)} example{'s' * (len(batch) != 1)}, has too few "
            f"for the batch statistics of BatchNorm in mode='train' ({error}): leave it out, such "
            "as with DataLoader(..., drop_last=True), use larger batches, or measure in "
            "mode='eval'"
        ) from error


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
