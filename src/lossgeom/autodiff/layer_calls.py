"""What layers are called with on a batch, and the gradients at what they put out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.autodiff.hooks import hooked
from lossgeom.batches import Batch
from lossgeom.problem import Problem

Pulled = dict[nn.Module, list[Tensor]]  # gradients at what each call put out, k of each


class LayerCalls:
    """One pass of a batch through a model, with a leaf at what some modules put out.

    The leaf is a zero that is added to a module's output, so a model may go on in place with the
    sum, and gradients in the leaf are those at the output whatever else depends on parameters.

    Args:
        problem: the model.
        modules: whose calls are noted; linear layers and convolutions, which put out new memory.
        theta: the parameters; a plain tensor, so that backward passes take no gradients in them.
        batch: the data.

    Attributes:
        outputs: of the model.
        inputs: what each module was called with, call after call. A model that changes it in place
            later has no gradient in the module's parameters.
    """

    def __init__(
        self, problem: Problem, modules: Sequence[nn.Module], theta: Tensor, batch: Batch
    ) -> None:
        self.inputs: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}
        self._leaves: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}
        with hooked(modules, self._add_leaf, self._note_input):
            self.outputs = problem.outputs(theta, batch)

    def _note_input(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given: Tensor = next(iter((*args, *kwargs.values())))
        self.inputs[module].append(given.detach())

    def _add_leaf(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:  # noqa: ARG002
        leaf = output.new_zeros(()).expand_as(output).requires_grad_()  # takes no memory
        self._leaves[module].append(leaf)
        alone = len(module._forward_hooks) == 1 and not output._is_view()  # nobody else has seen it
        return output.add_(leaf) if alone else output + leaf

    @property
    def leaves(self) -> list[Tensor]:
        """All leaves, module by module."""
        return [leaf for leaves in self._leaves.values() for leaf in leaves]

    @property
    def nbytes(self) -> int:
        """The memory of the gradients of one number at all leaves."""
        return sum(leaf.nbytes for leaf in self.leaves)

    def pulled(self, U: Float[Tensor, "k ..."]) -> Pulled:
        """Pull k vectors of the shape of the outputs back to what each call put out."""
        leaves = self.leaves
        found = [leaf.expand(len(U), *leaf.shape) for leaf in leaves]
        if leaves and self.outputs.requires_grad:
            found = _gradients(self.outputs, leaves, U)
        parts = iter(found)
        like = self.outputs.detach()  # wider than what layers put out, under autocast
        return {m: [next(parts).to(like) for _ in own] for m, own in self._leaves.items()}


def _gradients(outputs: Tensor, leaves: list[Tensor], U: Tensor) -> list[Tensor]:
    """Take gradients of all vectors at once, or one by one where a model has no such backward."""
    take = partial(torch.autograd.grad, outputs, leaves, retain_graph=True)
    if len(U) > 1:
        with suppress(RuntimeError):  # of a function that vmap has no rule for
            found = zip(leaves, take(U, allow_unused=True, is_grads_batched=True), strict=True)
            return [x.expand(len(U), *x.shape) if part is None else part for x, part in found]
    alone = zip(*(take(u, materialize_grads=True) for u in U), strict=True)
    return [torch.stack(parts) if len(parts) > 1 else parts[0][None] for parts in alone]
