"""Checks of tensors that models are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from lossgeom.linalg.operator import DTYPES


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
    """Raise unless all tensors that have a dtype have the same."""
    if len({dtype for dtype in dtypes.values() if dtype is not None}) > 1:
        got = ", ".join(f"{name} in {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"expected tensors of one dtype, got {got}")
