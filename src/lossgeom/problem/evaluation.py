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
from lossgeom.losses import Loss, NonFiniteError
from lossgeom.problem.batch_norm import explain_too_few
from lossgeom.problem.model_facts import (
    FirstLook,
    InDouble,
    Key,
    Mode,
    ModelFacts,
    checked_mode,
)
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
        batches_before: how many of them other processes have, before those of this one.
    """

    network: Network
    criterion: Loss
    mode: Mode
    forward: Forward | None = None
    seed: int | None = None
    autocast: torch.dtype | None = None
    watched: bool = True
    facts: ModelFacts = field(default_factory=ModelFacts)
    batches_before: int = 0

    @classmethod
    def of(
        cls,
        network: Network,
        criterion: Loss,
        mode: Mode | None,
        forward: Forward | None,
        seed: int | None,
        autocast: torch.dtype | None,
    ) -> Evaluation:
        """The evaluation with these settings, of which nothing is known yet.

        Raises:
            ValueError: for a mode, a seed or a type to round to that cannot be meant.
        """
        if autocast is not None and network.theta.dtype != torch.float32:
            raise ValueError(
                f"autocast={autocast} rounds float32 only, and this is measured in "
                f"{network.theta.dtype}; leave one of the two out"
            )
        if seed is not None and seed < 0:
            raise ValueError(f"expected a seed >= 0, got {seed}")
        facts = ModelFacts(FirstLook(training=None if mode is None else ""))
        mode = "eval" if mode is None else checked_mode(mode)
        return cls(network, criterion, mode, forward, seed, autocast, facts=facts)

    def on_copy(self, network: Network) -> Evaluation:
        """The same evaluation of another copy of the model, of which less is known."""
        seen = replace(self.facts.first_look, model=self.facts.first_look.model or [], graph=None)
        same = network.theta.dtype == self.network.theta.dtype
        facts = ModelFacts(seen, self.facts.in_double if same else InDouble())
        return replace(self, network=network, facts=facts)

    def inside_transforms(self, seeded: bool) -> Evaluation:
        """The same evaluation inside the transforms of ``torch.func``.

        The state of a generator cannot be read inside these, so draws of random numbers are not
        looked for. Nor can it be set under vmap: there no seed must fix them.
        """
        seed = self.seed if seeded else None
        return replace(self.on_copy(self.network), watched=False, seed=seed)

    def in_mode(self, mode: Mode) -> Evaluation:
        """The same evaluation in another mode."""
        return replace(self, mode=checked_mode(mode), facts=self.facts.in_mode(self.mode, mode))

    def outputs(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """What the model puts out, with a dimension of examples also where there is only one."""
        try:
            outputs = self._called(theta, batch)
        except RuntimeError as error:
            if torch.is_grad_enabled() or "does not require grad" not in str(error):
                raise
            with torch.enable_grad():  # for a model that differentiates in its forward pass
                outputs = self._called(theta, batch).detach()
        targets = batch.targets
        one_row = not isinstance(targets, Tensor) or targets.shape[:1] == (1,)
        if one_row and (outputs.ndim == 0 or len(outputs) != 1) and len(batch) == 1:
            key = Key(Evaluation.outputs, tuple(tensor.shape for tensor in tensors_of(batch.raw)))
            alone, call = outputs.shape, partial(self._called, theta.detach())
            if self.facts.known(key, lambda: squeezes(alone, lambda: call(_twice(batch)))):
                outputs = outputs[None]
        return outputs.to(theta.dtype)

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """The summed loss of outputs and the number of its terms; see :func:`checked_terms`."""
        with nullcontext() if self.autocast is None else self._rounding():
            return checked_terms(self.criterion, outputs, batch)

    @torch.no_grad()
    def loss(self, theta: Float[Tensor, " P"], batch: Batch) -> tuple[float, float]:
        """The summed loss of a batch and its number of terms."""
        total, count = self.terms(self.outputs(theta, batch), batch)
        return total.item(), count

    def label_entropy(self, theta: Float[Tensor, " P"]) -> Callable[[Batch], tuple[float, float]]:
        """A function of a batch: the summed entropy of its labels, and its number of terms."""
        entropy = self.criterion.label_entropy
        if entropy is None:
            raise ValueError(
                "the label entropy is known for unweighted cross-entropy, not for "
                f"{self.criterion.name!r}"
            )

        @torch.no_grad()
        def of_batch(batch: Batch) -> tuple[float, float]:
            outputs = self.outputs(theta, batch)
            return entropy(outputs, batch), self.terms(outputs, batch)[1]

        return of_batch

    def gradient(
        self, leaf: Float[Tensor, " P"], batch: Batch, *, create_graph: bool = False
    ) -> tuple[Tensor, float]:
        """The gradient of the summed loss of a batch in a leaf, and its number of terms."""
        total, count = self.terms(self.outputs(leaf, batch), batch)
        if not total.requires_grad:  # a loss that does not depend on theta
            return torch.zeros_like(leaf), count
        (gradient,) = torch.autograd.grad(
            total, leaf, create_graph=create_graph, materialize_grads=True
        )
        return gradient, count

    def _called(self, theta: Tensor, batch: Batch) -> Tensor:
        seed = None if self.seed is None else (self.seed, self.batches_before + batch.index)
        call = partial(call_model, batch=batch, forward=self.forward)
        if theta.dtype == torch.float64:
            call = partial(self.facts.in_double, call)
        try:
            with nullcontext() if self.autocast is None else self._rounding():
                outputs: Tensor = self.network(theta, call, self.mode, seed, watched=self.watched)
        except ValueError as error:
            explain_too_few(error, batch)
            raise
        return outputs

    def _rounding(self) -> AbstractContextManager[object]:
        return torch.autocast(self.network.theta.device.type, self.autocast, cache_enabled=False)


def checked_terms(criterion: Loss, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
    """The summed loss of outputs and the number of its terms, checked to be such.

    Raises:
        TypeError: if the loss returns something else.
        ValueError: if it needs targets and the batch has none.
        NonFiniteError: if the sum is NaN or infinite.
    """
    name = criterion.name
    if criterion.needs_targets and not isinstance(batch.targets, Tensor):
        raise ValueError(
            f"the loss {name!r} compares outputs with a tensor of targets, and batch "
            f"{batch.index} has {_said_of(batch)}; {batch.remedy}"
        )
    result: Any = criterion.terms(outputs, batch)
    if not (isinstance(result, tuple) and len(result) == 2):
        bare = isinstance(result, Tensor) and result.ndim == 0
        raise TypeError(
            f"expected the loss {name!r} to return (sum, count), got {type(result).__name__}"
            + (": a number without its count; return (terms.sum(), number of terms)" * bare)
        )
    total, count = result
    if not isinstance(total, Tensor) or total.ndim != 0:
        got = tuple(total.shape) if isinstance(total, Tensor) else type(total).__name__
        raise TypeError(
            f"expected the loss {name!r} to return its sum as a scalar tensor, "
            f"got {got}; add up the terms and return (terms.sum(), number of terms)"
        )
    if not torch.isfinite(total):
        what = "loss" if torch.isfinite(outputs).all() else "output of the model"
        raise NonFiniteError(f"the {what} is NaN or infinite at these parameters")
    return total, float(count)


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


def _said_of(batch: Batch) -> str:
    """What stands where targets are expected."""
    if batch.targets is None and isinstance(batch.raw, (tuple, list)):
        return f"{len(batch.raw)} parts, and which of them is the target is not said"
    return type(batch.targets).__name__


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


def check_arguments(module: nn.Module, batch: Batch) -> None:
    """Raise an error that says what a model takes, if that is not what a batch has.

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
