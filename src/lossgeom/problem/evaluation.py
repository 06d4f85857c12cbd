"""How a model and its loss are evaluated on a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.batches import TARGET_KEYS, Batch, map_tensors, tensors_of
from lossgeom.losses import Loss, checked_terms
from lossgeom.problem.model_facts import Key, Mode, ModelFacts
from lossgeom.problem.network import Network

Forward = Callable[[nn.Module, Any], Tensor]
TARGETS = ", ".join(map(repr, TARGET_KEYS))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model and a loss, and all that decides what they are on a batch, besides theta.

    Attributes:
        network: the copy of the model.
        criterion: the loss.
        mode: of the modules.
        forward: calls the model, if that is not done with the inputs of a batch.
        seed: fixes what the model draws at random.
        autocast: a type to run both in.
        watched: whether draws of random numbers are looked for.
        facts: what is known of the model in this mode.
    """

    network: Network
    criterion: Loss
    mode: Mode
    forward: Forward | None = None
    seed: int | None = None
    autocast: torch.dtype | None = None
    watched: bool = True
    facts: ModelFacts = field(default_factory=ModelFacts)

    def in_mode(self, mode: Mode) -> Evaluation:
        """The same in another mode."""
        return replace(self, mode=mode, facts=self.facts.in_mode(self.mode, mode))

    def outputs(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """What the model puts out, with a dimension of examples also where there is only one."""
        try:
            outputs = self._called(theta, batch)
        except RuntimeError as error:
            if torch.is_grad_enabled() or "does not require grad" not in str(error):
                raise
            with torch.enable_grad():  # for a model that differentiates in its forward pass
                outputs = self._called(theta, batch).detach()
        if (outputs.ndim == 0 or len(outputs) != 1) and len(batch) == 1 and _rows_in(batch.targets):
            key = Key(Evaluation.outputs, tuple(tensor.shape for tensor in tensors_of(batch.raw)))
            alone, call = outputs.shape, partial(self._called, theta.detach())
            if self.facts.known(key, lambda: squeezes(alone, lambda: call(_twice(batch)))):
                outputs = outputs[None]
        return outputs.to(theta.dtype)

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """The summed loss of outputs and the number of terms, both checked."""
        with self._rounding():
            return checked_terms(self.criterion, outputs, batch)

    def _called(self, theta: Tensor, batch: Batch) -> Tensor:
        seed = None if self.seed is None else (self.seed, batch.index)
        call = partial(call_model, batch=batch, forward=self.forward)
        if theta.dtype == torch.float64:
            call = partial(self.facts.in_double, call)
        try:
            with self._rounding():
                outputs: Tensor = self.network(theta, call, self.mode, seed, watched=self.watched)
        except ValueError as error:
            _explain_batch_statistics(error, batch)
            raise
        return outputs

    def _rounding(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.network.theta.device.type, self.autocast, cache_enabled=False)


def _twice(batch: Batch) -> Batch:
    return batch.each_row(lambda row: torch.cat([row, row]))


@torch.no_grad()
def squeezes(alone: torch.Size, twice: Callable[[], Tensor]) -> bool:
    """Whether the dimension of examples is lost where there is only one, as by squeeze().

    Args:
        alone: the shape of the outputs of one example.
        twice: computes those of the same example, there twice.
    """
    try:
        return twice().shape == (2, *alone)
    except Exception:  # of what does not run on other batches, and has no such dimension
        return False


def _rows_in(targets: Any) -> bool:
    """Whether targets, if there are any, have a dimension of examples for one of them."""
    return not isinstance(targets, Tensor) or targets.shape[:1] == (1,)


def call_model(module: nn.Module, batch: Batch, forward: Forward | None) -> Tensor:
    """The outputs for a batch, by ``forward(module, batch as its owner wrote it)`` if given.

    The model gets tensors of its own, which it may work on in place.

    Raises:
        TypeError: if the answer is neither a tensor nor a mapping with one at ``"logits"``.
    """
    given = map_tensors(torch.clone, batch.raw if forward is not None else batch.arguments)
    if forward is not None:
        outputs = forward(module, given)
    else:
        outputs = module(**given) if isinstance(given, dict) else module(*given)
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


def _explain_batch_statistics(error: ValueError, batch: Batch) -> None:
    """Say which batch is too small for BatchNorm in train mode."""
    if "Expected more than 1 value per channel" in str(error):
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
