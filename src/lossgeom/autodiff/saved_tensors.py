"""How much memory autograd's graphs hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from lossgeom.problem import Problem

Result = TypeVar("Result")


def with_bytes(make: Callable[[], Result]) -> tuple[Result, dict[int, int]]:
    """What a function makes, and the bytes that graphs save of it, by the memory they are in.

    Under ``torch.func`` in a model, which has no hooks on saved tensors, it is at most that: all
    that is computed.
    """
    saved = SavedTensors()
    try:
        with saved_tensors_hooks(saved.pack, _unpack):
            return make(), saved.storages
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
    with _Results() as results:
        return make(), results.sizes


class _Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all results that have memory of their own."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}  # by their order

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """The compiler, which takes seconds to import, has no part in this."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        known = {key for part in args if isinstance(part, Tensor) for key in _memory(part)}
        for part in results if isinstance(results, (tuple, list)) else [results]:
            if isinstance(part, Tensor) and not known & _memory(part).keys():
                self.sizes[len(self.sizes)] = sum(_memory(part).values())
        return results


def _memory(tensor: Tensor) -> dict[int, int]:
    """Bytes by where they are, of a sparse tensor those of its parts."""
    if tensor.layout == torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        parts = [tensor]
    storages = [part.untyped_storage() for part in parts]
    return {storage._cdata: storage.nbytes() for storage in storages}


class SavedTensors:
    """Counts the bytes that graphs save, by the memory that they are in."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        """What is kept in the place of a saved tensor."""
        self.storages |= _memory(tensor)
        # the tensor itself would hold the node that holds it
        return tensor.detach(), tensor._version


def _unpack(saved: tuple[Tensor, int]) -> Tensor:
    """As autograd does without hooks, refuse what was changed in place since."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError(
            "the model changes in place what its derivative needs; autograd refuses its backward "
            "pass, too"
        )
    return tensor


def with_sizes(problem: Problem, make: Callable[[], Result]) -> tuple[Result, list[int]]:
    """What a function makes, and bytes that are saved for it, but for parameters.

    Those are shared by all examples.
    """
    made, storages = with_bytes(make)
    tensors = (problem.theta, *problem.network.constants())
    shared = {tensor.untyped_storage()._cdata for tensor in tensors}
    return made, [size for storage, size in storages.items() if storage not in shared]
