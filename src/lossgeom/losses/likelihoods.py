r"""What a loss says about the distribution of its targets given the outputs.

A likelihood cuts the outputs of a batch into observations, one row f of c outputs each, whose
summed loss has the Hessian :math:`w \nabla^2_f(-\log p(y \mid f))` with a weight w that does not
depend on f. That gives a root of this Hessian in closed form, and targets to sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Weights = Callable[[Tensor, Any], Tensor]


class NoLikelihoodError(ValueError):
    """The loss of these outputs and targets is no negative logarithm of a probability."""


class Likelihood(ABC):
    """The distribution behind a loss."""

    def rows(self, outputs: Tensor) -> Float[Tensor, "M c"]:
        """Outputs as one row per observation: here, per example."""
        return outputs.reshape(len(outputs), -1)

    def unrows(self, rows: Float[Tensor, "M c"], outputs: Tensor) -> Tensor:
        """Rows back in the shape of the outputs."""
        return rows.reshape(outputs.shape)

    @abstractmethod
    def weights(
        self, outputs: Tensor, batch: Any
    ) -> Float[
        Tensor,
        (
            M  # c
        ),
    ]:
        """The weight of each observation, or of each of its outputs; 0 for an ignored one."""

    @abstractmethod
    def root(self, f: Float[Tensor, "M c"], u: Float[Tensor, "M c"]) -> Float[Tensor, "M c"]:
        r"""R u with :math:`R^\top R = \nabla^2_f (-\log p)` at each row f."""

    @abstractmethod
    def root_transposed(
        self, f: Float[Tensor, "M c"], u: Float[Tensor, "M c"]
    ) -> Float[Tensor, "M c"]:
        r""":math:`R^\top u`."""

    def hessian(self, f: Float[Tensor, "M c"], u: Float[Tensor, "M c"]) -> Float[Tensor, "M c"]:
        r""":math:`R^\top R u`, with all digits where probabilities saturate."""
        return self.root_transposed(f, self.root(f, u))

    @abstractmethod
    def draws(self, c: int) -> int:
        """How many uniform numbers it takes to sample one observation's target."""

    @abstractmethod
    def score(
        self, f: Float[Tensor, "M c"], uniform: Float[Tensor, "M draws"]
    ) -> Float[Tensor, "M c"]:
        r""":math:`\nabla_f (-\log p(y \mid f))` at targets y sampled from :math:`p(y \mid f)`."""


@dataclass(frozen=True)
class Softmax(Likelihood):
    r"""One of c classes, with probabilities p = softmax(f).

    .. math:: \nabla^2_f(-\log p_y) = \mathrm{diag}(p) - p p^\top = R^\top R, \quad
        R = \mathrm{diag}(\sqrt p)(I - 1 p^\top)
    """

    class_dim: int
    weight_of: Weights

    def rows(self, outputs: Tensor) -> Float[Tensor, "M c"]:
        last = outputs.movedim(self.class_dim, -1)
        return last.reshape(-1, last.shape[-1])

    def unrows(self, rows: Float[Tensor, "M c"], outputs: Tensor) -> Tensor:
        shape = outputs.movedim(self.class_dim, -1).shape
        return rows.reshape(shape).movedim(-1, self.class_dim)

    def weights(self, outputs: Tensor, batch: Any) -> Float[Tensor, "M 1"]:
        return self.weight_of(outputs, batch).reshape(-1, 1)

    def root(self, f: Tensor, u: Tensor) -> Tensor:
        p = f.softmax(1)
        return p.sqrt() * (u - (p * u).sum(1, keepdim=True))

    def root_transposed(self, f: Tensor, u: Tensor) -> Tensor:
        p = f.softmax(1)
        scaled = p.sqrt() * u
        return scaled - p * scaled.sum(1, keepdim=True)

    def hessian(self, f: Tensor, u: Tensor) -> Tensor:
        p = f.softmax(1)
        first = p * (u - (p * u).sum(1, keepdim=True))
        return first - p * first.sum(1, keepdim=True)  # 0, but for rounding that is all of it

    def draws(self, c: int) -> int:  # noqa: ARG002
        return 1

    def score(self, f: Tensor, uniform: Tensor) -> Tensor:
        p = f.softmax(1)
        cumulative = p.cumsum(1)
        y = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        return p.scatter_add(1, y.clamp(max=p.shape[1] - 1), -torch.ones_like(uniform))


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Independent normal targets with mean f and variance 1 / curvature."""

    curvature: float

    def weights(self, outputs: Tensor, batch: Any) -> Float[Tensor, "M 1"]:  # noqa: ARG002
        return outputs.new_full((len(outputs), 1), self.curvature)

    def root(self, f: Tensor, u: Tensor) -> Tensor:  # noqa: ARG002
        return u

    def root_transposed(self, f: Tensor, u: Tensor) -> Tensor:  # noqa: ARG002
        return u

    def draws(self, c: int) -> int:
        return c

    def score(self, f: Tensor, uniform: Tensor) -> Tensor:
        tiny, eps = torch.finfo(f.dtype).tiny, torch.finfo(f.dtype).eps
        normal: Tensor = torch.special.ndtri(uniform.clamp(min=tiny, max=1 - eps / 2))
        return normal


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent targets of 0 or 1 with probability sigmoid(f) of 1."""

    weight_of: Weights

    def weights(self, outputs: Tensor, batch: Any) -> Float[Tensor, "M c"]:
        return self.rows(self.weight_of(outputs, batch))

    def root(self, f: Tensor, u: Tensor) -> Tensor:
        return (f.sigmoid() * (-f).sigmoid()).sqrt() * u

    def root_transposed(self, f: Tensor, u: Tensor) -> Tensor:
        return self.root(f, u)

    def draws(self, c: int) -> int:
        return c

    def score(self, f: Tensor, uniform: Tensor) -> Tensor:
        p = f.sigmoid()
        return p - (uniform < p).to(f)
