"""How much memory the graph of an example takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lossgeom.curvature._kept_graphs import SavedTensors
from lossgeom.problem import Problem


class GraphSize:
    """Bytes that a forward pass saves, but for parameters, which all examples share.

    Args:
        problem: whose parameters are not counted.
    """

    def __init__(self, problem: Problem) -> None:
        tensors = (problem.theta, *problem.network.constants())
        self._shared = {tensor.untyped_storage()._cdata for tensor in tensors}
        self._saved = SavedTensors()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """The context to make the graph in."""
        with self._saved.counted():
            yield

    @property
    def sizes(self) -> list[int]:
        """Of everything that is saved."""
        storages = self._saved.storages.items()
        return [size for storage, size in storages if storage not in self._shared]
