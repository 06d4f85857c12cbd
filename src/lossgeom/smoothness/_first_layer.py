"""The layer that a model's input goes through first, as a linear map of one example."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.autodiff.hooks import hooked, noted
from lossgeom.autodiff.linearized import Linearized
from lossgeom.batches import Batch
from lossgeom.linalg.operator_norms import convolution_norm, dense_norm
from lossgeom.problem import Problem
from lossgeom.smoothness._input_function import differentiable_input
from lossgeom.smoothness.outputs import chosen

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

    def at(self, problem: Problem, batch: Batch) -> Linearized:
        """Linearise outputs in the flat input beside a shift of what the layer puts out."""
        x = batch.input.flatten(1)
        shift = x.new_zeros(len(x), self.output_shape.numel())
        leaf = torch.cat([x, shift], 1).requires_grad_()
        x, shift = torch.split(leaf, [x.shape[1], shift.shape[1]], dim=1)
        with hooked([self.module], lambda module, args, z: z + shift.reshape(z.shape)):  # noqa: ARG005
            other = batch.with_tensor(batch.input, x.reshape(batch.input.shape))
            found = problem.outputs(problem.theta, other)
        return Linearized.of(leaf, chosen(problem, "logits", found, batch))

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

    def transposed_norm(self, k: int) -> float:
        r"""An upper bound of the norm of W^T in l_p with p = 2k.

        By interpolation between p = 2 and infinity,
        ||W^T||_p <= ||W^T||_2^(2/p) ||W^T||_inf^(1-2/p), which is never more than
        ||W^T||_1^(1/p) ||W^T||_inf^(1-1/p) and needs no search.
        """
        _, largest_column = self._largest_sums
        return float(self.spectral_norm ** (1 / k) * largest_column ** (1 - 1 / k))

    @cached_property
    def _largest_sums(self) -> tuple[float, float]:
        """Largest absolute row sum and column sum of W."""
        magnitude = self.weight.double().abs()
        rows = self.multiply(magnitude.new_ones(1, *self.input_shape), magnitude)
        columns = self.transposed(torch.ones_like(rows).flatten(1), magnitude)
        return rows.max().item(), columns.max().item()

    @cached_property
    def spectral_norm(self) -> float:
        """The largest singular value of W, or a bound on it for large convolutions."""
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


def first_layer(problem: Problem, batch: Batch, name: str | None) -> FirstLayer:
    """Find the one Linear or convolutional layer that is called with the input of the model.

    Raises:
        ValueError: if there is none, or several, or one that is applied more than once.
    """
    given = differentiable_input(batch)
    labels = {
        module: label
        for label, module in problem.network.module.named_modules()
        if isinstance(module, LINEAR) or not any(module.children())
    }
    calls = zip(labels.items(), noted(problem, labels, batch, _Call.of), strict=True)
    receiving = {
        label: (module, made[0], len(made))
        for (module, label), made in calls
        if made and made[0].receives(given)
    }
    found = [
        label
        for label, (module, *_) in receiving.items()
        if isinstance(module, LINEAR) and name in (None, label)
    ]
    if len(found) != 1:
        others = ", ".join(f"{type(m).__name__} ({label})" for label, (m, *_) in receiving.items())
        raise ValueError(
            f"expected {'one layer' if name is None else f'the layer {name!r}'}, Linear or a "
            f"convolution, to be called with the input of the model, as it is or flattened; the "
            f"input goes to {others or 'no module without others inside'}"
        )
    (label,) = found
    module, call, times = receiving[label]
    single = len(call.x) == len(batch) and call.x[0].numel() == given[0].numel()
    if isinstance(module, nn.Linear):
        single &= given[0].numel() == module.in_features
    if times > 1 or not single:
        raise ValueError(
            f"expected the layer {label!r} to be applied once to all of an example's input, but "
            "its weight is shared between positions or calls"
        )
    return FirstLayer(label, module, call.weight, call.x.shape[1:], call.z.shape[1:])


@dataclass(frozen=True, eq=False)
class _Call:
    """A call of a module: input, output and the weight meanwhile, empty where there are none."""

    x: Tensor
    z: Tensor
    weight: Tensor

    @classmethod
    def of(cls, module: nn.Module, args: Any, z: Any) -> _Call:
        """Note a call."""
        parts = (args[0] if args else None, z, getattr(module, "weight", None))
        tensors = (part if isinstance(part, Tensor) else torch.empty(0) for part in parts)
        return cls(*(tensor.detach().clone() for tensor in tensors))

    def receives(self, given: Tensor) -> bool:
        """Whether it is with the input of the model, in any shape, and gives a tensor."""
        return self.z.numel() > 0 and torch.equal(self.x.flatten().to(given), given.flatten())
