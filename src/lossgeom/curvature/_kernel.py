"""Kernels A A^T on the outputs of all data."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.linalg import LinearOperator, plain_arithmetic


class Kernel(ProblemMatrix):
    """The symmetric NC x NC matrix A A^T of an operator A with a row for each output."""

    rows = "outputs"
    columns = "outputs"
    memory_budget: int

    @property
    @abstractmethod
    def factor(self) -> LinearOperator:
        """The operator A."""

    def matmat(self, U: Float[Tensor, "NC k"]) -> Float[Tensor, "NC k"]:
        return self.factor.matmat(self.factor.T.matmat(U))

    def dense(self) -> Float[Tensor, "NC NC"]:
        """Return the matrix itself, from A where A fits the memory budget; min(NC, P) products."""
        NC, P = self.factor.shape
        if NC * P * self.dtype.itemsize > self.memory_budget:
            chunk = max(1, self.memory_budget // (P * self.dtype.itemsize))
            unit = torch.eye(NC, dtype=self.dtype, device=self.device)
            return torch.cat([self.matmat(part) for part in torch.split(unit, chunk, dim=1)], dim=1)
        with plain_arithmetic(self.device):
            A = self.factor.dense()
            return A @ A.T
