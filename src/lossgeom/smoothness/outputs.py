"""Which outputs of a model are differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lossgeom.batches import Batch, map_tensors
from lossgeom.losses.likelihoods import Softmax
from lossgeom.messages.wording import one_of
from lossgeom.problem import NonFiniteError, Problem

NamedOutputs = Literal["logits", "softmax"]
Outputs = NamedOutputs | Callable[[Tensor, Any], Tensor]
NAMED_OUTPUTS: tuple[NamedOutputs, ...] = ("logits", "softmax")


def check_outputs(outputs: Outputs) -> None:
    """Refuse an unknown name of outputs."""
    if not callable(outputs) and outputs not in NAMED_OUTPUTS:
        raise ValueError(
            f"expected outputs to be one of {one_of(NAMED_OUTPUTS)} or a function (outputs, "
            f"batch) -> numbers of each example, got {outputs!r}"
        )


def chosen(problem: Problem, outputs: Outputs, found: Tensor, batch: Batch) -> Tensor:
    """Return the chosen outputs as (B, C), or as (B, S, C) before a softmax over C."""
    _check_rows(found, batch, "the model")
    if callable(outputs):
        found = outputs(found.clone(), map_tensors(torch.clone, batch.raw))
        if not isinstance(found, Tensor):
            raise TypeError(
                f"expected outputs= to return a tensor, got a {type(found).__name__}; return one "
                "row of numbers for each example"
            )
        _check_rows(found, batch, "outputs=")
    return _classes_last(problem, found) if outputs == "softmax" else found.reshape(len(found), -1)


def _check_rows(found: Tensor, batch: Batch, giver: str) -> None:
    if found.ndim == 0 or len(found) != len(batch):
        raise ValueError(
            f"expected one row of outputs per example, got outputs of shape {tuple(found.shape)} "
            f"from {giver} for {len(batch)} examples"
        )
    if found.numel() == 0:
        raise ValueError(f"expected outputs, got none: {giver} returned {tuple(found.shape)}")
    if not torch.isfinite(found).all():
        raise NonFiniteError(f"the output of {giver} is NaN or infinite at these parameters")


def _classes_last(problem: Problem, found: Tensor) -> Tensor:
    likelihood = problem.criterion.likelihood
    if found.ndim > 2:
        if not isinstance(likelihood, Softmax):
            raise ValueError(
                f"cannot tell which dimension of outputs {tuple(found.shape)} holds the classes of "
                f"a softmax under the loss {problem.criterion.name!r}; say so with "
                "outputs=lambda outputs, batch: outputs.softmax(...)"
            )
        found = found.movedim(likelihood.class_dim, -1)
    if found.ndim == 1:
        found = found[:, None]
    found = found.reshape(len(found), -1, found.shape[-1])
    if found.shape[-1] == 1:
        raise ValueError("expected two or more outputs for a softmax, which is constant for one")
    return found
