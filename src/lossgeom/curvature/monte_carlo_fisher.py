"""The Fisher matrix, with targets sampled from the model."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature._parameter_matrix import OutputSandwich, ParameterMatrix, Product
from lossgeom.messages.checks import check_at_least
from lossgeom.problem import Problem


class MonteCarloFisher(OutputSandwich):
    r"""The P x P Fisher matrix, estimated with targets that the model itself draws.

    .. math:: F = \frac{1}{S} \sum_{s=1}^S \sum_b \sum_{o \in b} w_o\, g_{os} g_{os}^\top
        \Big/ \sum_b n_b, \quad g_{os} = J_o^\top \nabla_f (-\log p(y_{os} \mid f_o)), \quad
        y_{os} \sim p(\cdot \mid f_o)

    Its expectation is the Gauss-Newton matrix, for every loss that is a negative log-likelihood:
    cross-entropy (a class drawn from the softmax), squared error and ``nn.MSELoss`` (normal noise),
    ``nn.BCEWithLogitsLoss`` (a coin). The weight w is that of the observation in the loss: 0 for an
    ignored target, that of its class for weighted cross-entropy.

    The draws belong to the seed and the place of an observation in the data, so one operator is
    one matrix, and the same however the data is split into batches.

    Cost of a product: 1 to 2 gradients if all is kept, three if nothing is, whatever S.

    Args:
        problem: the loss and where to take it.
        seed: of the targets.
        samples: S, targets drawn for each observation.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.

    Raises:
        ValueError: for a loss whose likelihood is not known, or samples < 1.
        NonFiniteError: from a product, where the loss is NaN or infinite.

    Source: Kunstner et al., Limitations of the empirical Fisher approximation, arXiv:1905.12558.

    >>> from torch import nn
    >>> from lossgeom import Problem
    >>> model = nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(torch.ones(1000, 1), torch.zeros(1000, 1))])
    >>> abs(MonteCarloFisher(problem, samples=100).dense().item() - 1) < 0.02
    True
    """

    degree = None  # its likelihood is that of the loss, whatever the loss is multiplied with
    sampled = True

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        samples: int = 1,
        memory_budget: int | None = None,
    ) -> None:
        ParameterMatrix.__init__(self, problem, memory_budget=memory_budget)
        self.scores = SampledScores(problem, seed, samples)

    def weighting(self, problem: Problem, outputs: Tensor, batch: Batch) -> tuple[Product, float]:
        outputs = outputs.detach()
        _, count = problem.terms(outputs, batch)
        likelihood = self.scores.likelihood  # so that the product does not hold this matrix
        scores = self.scores.of(outputs, batch)

        def weigh(u: Tensor) -> Tensor:
            pushed = likelihood.rows(u)
            along = [score * (score * pushed).sum(1, keepdim=True) for score in scores]
            return likelihood.unrows(torch.stack(along).mean(0), outputs)

        return weigh, count


class SampledScores:
    """Gradients of the loss in the outputs, at targets that the model itself draws.

    Args:
        problem: the loss and where to take it.
        seed: of the targets.
        samples: S, targets drawn for each observation.
    """

    def __init__(self, problem: Problem, seed: int, samples: int) -> None:
        if problem.criterion.likelihood is None:
            raise ValueError(
                "expected a loss that is the negative logarithm of a known likelihood "
                "(cross-entropy, squared error, MSELoss, BCEWithLogitsLoss), got "
                f"{problem.criterion.name!r}"
            )
        check_at_least(1, samples=samples)
        self.likelihood = problem.criterion.likelihood
        self.seed = seed
        self.samples = samples
        self._drawn_before: dict[int, int] = {0: self._elsewhere(problem)}

    def of(self, outputs: Tensor, batch: Batch) -> list[Float[Tensor, "M c"]]:
        r"""Draw :math:`\sqrt{w_o}\, \nabla_f (-\log p)` of the observations of a batch, S times."""
        f = self.likelihood.rows(outputs)
        weights = self.likelihood.weights(outputs, batch).sqrt()
        uniform = self._uniform(batch, len(f), self.likelihood.draws(f.shape[1])).to(f)
        return [weights * self.likelihood.score(f, draw) for draw in uniform]

    def _elsewhere(self, problem: Problem) -> int:
        """Count the numbers that are drawn on ranks before this one, by a forward pass."""
        here, ranks = problem.local, problem.ranks

        @torch.no_grad()
        def drawn(batch: Batch) -> int:
            rows = self.likelihood.rows(problem.outputs(problem.theta, batch))
            return len(rows) * self.likelihood.draws(rows.shape[1])

        if ranks.size == 1:
            return 0
        counts = ranks.gathered(ranks.together(lambda: sum(here.over_batches(drawn))))
        return sum(counts[: ranks.rank])

    def _uniform(self, batch: Batch, M: int, draws: int) -> Float[Tensor, "S M draws"]:
        """Draw numbers that belong to observations by their place in the data."""
        before = self._drawn_before[batch.index]
        self._drawn_before[batch.index + 1] = before + M * draws
        streams = [np.random.PCG64([self.seed, s]).advance(before) for s in range(self.samples)]
        numbers = [np.random.Generator(stream).random((M, draws)) for stream in streams]
        return torch.from_numpy(np.stack(numbers))
