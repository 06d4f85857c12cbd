"""What the models and loops ask of their arguments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64)


def check_number(
    name: str, value: float, low: float, high: float = math.inf, *, at_low: bool = False
) -> None:
    """Raise unless low < value < high, or equal to low where that is allowed."""
    if not (low < value < high or (at_low and value == low)):
        least = f"{name} >= {low:g}" if at_low else f"{name} > {low:g}"
        most = "" if math.isinf(high) else f" and < {high:g}"
        raise ValueError(f"expected {least}{most}, got {value}")


def check_at_least(minimum: int, **arguments: int | None) -> None:
    """Raise for a number that is too small."""
    for name, value in arguments.items():
        if value is not None and value < minimum:
            raise ValueError(f"expected {name} of at least {minimum}, got {value}")


def check_tensor(name: str, value: Tensor, shape: tuple[int | None, ...], axes: str) -> None:
    """Raise unless a tensor is of that shape, where None stands for any size, real and finite."""
    fits = value.ndim == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, value.shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"expected {name} of shape {axes} = ({sizes}), got {tuple(value.shape)}; "
            "the first axis counts runs, also where there is one"
        )
    if value.dtype not in DTYPES:
        raise TypeError(f"expected {name} in float32 or float64, got {value.dtype}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"expected finite numbers in {name}, got NaN or infinity")


def check_same_dtype(**dtypes: torch.dtype | None) -> None:
    """Raise unless all that have a dtype have the same."""
    if len({dtype for dtype in dtypes.values() if dtype is not None}) > 1:
        got = ", ".join(f"{name} in {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"expected tensors of one dtype, got {got}")
