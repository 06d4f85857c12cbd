"""Weight norm with a second derivative that is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PlainWeightNorm(nn.Module):
    """Weight norm from its definition: torch's own has a wrong second derivative.

    In torch 2.13 the backward of ``torch._weight_norm`` takes the norms as constants when it is
    differentiated itself.
    """

    def __init__(self, dim: int) -> None:
        nn.Module.__init__(self)
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / torch.norm_except_dim(v, 2, self.dim))


class PlainWeightNormHook:
    """The same for the hook of the older torch.nn.utils.weight_norm."""

    def __init__(self, name: str, dim: int) -> None:
        self.name = name
        self.norm = PlainWeightNorm(dim)

    def __call__(self, module: nn.Module, inputs: Any) -> None:  # noqa: ARG002
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        setattr(module, self.name, self.norm(g, v))


def dimension_of(norm: Any) -> int:
    """The dimension that a weight norm of torch has one norm for each index of."""
    return -1 if norm.dim is None else int(norm.dim)
