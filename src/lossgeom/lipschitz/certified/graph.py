"""A network as a graph of layers, each with a known effect on bounds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.lipschitz.certified.activations import Activation
from lossgeom.lipschitz.certified.affine_maps import Affine, Shape, folded
from lossgeom.lipschitz.certified.max_pooling import MaxPool
from lossgeom.lipschitz.certified.smooth_maps import SmoothMap


@dataclass(frozen=True)
class Sum:
    """The sum of two values."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Add two values."""
        return x + y


@dataclass(frozen=True)
class Concatenation:
    """Values after one another, each flattened."""

    def __call__(self, *x: Tensor) -> Tensor:
        """Join values to one row for each example."""
        return torch.cat([part.flatten(1) for part in x], dim=1)


Layer = Affine | Activation | MaxPool | SmoothMap
Operation = Layer | Sum | Concatenation


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on values that earlier steps have computed; the input is value 0."""

    operation: Operation
    arguments: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Graph:
    """The steps of a network in order: step i computes value i + 1, the last one the output."""

    steps: tuple[Step, ...]

    def __call__(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The outputs of the network."""
        values = [x]
        for step in self.steps:
            values.append(step.operation(*(values[i] for i in step.arguments)))
        return values[-1]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a network whose graph is being put together.

    Attributes:
        shape: of one example.
        index: its place among the values.
        steps: all so far, a list that the values of a network share.
        storage: the same object for all values that may share memory.
    """

    shape: Shape
    index: int = 0
    steps: list[Step] = field(default_factory=list)
    storage: object = field(default_factory=object)

    def copy(self) -> Value:
        """The same numbers in memory of their own."""
        return replace(self, storage=object())

    def then(self, operation: Operation | None, *others: Value) -> Value:
        """Add a step and return its result; without an operation, return the value itself.

        An affine step is folded with an affine one before it where that fits.
        """
        if operation is None:
            return self
        values = (self, *others)
        arguments = tuple(value.index for value in values)
        zeros = [torch.zeros(1, *value.shape, dtype=torch.float64) for value in values]
        step = Step(operation, arguments, tuple(operation(*zeros).shape[1:]))
        before = self.steps[self.index - 1] if self.index else None
        if before and isinstance(before.operation, Affine) and isinstance(operation, Affine):
            both = folded(before.operation, operation)
            step = Step(both, before.arguments, step.shape) if both else step
        self.steps.append(step)
        moved = isinstance(operation, Affine) and operation.kind == "picking"
        storage = self.storage if moved else object()
        return replace(self, shape=step.shape, index=len(self.steps), storage=storage)

    def graph(self) -> Graph:
        """The graph that computes this value, without steps that it does not need."""
        needed = {0, self.index}
        for i in range(self.index, 0, -1):
            if i in needed:
                needed.update(self.steps[i - 1].arguments)
        places = {old: new for new, old in enumerate(sorted(needed))}
        steps = [self.steps[i - 1] for i in places if i > 0]
        return Graph(
            tuple(replace(s, arguments=tuple(places[a] for a in s.arguments)) for s in steps)
        )
