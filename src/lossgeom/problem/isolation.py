"""The settings that every measurement runs under, and putting back all that it touches."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as all_modules
from torch.overrides import TorchFunctionMode

from lossgeom.linalg import plain_arithmetic
from lossgeom.problem.side_effects import ATOMS, OF_EVERY_MODULE, Written

OWN_FUNCTION = vars(torch.autograd.Function)["apply"].__func__.__code__
GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """Make arithmetic exact, differentiable and repeatable.

    Gradients are on; autocast and TF32 are off; attention uses the back end that has second
    derivatives, and no fused path without derivatives; every pass over the data sees the same
    random numbers, and the caller's generators (of torch, NumPy and Python) come out as they went
    in. Back ends and generators belong to the process: one thread measures at a time, and a thread
    that trains meanwhile has these back ends and draws from these generators.
    """
    with ExitStack() as stack:
        stack.enter_context(plain_arithmetic(device))  # first, it waits for other threads
        fast_attention = torch.backends.mha.get_fastpath_enabled()
        stack.enter_context(hooks_undone())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(seeded(device, 0))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_attention)
        torch.backends.mha.set_fastpath_enabled(False)
        yield


@contextmanager
def seeded(device: torch.device, *seed: int) -> Iterator[None]:
    """Draw random numbers from a seed, and put the caller's generators back afterwards."""
    put_back = noted_generators(device)
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    try:
        # not torch.manual_seed, which queues a call for every later start of CUDA
        for generator in _generators(device):
            generator.manual_seed(number)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        yield
    finally:
        put_back()


def noted_generators(device: torch.device) -> Callable[[], None]:
    """Note how far all generators are, and return what puts them back there."""
    states = [(generator, generator.get_state()) for generator in _generators(device)]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002

    def put_back() -> None:
        for generator, state in states:
            generator.set_state(state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002

    return put_back


def random_state(device: torch.device) -> Any:
    """The state of every generator that a forward pass on a device can draw from, to compare."""
    states = [generator.get_state().numpy().tobytes() for generator in _generators(device)]
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [*states, random.getstate(), kind, np.asarray(keys).tobytes(), *rest]


def _generators(device: torch.device) -> Any:
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return [torch.default_generator, torch.cuda.default_generators[index]]
    return [torch.default_generator]


@contextmanager
def hooks_undone(hooks: Iterable[Any] = ()) -> Iterator[None]:
    """Put back what these hooks write, and those on all modules of the process."""
    everywhere = [hook for name in GLOBAL_HOOKS for hook in getattr(all_modules, name).values()]
    acting = [*hooks, *everywhere]
    written = Written(acting) if acting else None
    try:
        yield
    finally:
        if written is not None:
            written.put_back()


@contextmanager
def at_home(device: torch.device, cudnn: bool) -> Iterator[None]:
    """Let a model that relies on ``torch.set_default_device`` make things where it is.

    Without cuDNN, unless that is allowed; the backward pass goes the way of the forward one.
    """
    chosen = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    backend: Any = torch.backends.cudnn
    before = backend.enabled
    try:
        backend.enabled = before and cudnn
        with nullcontext() if chosen is None else device:
            yield
    finally:
        backend.enabled = before


class ModuleState:
    """What the modules of a private copy keep of a call, to be put back after it.

    Args:
        module: the copy, as nobody has called it.

    Attributes:
        active: whether somebody will put it back.
        hooks: those on the modules.
        attributes: those of every module, and what they were.
        inside: what can be written to in them, if there is anything.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        self.active = False
        self.hooks = [
            hook
            for part in parts
            for hooks in (part._forward_pre_hooks, part._forward_hooks)
            for hook in hooks.values()
        ]
        for part in parts:
            for hooks in (part._backward_pre_hooks, part._backward_hooks):
                for number, hook in hooks.items():
                    hooks[number] = hook if isinstance(hook, _Undone) else _Undone(hook)
        self.attributes = [(vars(part), dict(vars(part))) for part in parts]
        written = {
            id(thing): thing
            for own, _ in self.attributes
            for name, thing in own.items()
            if name not in OF_EVERY_MODULE and not isinstance(thing, ATOMS)
        }
        self.inside = Written(attributes=written.values()) if written else None


class _Undone:
    """A backward hook that acts and leaves no trace: backward passes may run at any time."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def __call__(self, *args: Any) -> Any:
        with hooks_undone([self.hook]):
            return self.hook(*args)


@dataclass(eq=False)
class Noticing(TorchFunctionMode):
    """Notices attention, and contexts that a model opens around what depends on its parameters.

    Attributes:
        kind: of the parameters' device.
        autocast: the type that is asked for.
        notes: what was noticed.
    """

    kind: str
    autocast: torch.dtype | None
    notes: list[str] = field(default_factory=list)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inside = func is F.multi_head_attention_forward and not (kwargs or {}).get("need_weights")
        if inside or func is F.scaled_dot_product_attention:
            self._note(
                "scaled_dot_product_attention switched to its math back end, which has second "
                "derivatives"
            )
        if torch.is_autocast_enabled(self.kind):
            dtype = torch.get_autocast_dtype(self.kind)
            if dtype != self.autocast:
                self._note(
                    f"the model opens torch.autocast itself: what is in it is rounded to {dtype}"
                )
        if not torch.is_grad_enabled() and _computed(func, args):
            self._note(
                "the model opens torch.no_grad itself: what it computes of its parameters in there "
                "counts as a constant"
            )
        return result

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _computed(func: Any, args: Any) -> bool:
    """Whether numbers are computed from something that autograd would differentiate."""
    if getattr(func, "__name__", "") in ("__get__", "detach", "detach_", "size", "dim"):
        return False
    parts = [part for arg in args for part in (arg if isinstance(arg, (tuple, list)) else [arg])]
    differentiable = any(isinstance(part, Tensor) and part.requires_grad for part in parts)
    return differentiable and not _in_own_function()


def _in_own_function() -> bool:
    """Whether this runs in the forward pass of an autograd.Function, which has its own backward."""
    return any(frame.f_code is OWN_FUNCTION for frame, _ in traceback.walk_stack(None))
