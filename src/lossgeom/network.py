"""A module as a pure function of one flat parameter vector."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedParameter

from lossgeom.linalg import plain_arithmetic

Mode = Literal["eval", "train"]
MODES: tuple[Mode, ...] = ("eval", "train")


class Network:
    """A private copy of a module, evaluated at any flat vector of its trainable parameters.

    The user's module is copied once and never touched again, so nothing done here can leave a
    trace in it. Each parameter has one place in the flat vector, however many modules share it;
    frozen parameters are part of the copy, and so are hooks, which are called as ever. Buffers are
    put back after every evaluation, so that batch statistics can be used without running averages
    moving on.

    Args:
        model: any module whose trainable parameters have one floating type, float32 or float64.

    Raises:
        TypeError: if it is not a module, is compiled, or its parameters are not of one such type.
        ValueError: if it has no trainable parameter or lazy ones, or cannot be copied.

    >>> network = Network(nn.Linear(2, 1))
    >>> network.names, network.theta.shape
    (('weight', 'bias'), torch.Size([3]))
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected model to be a torch.nn.Module, got {type(model).__name__}")
        if type(model).__name__ == "OptimizedModule":
            raise TypeError(
                "a module compiled by torch.compile has no second derivatives; measure the module "
                "that was compiled, which shares its parameters"
            )
        if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
            raise ValueError("the model has lazy parameters; run one forward pass before measuring")
        self._module = _copied(model)
        parameters = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        _check_parameters(parameters)
        self.names = tuple(parameters)
        self.shapes = tuple(p.shape for p in parameters.values())
        self._sizes = [p.numel() for p in parameters.values()]
        with torch.inference_mode(False), torch.no_grad():
            self.theta = torch.cat([p.detach().reshape(-1).clone() for p in parameters.values()])
        place = {id(p): i for i, p in enumerate(parameters.values())}
        self._slots = [
            (module, name, place[id(p)])
            for module in self._module.modules()
            for name, p in module._parameters.items()
            if id(p) in place
        ]

    def split(self, vector: Float[Tensor, " P"]) -> list[Tensor]:
        """Cut a flat vector into tensors of the parameters' shapes."""
        pieces = torch.split(vector, self._sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def __call__(self, theta: Float[Tensor, " P"], inputs: Any, mode: Mode) -> Any:
        """The module's output with its parameters at theta.

        Raises:
            ValueError: if the forward pass draws random numbers, as Dropout in train mode does.
        """
        generators = _generators(self.theta.device)
        with self._at(theta, mode):
            before = _random_state(generators)
            outputs = self._module(inputs)
            after = _random_state(generators)
        if after != before:
            raise ValueError(
                f"the model drew random numbers in mode={mode!r}, so its loss is not a function of "
                "the parameters; measure it in mode='eval', or remove what is random (dropout, "
                "noise, stochastic depth)"
            )
        return outputs

    @contextmanager
    def _at(self, theta: Tensor, mode: Mode) -> Iterator[None]:
        kept = [module._parameters[name] for module, name, _ in self._slots]
        buffers = [(module, dict(module._buffers)) for module in self._module.modules()]
        pieces = self.split(theta)
        try:
            self._module.train(mode == "train")
            for module, name, i in self._slots:
                module._parameters[name] = pieces[i]  # type: ignore[assignment]
            for module, own in buffers:
                module._buffers.update({n: b if b is None else b.clone() for n, b in own.items()})
            yield
        finally:
            for (module, name, _), parameter in zip(self._slots, kept, strict=True):
                module._parameters[name] = parameter
            for module, own in buffers:
                module._buffers.clear()
                module._buffers.update(own)


def probe(network: Network, theta: Tensor, inputs: Tensor, mode: Mode) -> None:
    """Evaluate twice, to find what makes a model something else than a function of theta.

    Raises:
        ValueError: if the model keeps state from call to call, reaches tensors that require
            gradients other than through its parameters, or uses activation checkpointing.
    """
    with disable_saved_tensors_hooks(
        "activation checkpointing computes parts of the model again after the parameters have been "
        "put back; switch it off to measure"
    ):
        try:
            first, second = (network(theta, inputs.clone(), mode) for _ in range(2))
        except RuntimeError as error:
            if "activation checkpointing computes" in str(error):
                raise ValueError(str(error)) from None
            raise
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(
            "two evaluations of the model at the same parameters and inputs differ, so its loss is "
            "not a function of the parameters; remove what it keeps from call to call"
        )
    if any(getattr(node, "variable", theta) is not theta for node in graph_nodes(first)):
        raise ValueError(
            "the model uses tensors that require gradients and are not reached as parameters of "
            "its modules (kept in a list, or by a function that holds the module); make them "
            "parameters of a module, or detach them"
        )


def graph_nodes(tensor: Tensor) -> Iterator[Any]:
    """The nodes of the graph that a tensor was computed by, each once."""
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            todo += [following for following, _ in node.next_functions]


def checked_mode(mode: Mode) -> Mode:
    """The mode, if it is one."""
    if mode not in MODES:
        raise ValueError(f"expected mode to be 'eval' or 'train', got {mode!r}")
    return mode


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """What every measurement runs under, whatever the caller has switched on.

    Gradients are on and autocast is off; attention uses the back end that has second derivatives;
    every pass over the data sees the same random numbers, and the caller's generators (of torch,
    NumPy and Python) come out as they went in.
    """
    generators = _generators(device)
    states = [generator.get_state() for generator in generators]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with ExitStack() as stack:
        stack.enter_context(plain_arithmetic(device))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        try:
            # not torch.manual_seed, which queues a call for every later start of CUDA
            for generator in generators:
                generator.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _random_state(generators: Any) -> Any:
    """The state of these and of the global generators of Python and NumPy, to compare."""
    states = [generator.get_state().numpy().tobytes() for generator in generators]
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [*states, random.getstate(), kind, np.asarray(keys).tobytes(), *rest]


def _generators(device: torch.device) -> list[torch.Generator]:
    """The global generators that a forward pass on a device can draw from."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return [torch.default_generator, torch.cuda.default_generators[index]]
    return [torch.default_generator]


def _copied(model: nn.Module) -> nn.Module:
    try:
        with torch.inference_mode(False):
            return copy.deepcopy(model)
    except Exception as error:
        raise ValueError(
            f"the model could not be copied with copy.deepcopy ({error}); a measurement works on "
            "a copy so that yours stays as it is: remove what cannot be copied, such as "
            "tensors with a gradient history that the module keeps as attributes"
        ) from error


def _check_parameters(parameters: dict[str, nn.Parameter]) -> None:
    if sum(p.numel() for p in parameters.values()) == 0:
        raise ValueError(
            "the model has no trainable parameters: expected at least one with requires_grad=True"
        )
    for what in ("dtype", "device"):
        kinds = {str(getattr(p, what)) for p in parameters.values()}
        if len(kinds) > 1:
            raise TypeError(f"expected all parameters of one {what}, got {sorted(kinds)}")
    dtype = next(iter(parameters.values())).dtype
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"expected parameters in float32 or float64, got {dtype}; measure model.float() or "
            "model.double()"
        )
