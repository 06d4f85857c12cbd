"""Matrices that are known through their products with blocks of vectors."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.memory import Memory
from lossgeom.messages.wording import way_to_a_matrix

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

DTYPES = (torch.float32, torch.float64)
ASYMMETRY = 0.01  # of u.(A v) - v.(A u), relative to the length of the products


class LinearOperator(ABC):
    """A real m x n matrix A, given by A @ V for blocks V of k columns.

    Subclasses say their shape, dtype and device, how to multiply (``matmat``) and their transpose
    (``T``). Operators combine with ``+``, ``-``, scalar ``*`` and ``@``; nothing is formed.

    >>> A = Dense(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    >>> ((2 * A - A) @ torch.tensor([1.0, 1.0])).tolist()
    [2.0, 3.0]
    """

    made_of: LinearOperator | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows m and columns n."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the vectors it takes and returns."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of its vectors."""

    @property
    @abstractmethod
    def T(self) -> LinearOperator:  # noqa: N802
        """The transpose; a symmetric operator returns itself."""

    @abstractmethod
    def matmat(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        """The product A V with a block of k vectors."""

    @property
    def memory(self) -> Memory:
        """The account of what it holds, in which solvers put down what they hold beside it."""
        return self.made_of.memory if self.made_of else Memory(device=self.device)

    def __repr__(self) -> str:
        m, n = self.shape
        kind = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({m} x {n}, {kind} on {self.device})"

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    def __matmul__(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        if not isinstance(other, (Tensor, LinearOperator)):
            raise TypeError(
                f"expected a tensor or an operator to multiply, got {type(other).__name__}; "
                "to_scipy() multiplies NumPy arrays"
            )
        if isinstance(other, Tensor) and other.ndim not in (1, 2):
            raise ValueError(f"expected a vector or a block of them, got {other.ndim} dimensions")
        if other.shape[0] != self.shape[1]:
            raise ValueError(
                f"cannot multiply an operator of shape {self.shape} by something with "
                f"{other.shape[0]} rows; expected {self.shape[1]}"
            )
        if other.dtype != self.dtype:
            raise TypeError(f"cannot multiply an operator in {self.dtype} by one in {other.dtype}")
        if isinstance(other, LinearOperator):
            return MatrixFree.like(
                self,
                lambda V: self.matmat(other.matmat(V)),
                lambda: other.T @ self.T,
                size=(self.shape[0], other.shape[1]),
            )
        return self.matmat(other[:, None])[:, 0] if other.ndim == 1 else self.matmat(other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        if self.shape != other.shape:
            raise ValueError(f"cannot add operators of shapes {self.shape} and {other.shape}")
        return MatrixFree.like(
            self, lambda V: self.matmat(V) + other.matmat(V), lambda: self.T + other.T
        )

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + (-1.0) * other

    def __mul__(self, factor: float) -> LinearOperator:
        return MatrixFree.like(self, lambda V: factor * self.matmat(V), lambda: factor * self.T)

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return (-1.0) * self

    def dense(self) -> Float[Tensor, "m n"]:
        """The matrix itself, at the cost of n products, or of m with the transpose if m < n."""
        m, n = self.shape
        unit = torch.eye(min(m, n), dtype=self.dtype, device=self.device)
        return self.T.matmat(unit).T if m < n else self.matmat(unit)

    def to_scipy(self) -> ScipyOperator:
        """The same matrix for SciPy's solvers; products cross to NumPy and back."""
        from scipy.sparse.linalg import LinearOperator as ScipyOperator

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        forward, backward = partial(_in_numpy, self), partial(_in_numpy, self.T)
        return ScipyOperator(
            self.shape, matvec=forward, matmat=forward, rmatvec=backward, dtype=dtype
        )


def _in_numpy(operator: LinearOperator, V: Any) -> Any:
    block = torch.as_tensor(V, dtype=operator.dtype, device=operator.device)
    return (operator @ block).cpu().numpy()


@dataclass(frozen=True, eq=False, repr=False)
class Dense(LinearOperator):
    """A matrix that is there, as an operator.

    >>> Dense(torch.eye(3)).shape
    (3, 3)
    """

    matrix: Float[Tensor, "m n"]

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return Dense(self.matrix.T)

    def matmat(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        return self.matrix @ V


@dataclass(frozen=True, eq=False, repr=False)
class MatrixFree(LinearOperator):
    """A matrix given by a function that multiplies.

    >>> like = Dense(torch.eye(2))
    >>> double = MatrixFree.like(like, lambda V: 2 * V, lambda: double)
    >>> double.dense().tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """

    size: tuple[int, int]
    vector_dtype: torch.dtype
    vector_device: torch.device
    product: Callable[[Tensor], Tensor]
    transpose: Callable[[], LinearOperator]
    made_of: LinearOperator | None = None

    @classmethod
    def like(
        cls,
        other: LinearOperator,
        product: Callable[[Tensor], Tensor],
        transpose: Callable[[], LinearOperator],
        size: tuple[int, int] | None = None,
    ) -> MatrixFree:
        """Make an operator with the dtype, the device and (unless given) the shape of another."""
        return cls(size or other.shape, other.dtype, other.device, product, transpose, other)

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def dtype(self) -> torch.dtype:
        return self.vector_dtype

    @property
    def device(self) -> torch.device:
        return self.vector_device

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self.transpose()

    def matmat(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        return self.product(V)


def as_operator(A: Any) -> LinearOperator:
    """Take a matrix in any of the forms people have it in.

    Args:
        A: a LinearOperator, a 2-d tensor, a SciPy LinearOperator, or anything that multiplies
            torch blocks with ``@`` and has ``shape``, ``dtype``, ``device`` and ``adjoint()``,
            as the operators of curvlinops do.

    Raises:
        TypeError: for anything else.

    >>> as_operator(torch.eye(2)).shape
    (2, 2)
    """
    if isinstance(A, LinearOperator):
        return A
    if isinstance(A, Tensor) and A.ndim == 2:
        return Dense(A)
    scipy_linalg = sys.modules.get("scipy.sparse.linalg")
    if scipy_linalg is not None and isinstance(A, scipy_linalg.LinearOperator):
        return _from_scipy(A)
    try:
        size = (int(A.shape[0]), int(A.shape[1]))
        adjoint = A.adjoint
        return MatrixFree(size, A.dtype, A.device, A.__matmul__, lambda: as_operator(adjoint()))
    except (AttributeError, IndexError):
        raise TypeError(
            "expected a matrix: a LinearOperator of lossgeom, SciPy or curvlinops, or a 2-d "
            f"tensor; got {type(A).__name__}{way_to_a_matrix(A)}"
        ) from None


def real_operator(A: Any) -> LinearOperator:
    """Take a matrix in a type that the algorithms work in.

    Raises:
        TypeError: for another type.
    """
    operator = as_operator(A)
    if operator.dtype not in DTYPES:
        raise TypeError(f"expected an operator in float32 or float64, got {operator.dtype}")
    return operator


def square_operator(A: Any) -> LinearOperator:
    """Take a square matrix in a type that the algorithms work in.

    Raises:
        TypeError: for another type.
        ValueError: for another shape.
    """
    operator = real_operator(A)
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(f"expected a square matrix, got one of shape {operator.shape}")
    return operator


def check_symmetric(above: Tensor, below: Tensor, tolerance: Tensor | float) -> None:
    """Raise where u.(A v) and v.(A u) differ."""
    wrong = (above - below).abs() > tolerance
    if wrong.any():
        i = int(wrong.flatten().nonzero()[0])
        raise ValueError(
            "expected a symmetric operator, but u.(A v) and v.(A u) differ: "
            f"{above.flatten()[i].item():.6g} and {below.flatten()[i].item():.6g}"
        )


def _from_scipy(A: Any) -> LinearOperator:
    dtype = torch.from_numpy(A.dtype.type([0])).dtype

    device = torch.device("cpu")

    def product(V: Tensor) -> Tensor:
        return torch.as_tensor(A.matmat(V.numpy()), dtype=dtype)

    return MatrixFree(A.shape, dtype, device, product, lambda: as_operator(A.H))
