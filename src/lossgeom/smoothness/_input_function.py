"""The model as a function of one of its inputs, example by example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.autodiff.hooks import hooked
from lossgeom.autodiff.linearized import Linearized
from lossgeom.batches import Batch, tensors_of
from lossgeom.losses.graphs import graph_nodes
from lossgeom.problem import Problem
from lossgeom.problem.model_facts import Key
from lossgeom.smoothness.outputs import Outputs, check_outputs, chosen


@dataclass(frozen=True, eq=False)
class InputFunction:
    """Outputs of a problem's model, in eval mode, as a function of one input.

    Attributes:
        problem: in eval mode.
        outputs: which of them.
        wrt: the key or place of the input; ``None`` where there is only one.
        embedding: name of the module whose output takes the place of the input, or ``None``.
    """

    problem: Problem
    outputs: Outputs
    wrt: str | int | None
    embedding: str | None

    def __post_init__(self) -> None:
        check_outputs(self.outputs)
        if self.wrt is not None and self.embedding is not None:
            raise ValueError(
                f"expected either wrt={self.wrt!r}, an input of the model, or "
                f"embedding={self.embedding!r}, a module whose output is differentiated in; not "
                "both"
            )

    def at(self, batch: Batch) -> Linearized:
        """Linearise the outputs of a batch in the input."""
        if self.embedding is not None:
            return self._embedded(batch, self.embedding)
        tensor = self._input(batch)
        if not tensor.is_floating_point():
            raise ValueError(
                f"expected a floating-point input to differentiate in, got {tensor.dtype}; name "
                "the module that embeds it with embedding=, whose output is then what is "
                f"differentiated in{_suggestions(self.problem.network.module)}"
            )
        return linearized_in(self.problem, self.outputs, batch, tensor)

    def _input(self, batch: Batch) -> Tensor:
        """The input that was named, or the only one."""
        inputs: Any = batch.inputs
        places = list(inputs) if isinstance(inputs, dict) else list(range(len(inputs)))
        listed = ", ".join(map(repr, places))
        if self.wrt is None:
            if len(inputs) > 1:
                raise TypeError(
                    f"expected a model with a single input, got batch {batch.index} with "
                    f"{len(inputs)}; say which to differentiate in with wrt=, one of {listed}, or "
                    "name a module with embedding="
                )
            return batch.input
        if self.wrt not in places:
            raise ValueError(
                f"expected wrt= to be one of {listed}, the inputs in batch {batch.index}; got "
                f"{self.wrt!r}"
            )
        found = inputs[self.wrt]
        if not isinstance(found, Tensor) or found.ndim == 0 or not batch.has_rows(found):
            raise TypeError(
                f"expected wrt={self.wrt!r} to be a tensor with one row for each of {len(batch)} "
                f"examples, got {_shape_or_type(found)}, which examples share"
            )
        return found

    def _embedded(self, batch: Batch, name: str) -> Linearized:
        """Linearise the outputs of a batch in what the module puts out."""
        model, n, leaves = self.problem.network.module, len(batch), list[Tensor]()
        module = dict(model.named_modules(remove_duplicate=False)).get(name)
        if module is None:
            raise ValueError(
                f"expected embedding= to name a module of the model, got {name!r}"
                f"{_suggestions(model)}"
            )

        def intercept(module: nn.Module, args: Any, output: Any) -> Tensor:  # noqa: ARG001
            rows = isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 0
            if not rows or len(output) != n:
                raise ValueError(
                    f"expected embedding={name!r} to put out one row of floating-point numbers for "
                    f"each of {n} examples, got {_shape_or_type(output)}; name another module"
                )
            leaves.append(output.detach().requires_grad_())
            return leaves[-1].clone()  # for a model that goes on in place

        with hooked([module], intercept):
            found = self.problem.outputs(self.problem.theta, batch)
        if len(leaves) != 1:
            raise ValueError(
                f"expected embedding={name!r} to be called once in a forward pass, it is called "
                f"{len(leaves)} times; name a module that is"
            )
        return Linearized.of(leaves[0], chosen(self.problem, self.outputs, found, batch))


def _shape_or_type(thing: Any) -> tuple[int, ...] | str:
    return tuple(thing.shape) if isinstance(thing, Tensor) else type(thing).__name__


def _suggestions(module: nn.Module) -> str:
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Embedding)]
    return f"; there are the embeddings {', '.join(map(repr, names))}" if names else ""


def differentiable_input(batch: Batch) -> Tensor:
    """The input, if there can be a gradient in it."""
    if not batch.input.is_floating_point():
        raise ValueError(
            f"expected floating-point inputs to differentiate in, got {batch.input.dtype}"
        )
    return batch.input


def linearized_in(problem: Problem, outputs: Outputs, batch: Batch, tensor: Tensor) -> Linearized:
    """Linearise the outputs of a batch in one of its inputs.

    Raises:
        ValueError: for a model that takes the input out of the graph, where the derivative would
            pass for zero. That is looked at once for a model, shape of an example and input.
    """

    def run(other: Tensor) -> Tensor:
        return problem.outputs(problem.theta, batch.with_tensor(tensor, other))

    def reached() -> bool:
        if any(getattr(node, "variable", None) is leaf for node in graph_nodes(found)):
            return True
        with torch.no_grad():  # as is right for a model that does not depend on it
            there = run(0.9 * tensor + 0.1 * tensor.flip(0) + 0.01)
            return torch.equal(there, found)

    leaf = tensor.detach().requires_grad_()
    found = run(leaf)
    place = tuple(part is tensor for part in tensors_of(batch.inputs))
    if not problem.evaluation.facts.known(Key(linearized_in, (tensor.shape[1:], place)), reached):
        raise ValueError(
            "expected outputs to be differentiable in the input, but they change with it and have "
            "no graph that leads there: the model detaches it (x.detach(), torch.no_grad(), or a "
            "tensor made of its numbers). A model that differentiates in its own input can do so "
            "in x.clone() under torch.enable_grad()"
        )
    return Linearized.of(leaf, chosen(problem, outputs, found, batch))
