"""How much memory the graph of an example takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lossgeom.curvature._kept_graphs import with_bytes
from lossgeom.problem import Problem

Result = TypeVar("Result")


def with_sizes(problem: Problem, make: Callable[[], Result]) -> tuple[Result, list[int]]:
    """What a function makes, and bytes that are saved for it, but for parameters.

    Those are shared by all examples.
    """
    made, storages = with_bytes(make)
    tensors = (problem.theta, *problem.network.constants())
    shared = {tensor.untyped_storage()._cdata for tensor in tensors}
    return made, [size for storage, size in storages.items() if storage not in shared]
