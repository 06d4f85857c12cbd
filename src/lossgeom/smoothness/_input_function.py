"""The model as a function of one of its inputs, example by example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lossgeom.autodiff.linearized import Linearized
from lossgeom.autodiff.variables import check_reached
from lossgeom.batches import Batch
from lossgeom.problem import Problem, checked_problem
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

    @classmethod
    def of(
        cls, problem: Problem, outputs: Outputs, wrt: str | int | None, embedding: str | None
    ) -> InputFunction:
        """With its arguments checked."""
        check_outputs(outputs)
        if wrt is not None and embedding is not None:
            raise ValueError(
                f"expected either wrt={wrt!r}, an input of the model, or embedding={embedding!r}, "
                "a module whose output is differentiated in; not both"
            )
        return cls(checked_problem(problem).in_mode("eval"), outputs, wrt, embedding)

    def at(self, batch: Batch) -> Linearized:
        """The outputs of a batch with their graph from the input."""
        leaf, found = self._called(batch) if self.embedding is None else self._embedded(batch)
        return Linearized.of(leaf, chosen(self.problem, self.outputs, found, batch))

    def _called(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tensor = self._input(batch)
        leaf = tensor.detach().requires_grad_()
        check_reached(self.problem, batch, tensor)
        return leaf, self.problem.outputs(self.problem.theta, batch.with_tensor(tensor, leaf))

    def _input(self, batch: Batch) -> Tensor:
        tensor = batch.input if self._only(batch) else _named(batch, self.wrt)
        if not tensor.is_floating_point():
            raise ValueError(
                f"expected a floating-point input to differentiate in, got {tensor.dtype}; name "
                "the module that embeds it with embedding=, whose output is then what is "
                f"differentiated in{_suggestions(self.problem.network.module)}"
            )
        return tensor

    def _only(self, batch: Batch) -> bool:
        if self.wrt is None and len(batch.inputs) > 1:
            raise TypeError(
                f"expected a model with a single input, got batch {batch.index} with "
                f"{len(batch.inputs)}; say which to differentiate in with wrt=, one of "
                f"{', '.join(map(repr, _places(batch)))}, or name a module with embedding="
            )
        return self.wrt is None

    def _embedded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Let a leaf take the place of what the module puts out."""
        leaves: list[Tensor] = []
        examples = len(batch)

        def intercept(module: nn.Module, args: Any, output: Any) -> Tensor:  # noqa: ARG001
            self._check_embedded(output, examples)
            leaves.append(output.detach().requires_grad_())
            return leaves[-1].clone()  # for a model that goes on in place

        handle = self._module().register_forward_hook(intercept)
        try:
            found = self.problem.outputs(self.problem.theta, batch)
        finally:
            handle.remove()
        if len(leaves) != 1:
            raise ValueError(
                f"expected embedding={self.embedding!r} to be called once in a forward pass, it is "
                f"called {len(leaves)} times; name a module that is"
            )
        return leaves[0], found

    def _module(self) -> nn.Module:
        module, name = self.problem.network.module, str(self.embedding)
        if name not in dict(module.named_modules(remove_duplicate=False)):
            raise ValueError(
                f"expected embedding= to name a module of the model, got {name!r}"
                f"{_suggestions(module)}"
            )
        return module.get_submodule(name)

    def _check_embedded(self, output: Any, examples: int) -> None:
        rows = isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 0
        if not rows or len(output) != examples:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"expected embedding={self.embedding!r} to put out one row of floating-point "
                f"numbers for each of {examples} examples, got {got}; name another module"
            )


def _places(batch: Batch) -> list[str | int]:
    return list(batch.inputs) if isinstance(batch.inputs, dict) else list(range(len(batch.inputs)))


def _named(batch: Batch, wrt: str | int | None) -> Tensor:
    if wrt not in _places(batch):
        raise ValueError(
            f"expected wrt= to be one of {', '.join(map(repr, _places(batch)))}, the inputs in "
            f"batch {batch.index}; got {wrt!r}"
        )
    found = batch.inputs[wrt]  # type: ignore[index]
    if not isinstance(found, Tensor) or found.ndim == 0 or not batch.has_rows(found):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(
            f"expected wrt={wrt!r} to be a tensor with one row for each of {len(batch)} examples, "
            f"got {got}, which examples share"
        )
    return found


def _suggestions(module: nn.Module) -> str:
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Embedding)]
    return f"; there are the embeddings {', '.join(map(repr, names))}" if names else ""
