"""Functions that move numbers about and change none: reshaping, transposing, slicing, splitting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossgeom.lipschitz.certified.affine_maps import Affine, Shape, picking

EXAMPLES = 2  # in the batch that functions are tried on, so that mixing them shows


class UnknownArguments(Exception):  # noqa: N818
    """Raised where a known function is called in a way that no bound is known for."""


def rearranged(function: Callable[[Tensor], Any], shape: Shape) -> list[Affine | None]:
    """What a function does to examples of a shape, for each of its results; ``None`` for nothing.

    It is tried on the places themselves, each number being its own.

    Raises:
        UnknownArguments: if examples are mixed.
    """
    n = math.prod(shape)
    places = torch.arange(EXAMPLES * n, dtype=torch.float64).reshape(EXAMPLES, *shape)
    results = function(places)
    several = isinstance(results, (tuple, list))
    return [_picked(result, shape, n) for result in (results if several else [results])]


def _picked(result: Tensor, shape: Shape, n: int) -> Affine | None:
    if result.ndim < 1 or len(result) != EXAMPLES or result.numel() == 0:
        raise UnknownArguments
    first, second = result.reshape(EXAMPLES, -1).long()
    if not (torch.equal(first + n, second) and first.amax() < n):
        raise UnknownArguments
    output = tuple(result.shape[1:]) or (1,)
    same = output == shape and torch.equal(first, torch.arange(n))
    return None if same else picking(first, shape, output)
