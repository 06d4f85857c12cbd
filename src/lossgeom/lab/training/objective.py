"""What training lowers: the loss of a step's batches, augmented and with penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossgeom.batches import Batch
from lossgeom.losses import Loss, LossLike, as_loss

Batches = Iterable[Any]
Augmentation = Callable[[Batch, np.random.Generator], Batch]
Quantity = Callable[["Objective", Batch, int], tuple[Tensor, Tensor | float]]
PER_STEP, PER_BATCH, OF_MODEL, OF_OUTPUTS = range(4)  # streams of random numbers


@dataclass(frozen=True, eq=False)
class Objective:
    r"""The loss of each step's batches, to which regularisers add.

    .. math:: L(\theta) + \sum_k g_k(q_k(\theta))

    where every quantity q is a sum over batches that is divided once by the number of its terms, so
    that it does not matter how the examples are cut into batches. A regulariser is a function from
    an objective to an objective.

    All that is random is a function of the seed and the step: a run that was stopped goes on as if
    it had not been, and the global generator is left as it is.

    Cost: of :meth:`at`, a gradient, and what each quantity costs; each evaluates the model itself,
    so that running statistics of batch normalisation move once for each.

    Attributes:
        model: in the mode that it is in.
        loss: with its sum and count of a batch.
        batches: from the step to its batches.
        seed: of augmentations, probes, and what the model draws.
        augmentations: from a batch, and random numbers of its own, to another batch.
        penalties: pairs of a quantity, from the objective, a batch and the step to a sum and a
            count, and of g, from the mean of the quantity and the step to what is added.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 3.0)
    >>> data = [(torch.ones(2, 1), torch.zeros(2, 1))]
    >>> value, [gradient] = Objective(model, as_loss("squared_error"), lambda _: data).at(0)
    >>> value.item(), gradient.item()
    (4.5, 3.0)
    """

    model: nn.Module
    loss: Loss
    batches: Callable[[int], Batches]
    seed: int = 0
    augmentations: tuple[Augmentation, ...] = ()
    penalties: tuple[tuple[Quantity, Callable[[Tensor, int], Tensor]], ...] = ()

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def at(self, step: int) -> tuple[Tensor, list[Tensor]]:
        """The value, and its gradient in each of the parameters."""
        with self._random(step):
            value, gradient = self.mean(_loss, step)
            for quantity, weigh in self.penalties:
                mean, slopes = self.mean(quantity, step)
                penalty = weigh(mean.requires_grad_(), step)
                (factor,) = torch.autograd.grad(penalty, mean)
                value = value + penalty.detach()
                gradient = [a + factor * b for a, b in zip(gradient, slopes, strict=True)]
        return value, gradient

    def gradient_at(self, step: int) -> list[Tensor]:
        """The gradient alone."""
        return self.at(step)[1]

    def mean(self, quantity: Quantity, step: int) -> tuple[Tensor, list[Tensor]]:
        """The mean of a quantity over a step's batches, and its gradient."""
        parameters = self.parameters
        total, value, count = list[Tensor](), torch.zeros(()), 0.0
        for index, raw in enumerate(self.batches(step)):
            batch = Batch.of(raw, index)
            for number, augment in enumerate(self.augmentations):
                batch = augment(batch, self.numbers(PER_BATCH, step, index, number))
            part, terms = quantity(self, batch, step)
            if part.requires_grad and parameters:
                more = torch.autograd.grad(part, parameters, materialize_grads=True)
                total = [a + b for a, b in zip(total, more, strict=True)] if total else list(more)
            value = value.to(part) + part.detach()
            count += float(terms)
        total = total or [torch.zeros_like(p) for p in parameters]
        return value / count, [gradient / count for gradient in total]

    def loss_of(self, batch: Batch) -> tuple[Tensor, float]:
        """The sum of the loss's terms, and their number; or 1 in all if it is no average."""
        part, terms = self.loss.terms(self.model(batch.input), batch)
        return part, float(terms) if self.loss.average else float(batch.index == 0)

    def numbers(self, *place: int) -> np.random.Generator:
        """Random numbers of one place in training."""
        return np.random.default_rng([self.seed, *place])

    def probe(self, like: Tensor, *place: int) -> Tensor:
        """Random signs in the shape of a tensor."""
        signs = self.numbers(*place).integers(2, size=tuple(like.shape)) * 2 - 1
        return torch.from_numpy(signs).to(like)

    @contextmanager
    def _random(self, step: int) -> Iterator[None]:
        """Let the model draw, as in dropout, the numbers of a step."""
        seed = int(self.numbers(OF_MODEL, step).integers(2**63))
        on_gpu = {p.device.index for p in self.parameters if p.device.type == "cuda"}
        generators = [torch.default_generator, *(torch.cuda.default_generators[i] for i in on_gpu)]
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:  # torch.manual_seed takes as long as a small step
                generator.manual_seed(seed)
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


def _loss(objective: Objective, batch: Batch, step: int) -> tuple[Tensor, float]:  # noqa: ARG001
    return objective.loss_of(batch)


Regularizer = Callable[[Objective], Objective]


def objective_of(
    model: nn.Module,
    loss: LossLike,
    batches: Batches | Callable[[int], Batches],
    regularizers: Sequence[Regularizer] = (),
    seed: int = 0,
) -> Objective:
    """The objective of the same batches at every step, or of those of each, with regularisers."""
    of_step = batches if callable(batches) else lambda _: batches
    objective = Objective(model, as_loss(loss), of_step, seed)
    for regularizer in regularizers:
        objective = regularizer(objective)
    return objective
