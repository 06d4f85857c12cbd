"""A network as a graph of layers, each with a known effect on bounds."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.lipschitz.certified.activations import Activation
from lossgeom.lipschitz.certified.affine_maps import Affine, folded
from lossgeom.lipschitz.certified.max_pooling import MaxPool
from lossgeom.lipschitz.certified.modules import layer_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sum:
    """The sum of two values."""


@dataclass(frozen=True)
class Concatenation:
    """Values after one another, each flattened."""


Operation = Affine | Activation | MaxPool | Sum | Concatenation


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on values that earlier steps have computed; the input is value 0."""

    operation: Operation
    arguments: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Graph:
    """Steps in order: step i computes value i + 1, and the last one the output."""

    input_shape: Shape
    steps: tuple[Step, ...]

    def __call__(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The outputs of the network."""
        values = [x]
        for step in self.steps:
            values.append(_value(step.operation, *(values[i] for i in step.arguments)))
        return values[-1]


def _value(operation: Operation, *x: Tensor) -> Tensor:
    match operation:
        case Affine():
            return operation.linear(x[0]) + operation.bias
        case Activation():
            return operation.value.function(x[0])
        case MaxPool():
            return operation(x[0])
        case Sum():
            return x[0] + x[1]
        case Concatenation():
            return torch.cat([part.flatten(1) for part in x], dim=1)


@dataclass(frozen=True)
class Value:
    """A tensor of a network.

    Attributes:
        index: its place among the values.
        shape: of one example.
        storage: the same number for all that may share memory.
    """

    index: int
    shape: Shape
    storage: int


class Builder:
    """Puts a graph together, a step at a time."""

    def __init__(self, input_shape: Shape) -> None:
        self.input_shape = input_shape
        self.steps: list[Step] = []
        self.storages = itertools.count()

    def input(self) -> Value:
        """What the network is given."""
        return Value(0, self.input_shape, next(self.storages))

    def copy(self, value: Value) -> Value:
        """The same numbers in memory of their own."""
        return replace(value, storage=next(self.storages))

    def layer(self, module: nn.Module, value: Value) -> Value:
        """The result of a module that takes one tensor."""
        operation = layer_of(module, value.shape)
        return value if operation is None else self.add(operation, value)

    def add(self, operation: Operation, *values: Value) -> Value:
        """One step more; an affine one is folded with an affine one before it where that fits."""
        arguments = tuple(value.index for value in values)
        if isinstance(operation, Affine) and arguments[0] > 0:
            before = self.steps[arguments[0] - 1]
            both = (
                folded(before.operation, operation)
                if isinstance(before.operation, Affine)
                else None
            )
            if both is not None:
                operation, arguments = both, before.arguments
        shape = values[0].shape
        if isinstance(operation, (Affine, MaxPool)):
            shape = operation.output_shape
        elif isinstance(operation, Concatenation):
            shape = (sum(math.prod(value.shape) for value in values),)
        self.steps.append(Step(operation, arguments, shape))
        moved = isinstance(operation, Affine) and operation.kind == "picking"
        storage = values[0].storage if moved else next(self.storages)
        return Value(len(self.steps), shape, storage)

    def graph(self, output: Value) -> Graph:
        """The steps that an output needs."""
        needed = {output.index}
        for i in range(output.index, 0, -1):
            if i in needed:
                needed.update(self.steps[i - 1].arguments)
        places = {old: new for new, old in enumerate(sorted({0} | needed))}
        steps = [
            Step(step.operation, tuple(places[a] for a in step.arguments), step.shape)
            for i, step in enumerate(self.steps, start=1)
            if i in needed
        ]
        return Graph(self.input_shape, tuple(steps))
