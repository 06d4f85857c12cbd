"""The outputs of single examples, checked to be what SGD draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.problem.batch_norm import has_batch_statistics


@dataclass(frozen=True, eq=False)
class ExampleOutputs:
    """What is known of n examples without derivatives in the parameters.

    Attributes:
        residuals: the gradient of each example's loss in its outputs.
        terms: of the loss of each example, which it is divided by.
    """

    residuals: Float[Tensor, "n C"]
    terms: float

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.residuals)

    @property
    def outputs(self) -> int:
        """C, the outputs of an example."""
        return self.residuals.shape[1]


def example_outputs(problem: Problem) -> ExampleOutputs:
    """Look at the outputs of all examples, once.

    Raises:
        ValueError: where the step of SGD is no mean over independent examples.
    """
    return problem.cached(_example_outputs)


def _example_outputs(problem: Problem) -> ExampleOutputs:
    _check_independent(problem)
    found = problem.over_batches(lambda batch: _of_batch(problem, batch))
    if problem.evaluation.facts.first_look.is_sum is False:
        raise ValueError(
            f"the loss {problem.criterion.name!r} is no sum over examples, so the batches of SGD "
            "have no mean over them; expected one whose terms add up"
        )
    counts = torch.cat([counts for _, counts in found])
    low, high = counts.min().item(), counts.max().item()
    if not high - low <= 1e-6 * high:
        raise ValueError(
            f"expected the loss {problem.criterion.name!r} to have as many terms for one example "
            f"as for another, got {low:g} to {high:g}: what a batch divides by then depends on "
            "which examples are in it, and no threshold is known. If training takes a mean over "
            "the terms of each example first, pass a loss (outputs, batch) -> (sum of these means, "
            "number of examples); weights of classes can be left out"
        )
    widths = {residuals.shape[1] for residuals, _ in found}
    if len(widths) > 1:
        raise ValueError(
            f"expected examples with as many outputs as each other, got {sorted(widths)}; pad them"
        )
    residuals = torch.cat([residuals for residuals, _ in found])
    return ExampleOutputs(residuals / low, low)


def _check_independent(problem: Problem) -> None:
    """Refuse what is no mean over examples by its settings."""
    if problem.mode == "train" and has_batch_statistics(problem.network.module):
        raise ValueError(
            "BatchNorm in mode='train' makes the loss of an example depend on its batch, and the "
            "theory of SGD needs examples that do not; measure in mode='eval', where its "
            "statistics are fixed"
        )
    if not problem.criterion.average:
        raise ValueError(
            f"the loss {problem.criterion.name!r} is a sum, whose steps grow with the batch; "
            "expected a mean: measure that with learning rate lr * batch_size"
        )


@torch.no_grad()
def _of_batch(problem: Problem, batch: Batch) -> tuple[Tensor, Tensor]:
    """The gradients of each example's terms in its outputs, and the number of these terms."""
    batch = problem.in_examples(batch)
    outputs = problem.outputs(problem.theta, batch)
    with torch.enable_grad():
        loss = LossAtOutputs.of(problem, outputs, batch)
        loss.check_separable(problem.criterion.name)
    terms = [
        problem.terms(outputs[i : i + 1], batch.examples(i, i + 1))[1] for i in range(len(outputs))
    ]
    if not math.isclose(math.fsum(terms), loss.count, rel_tol=1e-6):
        raise ValueError(
            f"the loss {problem.criterion.name!r} counts {loss.count:g} terms in batch "
            f"{batch.index}, and {math.fsum(terms):g} in its examples one by one; expected a "
            "number that adds up"
        )
    return loss.residual.detach().reshape(len(outputs), -1), torch.tensor(terms)
