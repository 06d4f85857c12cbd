"""What every measurement runs under, whatever the caller has switched on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossgeom.linalg import plain_arithmetic
from lossgeom.problem.undoing import global_hooks_undone


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """Exact, differentiable and repeatable arithmetic.

    Gradients are on; autocast and TF32 are off; attention uses the back end that has second
    derivatives, and no fused path without derivatives; every pass over the data sees the same
    random numbers, and the caller's generators (of torch, NumPy and Python) come out as they went
    in. Back ends and generators belong to the process: one thread measures at a time, and a thread
    that trains meanwhile has these back ends and draws from these generators.
    """
    with ExitStack() as stack:
        stack.enter_context(plain_arithmetic(device))  # first, it waits for other threads
        fast_attention = torch.backends.mha.get_fastpath_enabled()
        stack.enter_context(global_hooks_undone())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(seeded(device, 0))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_attention)
        torch.backends.mha.set_fastpath_enabled(False)
        yield


@contextmanager
def seeded(device: torch.device, *seed: int) -> Iterator[None]:
    """Random numbers from a seed, and the caller's generators put back afterwards."""
    generators = _generators(device)
    states = [generator.get_state() for generator in generators]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    try:
        # not torch.manual_seed, which queues a call for every later start of CUDA
        for generator in generators:
            generator.manual_seed(number)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


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
