"""What a step of SGD does to second moments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.stability.sgd.examples import ExampleCurvatures


@dataclass(frozen=True)
class SecondMoments:
    r"""What a step of SGD does to second moments, in the eigenbasis of H.

    .. math:: E[(I - \eta H_b) S (I - \eta H_b)] = S - 2 \eta\, C(S) + \eta^2 D(S), \quad
        C(S) = \tfrac12 (H S + S H), \quad D(S) = (1 - p) H S H + \frac pn \sum_i H_i S H_i

    Attributes:
        curvatures: of the examples.
        p: the noise share.
    """

    curvatures: ExampleCurvatures
    p: float

    @property
    def halves(self) -> Float[Tensor, "r r"]:
        """What C multiplies each entry of S with, the mean of two eigenvalues."""
        h = self.curvatures.values
        return (h[:, None] + h) / 2

    def D(self, S: Float[Tensor, "r r"]) -> Float[Tensor, "r r"]:  # noqa: N802
        """The quadratic part, for a symmetric S."""
        h = self.curvatures.values
        full = (1 - self.p) * h[:, None] * h * S
        return full + self.p * mean_of_products(self.curvatures, S) if self.p else full


def mean_of_products(
    curvatures: ExampleCurvatures, S: Float[Tensor, "r r"]
) -> Float[Tensor, "r r"]:
    """The mean of H_i S H_i over the examples; 4 n c r^2 flops, and 4 n c^2 r where c > 1."""
    n, c, r = curvatures.factors.shape
    A = curvatures.factors.reshape(n * c, r)
    images = A @ S
    if c == 1:
        inner = (images * A).sum(1, keepdim=True)
        return A.T @ (inner * A) / n
    inner = images.reshape(n, c, r) @ curvatures.factors.mT
    return A.T @ (inner @ curvatures.factors).reshape(n * c, r) / n


def from_identity(
    r: int, like: Float[Tensor, " r"], near: Float[Tensor, " rr"] | None = None
) -> Float[Tensor, " rr"]:
    """A start to which no positive semi-definite matrix is orthogonal, close to a known one."""
    identity = torch.eye(r, dtype=like.dtype, device=like.device).reshape(-1) / math.sqrt(r)
    return identity if near is None else identity + near * torch.sign(near @ identity)
