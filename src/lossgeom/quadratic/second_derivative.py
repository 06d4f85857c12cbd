"""The constant second derivative Q of a second-order regression model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import short
from lossgeom.quadratic._checks import check_same_dtype, check_tensor

Rows = slice | Tensor
ROUNDING = 1e-6  # relative to the largest entry; what is less symmetric is another model


class SecondDerivative(ABC):
    r"""Q of :math:`z = y + G\theta + \tfrac12 Q(\theta, \theta)`, of one run or of many.

    :math:`Q(u, v)_a = \sum_{ij} Q_{aij} u_i v_j` with a over D outputs, i and j over P parameters,
    symmetric in i and j. It is known by its products with one vector for each run; subclasses hold
    one tensor for all runs or one for each.
    """

    @property
    @abstractmethod
    def outputs(self) -> int:
        """The number of outputs, D."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """The number of parameters, P."""

    @property
    @abstractmethod
    def runs(self) -> int | None:
        """The number of runs, R; None where one tensor serves any number of them."""

    @property
    @abstractmethod
    def bytes_per_run(self) -> int:
        """Memory that a run adds."""

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of products; None if it is that of their vector."""
        return None

    @abstractmethod
    def contract(self, s: Float[Tensor, "R P"]) -> Float[Tensor, "R D P"]:
        """The product Q(s, .), which is the change of the Jacobian along s."""

    @abstractmethod
    def rows(self, index: Rows) -> SecondDerivative:
        """The second derivative of some of the runs."""

    def subtract(self, J: Float[Tensor, "R D P"], s: Float[Tensor, "R P"]) -> None:
        """Subtract Q(s, .) from J in place."""
        J -= self.contract(s)


@dataclass(frozen=True, eq=False)
class Dense(SecondDerivative):
    """A second derivative with all its entries.

    A product costs 2 D P^2 operations and reads D P^2 numbers. With one tensor for all runs it is
    a matrix product; with one for each run the reading sets the pace.

    Attributes:
        Q: (D, P, P), or (R, D, P, P) for R runs with a tensor each.
        check: whether to look at finiteness and symmetry.

    Raises:
        TypeError: if Q is not in float32 or float64.
        ValueError: if Q has another shape, is not finite or not symmetric in its last two axes.

    >>> Q = Dense(torch.tensor([[[1.0, 0.0], [0.0, -0.5]]]))
    >>> Q.contract(torch.tensor([[2.0, 2.0]])).tolist()
    [[[2.0, -1.0]]]
    """

    Q: Float[Tensor, "*R D P P"]
    check: InitVar[bool] = True

    __repr__ = short

    def __post_init__(self, check: bool) -> None:
        if self.Q.ndim not in (3, 4) or self.Q.shape[-1] != self.Q.shape[-2]:
            raise ValueError(
                f"expected Q of shape (D, P, P) or (R, D, P, P), got {tuple(self.Q.shape)}"
            )
        check_at_least(1, outputs=self.outputs, parameters=self.parameters)
        if check:
            check_tensor("Q", self.Q, tuple(self.Q.shape), "(runs, D, P, P)")
            _check_symmetric(self.Q)

    @property
    def outputs(self) -> int:
        return self.Q.shape[-3]

    @property
    def parameters(self) -> int:
        return self.Q.shape[-1]

    @property
    def runs(self) -> int | None:
        return len(self.Q) if self.Q.ndim == 4 else None

    @property
    def bytes_per_run(self) -> int:
        return 0 if self.runs is None else self.Q[0].numel() * self.Q.itemsize

    @property
    def dtype(self) -> torch.dtype | None:
        return self.Q.dtype

    @cached_property
    def _matrix(self) -> Float[Tensor, "*R P DP"]:
        """Q as a matrix that a row is multiplied with from the left, which is the faster side."""
        return self.Q.transpose(-3, -2).flatten(-2)

    def contract(self, s: Float[Tensor, "R P"]) -> Float[Tensor, "R D P"]:
        product = s @ self._matrix if self.runs is None else (s[:, None] @ self._matrix)[:, 0]
        return product.view(len(s), self.outputs, self.parameters)

    def subtract(self, J: Float[Tensor, "R D P"], s: Float[Tensor, "R P"]) -> None:
        if self.runs is None:
            J.view(len(J), -1).addmm_(s, self._matrix, alpha=-1)
        else:
            J.view(len(J), 1, -1).baddbmm_(s[:, None], self._matrix, alpha=-1)

    def rows(self, index: Rows) -> SecondDerivative:
        return self if self.runs is None else Dense(self.Q[index], check=False)


def _check_symmetric(Q: Tensor) -> None:
    apart = (Q - Q.mT).abs().max().item() if Q.numel() else 0.0
    if apart > ROUNDING * Q.abs().max().item():
        raise ValueError(
            f"expected Q symmetric in its last two axes, got entries that differ by {apart:.3g}; "
            "(Q + Q.mT) / 2 gives the same Q(u, u)"
        )


@dataclass(frozen=True, eq=False)
class LowRank(SecondDerivative):
    r"""A sum of K squares, :math:`Q_{aij} = \sum_k W_{ak} U_{ki} U_{kj}`.

    Symmetric as it stands; any Q can be written so with K at most D P. A product costs
    2 K P (D + 1) operations and reads K (D + P) numbers.

    Attributes:
        W: (D, K), or (R, D, K).
        U: (K, P), or (R, K, P), as W.

    Raises:
        TypeError: if they are not both in float32 or both in float64.
        ValueError: if the shapes do not fit, or a number is not finite.

    >>> Q = LowRank(torch.tensor([[1.0, -0.5]]), torch.eye(2))
    >>> Q.dense().Q.tolist()
    [[[1.0, 0.0], [0.0, -0.5]]]
    """

    W: Float[Tensor, "*R D K"]
    U: Float[Tensor, "*R K P"]

    __repr__ = short

    def __post_init__(self) -> None:
        W, U = tuple(self.W.shape), tuple(self.U.shape)
        if len(W) not in (2, 3) or len(U) != len(W) or W[-1] != U[-2] or W[:-2] != U[:-2]:
            raise ValueError(
                f"expected W (D, K) and U (K, P), or (R, D, K) and (R, K, P); got {W} and {U}"
            )
        check_at_least(1, outputs=self.outputs, parameters=self.parameters)
        check_tensor("W", self.W, W, "(runs, D, K)")
        check_tensor("U", self.U, U, "(runs, K, P)")
        check_same_dtype(W=self.W.dtype, U=self.U.dtype)

    @property
    def outputs(self) -> int:
        return self.W.shape[-2]

    @property
    def parameters(self) -> int:
        return self.U.shape[-1]

    @property
    def runs(self) -> int | None:
        return len(self.W) if self.W.ndim == 3 else None

    @property
    def bytes_per_run(self) -> int:
        entries = self.outputs * self.W.shape[-1]  # of W scaled by U s, which every product makes
        if self.runs is not None:
            entries += self.W[0].numel() + self.U[0].numel()
        return entries * self.W.itemsize

    @property
    def dtype(self) -> torch.dtype | None:
        return self.W.dtype

    def contract(self, s: Float[Tensor, "R P"]) -> Float[Tensor, "R D P"]:
        along = self.U @ s[:, :, None] if self.runs is not None else (s @ self.U.T)[:, :, None]
        return (self.W * along.mT) @ self.U

    def rows(self, index: Rows) -> SecondDerivative:
        return self if self.runs is None else LowRank(self.W[index], self.U[index])

    def dense(self) -> Dense:
        """The same second derivative with all entries."""
        return Dense(torch.einsum("...ak,...ki,...kj->...aij", self.W, self.U, self.U))


@dataclass(frozen=True, eq=False)
class Implicit(SecondDerivative):
    """A function that multiplies, for all runs the same.

    Attributes:
        product: from (R, P) to (R, D, P), row by row the same linear function. That it is
            symmetric and linear is taken on trust.
        shape: (D, P).

    Raises:
        ValueError: if a size is not positive, or a product has another shape.

    >>> Q = Implicit(lambda s: s[:, None, :] * torch.tensor([1.0, -0.5]), (1, 2))
    >>> Q.contract(torch.tensor([[2.0, 2.0]])).tolist()
    [[[2.0, -1.0]]]
    """

    product: Callable[[Tensor], Tensor]
    shape: tuple[int, int]

    __repr__ = short

    def __post_init__(self) -> None:
        check_at_least(1, outputs=self.outputs, parameters=self.parameters)

    @property
    def outputs(self) -> int:
        return self.shape[0]

    @property
    def parameters(self) -> int:
        return self.shape[1]

    @property
    def runs(self) -> int | None:
        return None

    @property
    def bytes_per_run(self) -> int:
        return 8 * self.outputs * self.parameters

    def contract(self, s: Float[Tensor, "R P"]) -> Float[Tensor, "R D P"]:
        found = self.product(s)
        if tuple(found.shape) != (len(s), *self.shape):
            raise ValueError(
                f"expected a product of shape (R, D, P) = {(len(s), *self.shape)}, got "
                f"{tuple(found.shape)}"
            )
        return found

    def rows(self, index: Rows) -> SecondDerivative:  # noqa: ARG002
        return self
