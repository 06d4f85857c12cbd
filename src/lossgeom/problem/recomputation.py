"""Activation checkpointing: parts of a model that are computed again where they are differentiated.

Torch keeps what is computed again in a backward pass that is itself differentiated, so its
checkpoints save nothing in second derivatives; and they read parameters where these are by then.
During an evaluation, a function of our own takes the place of torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint, noop_context_fn

from lossgeom.losses.graphs import (
    Recomputed,
    by_backward_passes,
    fresh_leaves,
    graph_nodes,
    leaves_of,
    with_bytes,
)
from lossgeom.problem.agreement import REORDERED, ROUNDED, agree_everywhere
from lossgeom.problem.double import doubled, in_double
from lossgeom.problem.isolation import noted_generators

Placing = Callable[[Sequence[Tensor]], AbstractContextManager[None]]
NOT_ALONE = (
    "a function under activation checkpointing {} tensors with gradients beside its arguments, "
    "what it returns, and parameters of modules; pass or return these, or switch checkpointing off"
)
ANOTHER = (
    "a function under activation checkpointing gives something else in the backward pass than in "
    "the forward pass; let it depend on its arguments and its parameters alone, or switch "
    "checkpointing off"
)
SEEN = 1000  # numbers of a result
OF_PART = "of_part"  # marks the leaves that one begins with
OVERRIDE = "__dynamo_disable"  # what torch's function calls where it is there
OPTIONS = ("preserve_rng_state", "determinism_check", "debug", "early_stop")


@contextmanager
def placed(values: Sequence[tuple[nn.Module, str, Tensor]]) -> Iterator[None]:
    """Put tensors in the places of parameters."""
    before = [module._parameters[name] for module, name, _ in values]
    try:
        for module, name, value in values:
            module._parameters[name] = value  # type: ignore[assignment]
        yield
    finally:
        for (module, name, _), parameter in zip(values, before, strict=True):
            module._parameters[name] = parameter


@dataclass(frozen=True)
class Checkpoints:
    """What a model computes under activation checkpointing, in one evaluation.

    Attributes:
        module: the model.
        hooks: how many it has of its own.
        slots: every module and name that a parameter has a place at, and which one it is.
        ready: makes it ready to be called at some parameters.
    """

    module: nn.Module
    hooks: int
    slots: Sequence[tuple[nn.Module, str, int]]
    ready: Placing

    @property
    def possible(self) -> bool:
        """Whether what is computed now may be computed again in a backward pass.

        Hooks of ours look at what goes through modules.
        """
        parts = self.module.modules()
        hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)
        return hooks == self.hooks and by_backward_passes()

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function of its arguments and of parameters so that it may be called again."""
        if isinstance(function, partial):
            args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
            function = function.func
        given, form = tree_flatten((args, kwargs))
        pieces = {place: module._parameters[name] for module, name, place in self.slots}
        part = Part(self, len(pieces), function, form)
        run: Any = partial(Recomputed.apply, part)
        results = run(*(pieces[place] for place in sorted(pieces)), *given)
        return tree_unflatten(list(results), part.form)

    def placed(self, pieces: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Put parameters in their places."""
        return placed([(module, name, pieces[place]) for module, name, place in self.slots])

    def active(self) -> AbstractContextManager[None]:
        """Be in the place of torch's function, whatever a model calls it by, in this thread."""
        return _in_place_of_torchs(lambda: self.call if self.possible else None)


def called_once() -> AbstractContextManager[None]:
    """Let nothing be computed again in this thread, of a function that counts its calls."""
    return _in_place_of_torchs(lambda: None)


@contextmanager
def _in_place_of_torchs(calling: Callable[[], Callable[..., Any] | None]) -> Iterator[None]:
    """Call functions under activation checkpointing in another way, if there is one now."""
    torchs: Any = getattr(checkpoint, "__wrapped__", checkpoint)
    before, thread = getattr(torchs, OVERRIDE, None), get_ident()

    def instead(
        function: Callable[..., Any],
        *args: Any,
        use_reentrant: bool | None = None,
        context_fn: Callable[[], Any] = noop_context_fn,
        **kwargs: Any,
    ) -> Any:
        if get_ident() != thread:
            kwargs |= {"use_reentrant": use_reentrant, "context_fn": context_fn}
            return (before or torchs)(function, *args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name not in OPTIONS}
        if context_fn is noop_context_fn and (call := calling()) is not None:
            return call(function, args, kwargs)
        with context_fn()[0]:
            return function(*args, **kwargs)

    setattr(torchs, OVERRIDE, instead)
    try:
        yield
    finally:
        setattr(torchs, OVERRIDE, before)


class Part:
    """A call under activation checkpointing, as a function of parameters and of its arguments.

    Args:
        checkpoints: of the model.
        count: the number of parameters.
        function: what is called.
        form: of its arguments.

    Attributes:
        form: of what it returns.
        nbytes: what its graph saves.
    """

    def __init__(
        self, checkpoints: Checkpoints, count: int, function: Callable[..., Any], form: Any
    ) -> None:
        self._in, self._count, self._function = checkpoints, count, function
        self._arguments, self.form, self.nbytes = form, form, 0
        self._as_now = _as_now(next(checkpoints.module.parameters()).device)

    def __call__(self, *given: Any) -> list[Any]:
        """Call it without gradients for its results, and with them to differentiate these."""
        return self._again(given) if torch.is_grad_enabled() else self._first(given)

    def _first(self, given: Sequence[Any]) -> list[Any]:
        leaves = fresh_leaves(given)
        for leaf in _tensors(leaves):
            vars(leaf)[OF_PART] = True
        with torch.enable_grad():
            results, storages = with_bytes(self._called, leaves, self._in.placed)
        if leaves_of(*_tensors(results)).keys() - set(map(id, leaves)):
            raise ValueError(NOT_ALONE.format("uses"))
        known = {leaf.untyped_storage()._cdata for leaf in _tensors(leaves)}
        self.nbytes = sum(size for key, size in storages.items() if key not in known)
        self._samples, self._graph = _seen(results)
        return [part.detach() if isinstance(part, Tensor) else part for part in results]

    def _again(self, given: Sequence[Any]) -> list[Any]:
        with self._as_now():  # and with hooks that hide from others what is saved only now
            results, _ = with_bytes(self._called, given, self._in.ready)
        samples, graph = _seen(results)
        both = zip(samples, self._samples, strict=True)
        if graph != self._graph or not all(agree_everywhere(*x, ROUNDED[REORDERED]) for x in both):
            raise ValueError(ANOTHER)
        return results

    def _called(self, given: Sequence[Any], placing: Placing) -> list[Any]:
        args, kwargs = tree_unflatten(list(given[self._count :]), self._arguments)
        with placing(given[: self._count]):
            results, self.form = tree_flatten(self._function(*args, **kwargs))
        return results


def _as_now(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Note what a call runs under, to be entered before it is made again."""
    draws, double = noted_generators(device), doubled()
    rounding = [
        (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        for kind in {"cpu", device.type}
    ]

    @contextmanager
    def again() -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(noted_generators(device))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(in_double(torch.float64 if double else torch.float32))
            for settings in rounding:
                stack.enter_context(torch.autocast(*settings, cache_enabled=False))
            draws()
            yield

    return again


def _tensors(parts: Sequence[Any]) -> list[Tensor]:
    return [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()]


def _seen(results: Sequence[Any]) -> tuple[list[Tensor], list[Any]]:
    """What results are known again by: some of their numbers, and the nodes of their graph."""
    tensors = _tensors(results)
    samples = [y.detach().reshape(-1)[:: max(1, y.numel() // SEEN)].clone() for y in tensors]
    graph = [
        (node.name(), [made.shape for made in node._input_metadata])
        for node in graph_nodes(*tensors)
    ]
    return samples, graph


def check_alone(leaves: Mapping[int, Tensor]) -> None:
    """Refuse leaves that something was computed from in a part that has not returned it."""
    if any(OF_PART in vars(leaf) for leaf in leaves.values()):
        raise ValueError(NOT_ALONE.format("leaves"))


def bytes_of_parts(tensor: Tensor) -> list[int]:
    """What the graph of each part saves that a tensor was computed by and is computed again."""
    kind = cast(Any, Recomputed)._backward_cls
    parts = [node.function for node in graph_nodes(tensor) if isinstance(node, kind)]
    return [part.nbytes for part in parts if isinstance(part, Part)]
