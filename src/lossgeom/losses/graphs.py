"""Graphs of autograd: their nodes, their derivatives, what they save, and functions with none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

LASTING = 2**18  # bytes of results, from which on what was free before them is given back
CUT = "SplitWithSizesBackward0"  # the node of what cuts a vector in tensors of several sizes
NOT_DIFFERENTIABLE = ("Error", "DelayedError", "NotImplemented")  # names of autograd's nodes

Result = TypeVar("Result")


def leaves_of(*tensors: Tensor) -> dict[int, Tensor]:
    """The leaves that tensors were computed from, by their ids."""
    leaves = (getattr(node, "variable", None) for node in graph_nodes(*tensors))
    return {id(leaf): leaf for leaf in leaves if leaf is not None}


def graph_nodes(*tensors: Tensor) -> Iterator[Any]:
    """The nodes of the graph that tensors were computed by, each once."""
    seen, todo = set(), [tensor.grad_fn for tensor in tensors]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            todo += [following for following, _ in node.next_functions]


def check_differentiable_again(*gradients: Tensor) -> None:
    """Refuse gradients with a part that has no derivative; autograd would take it as zero."""
    if any(node.name().split("::")[-1] in NOT_DIFFERENTIABLE for node in graph_nodes(*gradients)):
        raise ValueError(
            "the model uses an operation without second derivatives (such as a "
            "once_differentiable function); what is made of them would be wrong"
        )


def second_derivative(
    result: Tensor, leaf: Float[Tensor, " P"], u: Tensor
) -> Callable[..., Float[Tensor, " P"]]:
    """Make the product with the derivative of the gradient of <u, result> in a leaf.

    A model cuts the leaf in its parameters. Gradients stay in these pieces, which saves a copy of
    all of them; products come in memory of their own.

    Args:
        result: computed from the leaf.
        leaf: what to differentiate in.
        u: in the shape of the result.

    Raises:
        ValueError: if a part of the gradient has no derivative.

    >>> theta = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> first, others = theta.split_with_sizes([1, 2])
    >>> H = second_derivative(first.square() @ others[:1], theta, torch.tensor(1.0))
    >>> H(torch.tensor([1.0, 0.0, 0.0])).tolist()
    [4.0, 2.0, 0.0]
    """
    pieces: Sequence[Any] = [leaf]
    sizes = [leaf.numel()]
    if (cut := _cut(result, leaf)) is not None:
        sizes = list(cut._saved_split_sizes)
        pieces = [GradientEdge(cut, place) for place in range(len(sizes))]
    found = (
        torch.autograd.grad(result, pieces, u, create_graph=True, allow_unused=True)
        if result.requires_grad
        else ()
    )
    places = [i for i, part in enumerate(found) if part is not None and part.requires_grad]
    gradients = [found[i] for i in places]
    check_differentiable_again(*gradients)

    def product(v: Tensor, *, last: bool = False) -> Tensor:
        if not gradients:  # they do not depend on the leaf
            return torch.zeros_like(v)
        parts = v.split_with_sizes(sizes)
        pulled = torch.autograd.grad(
            gradients,
            pieces,
            [parts[i] for i in places],
            retain_graph=not last,
            allow_unused=True,
        )
        both = zip(parts, pulled, strict=True)
        return torch.cat([torch.zeros_like(v) if Hv is None else Hv for v, Hv in both])

    return product


def _cut(result: Tensor, leaf: Tensor) -> Any:
    """The node that cuts a leaf in pieces, where a graph uses it in no other way."""
    own = get_gradient_edge(leaf).node
    users = [
        node
        for node in graph_nodes(result)
        if any(following is own for following, _ in node.next_functions)
    ]
    return users[0] if len(users) == 1 and users[0].name() == CUT else None


def with_bytes(
    make: Callable[..., Result], *given: Any, **named: Any
) -> tuple[Result, dict[int, int]]:
    """Call a function, and count the bytes that graphs save of it, by the memory they are in.

    Under ``torch.func`` in a model, which has no hooks on saved tensors, it is at most that: all
    that is computed.
    """
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> tuple[Tensor, int]:
        storages.update(_memory(tensor))
        # the tensor itself would hold the node that holds it
        return tensor.detach(), tensor._version

    try:
        with saved_tensors_hooks(pack, _unpack):
            return make(*given, **named), storages
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
    with _Results() as results:
        return make(*given, **named), results.sizes


def _unpack(saved: tuple[Tensor, int]) -> Tensor:
    """Return a saved tensor; refuse one that was changed since, as autograd does without hooks."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError(
            "the model changes in place what its derivative needs; autograd refuses its backward "
            "pass, too"
        )
    return tensor


class _Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that counts the bytes of all results that have memory of their own."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}  # by their order

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep the compiler out of this, which takes seconds to import."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        known = {key for part in args if isinstance(part, Tensor) for key in _memory(part)}
        for part in results if isinstance(results, (tuple, list)) else [results]:
            if isinstance(part, Tensor) and not known & _memory(part).keys():
                self.sizes[len(self.sizes)] = sum(_memory(part).values())
        return results


def _memory(tensor: Tensor) -> dict[int, int]:
    """Bytes of a tensor by the memory they are in; of a sparse one, those of its parts."""
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


class Recomputed(torch.autograd.Function):
    """A function whose graph is made where it is differentiated.

    A backward pass that is to be differentiated is such a function itself, and so on. What it takes
    for a time is given back to the system: results lie in between, and the C library uses few of
    the gaps between them again, so that it would come to hold several times what is in use.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *given: Any) -> Any:
        ctx.function = function
        ctx.others = [None if isinstance(part, Tensor) else part for part in given]
        ctx.save_for_backward(*(part if isinstance(part, Tensor) else None for part in given))
        results = tuple(function(*given))
        give_back(results)
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        parts = zip(ctx.saved_tensors, ctx.others, strict=True)
        given = [other if tensor is None else tensor for tensor, other in parts]
        pull: Any = partial(_pulled, ctx.function, ctx.needs_input_grad[1:])
        if torch.is_grad_enabled():
            pull = partial(Recomputed.apply, pull)
        pulled = pull(*given, *gradients)
        give_back(pulled)
        return None, *pulled


def _pulled(function: Callable[..., Any], wanted: Sequence[bool], *given: Any) -> list[Any]:
    """Pull gradients, given last, back to some arguments; differentiable if gradients are on."""
    again, n = torch.is_grad_enabled(), len(wanted)
    with torch.enable_grad():
        tensors = given[:n] if again else fresh_leaves(given[:n])
        # hooks hide from others what is saved for now only
        results = function(*tensors) if again else with_bytes(function, *tensors)[0]
        both = zip(results, given[n:], strict=True)
        pairs = [(y, u) for y, u in both if isinstance(y, Tensor) and y.requires_grad]
        at = [place for place, is_wanted in enumerate(wanted) if is_wanted and pairs]
        outputs, cotangents = [y for y, _ in pairs], [u for _, u in pairs]
        sources = [tensors[place] for place in at]
        found = (
            torch.autograd.grad(outputs, sources, cotangents, create_graph=again, allow_unused=True)
            if at
            else ()
        )
        pulled: list[Any] = [None] * n
        for place, gradient in zip(at, found, strict=True):
            pulled[place] = gradient
            if again and gradient is not None:
                check_differentiable_again(gradient)
    return pulled


def give_back(results: Iterable[Any]) -> None:
    """Let the C library return to the system what is free beside results, if these are large.

    On a CPU, and where it does so, as glibc does. No setting of the process is changed.
    """
    on_cpu = (y.nbytes for y in results if isinstance(y, Tensor) and y.device.type == "cpu")
    if sum(on_cpu) >= LASTING:
        with suppress(AttributeError, OSError, TypeError):  # of other C libraries
            ctypes.CDLL(None).malloc_trim(0)


def fresh_leaves(given: Sequence[Any]) -> list[Any]:
    """Return the same numbers, where a graph of their own begins."""
    return [
        part.detach().requires_grad_(part.requires_grad) if isinstance(part, Tensor) else part
        for part in given
    ]


def by_backward_passes() -> bool:
    """Whether what is computed now is differentiated by backward passes, if at all."""
    forward_mode = cast(Any, forward_ad)._current_level >= 0
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return torch.is_grad_enabled() and not (forward_mode or transformed)
