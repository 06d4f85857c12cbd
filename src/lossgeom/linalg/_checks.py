"""What the algorithms ask of a matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossgeom.linalg.operator import LinearOperator, as_operator

DTYPES = (torch.float32, torch.float64)
ASYMMETRY = 0.01  # of u.(A v) - v.(A u), relative to the length of the products


def real_operator(A: LinearOperator | Tensor | Any) -> LinearOperator:
    """A matrix in a type that the algorithms work in."""
    A = as_operator(A)
    if A.dtype not in DTYPES:
        raise TypeError(f"expected an operator in float32 or float64, got {A.dtype}")
    return A


def square_operator(A: LinearOperator | Tensor | Any) -> LinearOperator:
    """The same, square."""
    A = real_operator(A)
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"expected a square matrix, got one of shape {A.shape}")
    return A


def check_at_least(minimum: int, **arguments: int | None) -> None:
    """Raise for a number that is too small."""
    for name, value in arguments.items():
        if value is not None and value < minimum:
            raise ValueError(f"expected {name} of at least {minimum}, got {value}")


def check_symmetric(above: Tensor, below: Tensor, tolerance: Tensor | float) -> None:
    """Raise where u.(A v) and v.(A u) differ."""
    wrong = (above - below).abs() > tolerance
    if wrong.any():
        i = int(wrong.flatten().nonzero()[0])
        raise ValueError(
            "expected a symmetric operator, but u.(A v) and v.(A u) differ: "
            f"{above.flatten()[i].item():.6g} and {below.flatten()[i].item():.6g}"
        )
