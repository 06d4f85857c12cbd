"""The layer that a model's input goes through first, as a linear map of one example."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.autodiff.variables import Leaves, differentiable_input
from lossgeom.batches import Batch
from lossgeom.linalg.operator_norms import convolution_norm, dense_norm
from lossgeom.problem import Problem

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LINEAR = (nn.Linear, *CONVOLUTIONS)
DENSE_NUMBERS = 2**22  # of the matrix of a convolution, where its norm is computed exactly
TRANSFORM_OPERATIONS = 2**32  # for the norm of a large one; some ten seconds


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """A layer z = W x + b, with x and z flattened, and W a matrix with a weight for every entry.

    Attributes:
        label: of the layer in the model.
        module: the layer.
        weight: what it multiplies with, any parametrisation applied.
        input_shape: of what it is called with, for one example.
        output_shape: of what it puts out.
    """

    label: str
    module: Any
    weight: Tensor
    input_shape: torch.Size
    output_shape: torch.Size
    shared = (False, False)

    @property
    def name(self) -> tuple[str, str]:
        """As variables to differentiate in: the input and what the layer puts out."""
        return "input and outputs of", self.label

    def at(self, problem: Problem, batch: Batch) -> Leaves:
        """The input, and a shift of what the layer puts out."""
        shift = problem.theta.new_zeros(len(batch), *self.output_shape)
        return differentiable_input(batch), shift

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        """Of the model, from input and shift."""
        x, shift = leaves
        handle = self.module.register_forward_hook(lambda module, args, z: z + shift)  # noqa: ARG005
        try:
            return problem.outputs(problem.theta, batch.with_tensor(batch.input, x))
        finally:
            handle.remove()

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x for a batch, with another weight in the place of its own."""
        if isinstance(self.module, nn.Linear):
            return F.linear(x, weight)
        result: Tensor = self.module._conv_forward(x, weight, None)
        return result

    def transposed(self, u: Float[Tensor, "M H"], weight: Tensor) -> Float[Tensor, "M D"]:
        """W^T u for each row."""
        x = u.new_zeros(len(u), *self.input_shape, requires_grad=True)
        z = self.multiply(x, weight)
        (product,) = torch.autograd.grad(z, x, u.reshape(z.shape))
        return product.flatten(1)

    def transposed_norms(self, orders: Sequence[int]) -> dict[int, float]:
        r"""At least the norm of W^T in l_2k, for each order k.

        By interpolation between p = 2 and infinity,
        ||W^T||_p <= ||W^T||_2^(2/p) ||W^T||_inf^(1-2/p), which is never more than
        ||W^T||_1^(1/p) ||W^T||_inf^(1-1/p) and needs no search.
        """
        _, largest_column = self._largest_sums
        return {k: self.spectral_norm ** (1 / k) * largest_column ** (1 - 1 / k) for k in orders}

    @cached_property
    def _largest_sums(self) -> tuple[float, float]:
        """Of magnitudes in a row of W, and in a column."""
        magnitude = self.weight.double().abs()
        rows = self.multiply(magnitude.new_ones(1, *self.input_shape), magnitude)
        columns = self.transposed(torch.ones_like(rows).flatten(1), magnitude)
        return rows.max().item(), columns.max().item()

    @cached_property
    def spectral_norm(self) -> float:
        """Exact for Linear layers and small convolutions, but for what covers rounding."""
        weight, D = self.weight.double(), self.input_shape.numel()
        if isinstance(self.module, nn.Linear):
            return float(dense_norm(weight))
        if D * self.output_shape.numel() <= DENSE_NUMBERS:
            unit = torch.eye(D, dtype=weight.dtype, device=weight.device)
            columns = self.multiply(unit.reshape(D, *self.input_shape), weight)
            return float(dense_norm(columns.flatten(1)))
        by_sums = math.prod(self._largest_sums) ** 0.5
        return min(by_sums, self._convolution_norm(weight))

    def _convolution_norm(self, weight: Tensor) -> float:
        conv = self.module
        if conv.padding_mode != "zeros":
            return math.inf
        # "same" and "valid": where the outputs lie makes no difference at stride 1
        padding = (0,) * len(conv.stride) if isinstance(conv.padding, str) else conv.padding
        size, limit = self.input_shape[-len(conv.stride) :], TRANSFORM_OPERATIONS
        return convolution_norm(
            weight, size, conv.stride, padding, conv.dilation, conv.groups, operations=limit
        )


@torch.no_grad()
def first_layer(problem: Problem, batch: Batch, name: str | None) -> FirstLayer:
    """The one Linear or convolutional layer that is called with the input of the model.

    Raises:
        ValueError: if there is none, or several, or one that is applied more than once.
    """
    differentiable_input(batch)
    calls, numbers = _calls(problem, batch), batch.input[0].numel()
    receiving = {label: call for label, call in calls.items() if call.receives}
    found = {label: c for label, c in receiving.items() if isinstance(c.module, LINEAR)}
    if name is not None:
        found = {label: call for label, call in found.items() if label == name}
    if len(found) != 1:
        others = ", ".join(f"{type(c.module).__name__} ({n})" for n, c in receiving.items())
        raise ValueError(
            f"expected {'one layer' if name is None else f'the layer {name!r}'}, Linear or a "
            f"convolution, to be called with the input of the model, as it is or flattened; the "
            f"input goes to {others or 'no module without others inside'}"
        )
    (label, call), *_ = found.items()
    module, x, z = call.module, call.x, call.z
    single = len(x) == len(batch) and x[0].numel() == numbers
    if isinstance(module, nn.Linear):
        single &= numbers == module.in_features
    if call.times > 1 or not single:
        raise ValueError(
            f"expected the layer {label!r} to be applied once to all of an example's input, but "
            "its weight is shared between positions or calls"
        )
    return FirstLayer(label, module, call.weight, x.shape[1:], z.shape[1:])


@dataclass(eq=False)
class _Call:
    """The first call of a module, and how many there are."""

    module: nn.Module
    x: Tensor
    z: Tensor
    weight: Tensor
    receives: bool
    times: int = 1


def _calls(problem: Problem, batch: Batch) -> dict[str, _Call]:
    """The modules without others inside that are called with one tensor, by name."""
    calls: dict[str, _Call] = {}
    given = batch.input.flatten()

    def noting(label: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, args: Any, z: Any) -> None:
            if label in calls:
                calls[label].times += 1
            elif args and isinstance(args[0], Tensor) and isinstance(z, Tensor):
                x = args[0].detach().clone()
                weight = getattr(module, "weight", None)
                weight = weight.detach().clone() if isinstance(weight, Tensor) else x
                same = torch.equal(x.flatten().to(given), given)
                calls[label] = _Call(module, x, z.detach().clone(), weight, same)

        return note

    handles = [
        module.register_forward_hook(noting(label))
        for label, module in problem.network.module.named_modules()
        if isinstance(module, LINEAR) or not any(module.children())
    ]
    try:
        problem.outputs(problem.theta, batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls
