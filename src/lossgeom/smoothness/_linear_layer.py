"""A Linear or convolutional layer of a model, as a linear map of one example."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from lossgeom.problem.model_facts import Key
from lossgeom.smoothness._input_function import differentiable_input
from lossgeom.smoothness.outputs import chosen
from lossgeom.trust.trial import few_of

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LINEAR = (nn.Linear, *CONVOLUTIONS)
DENSE_NUMBERS = 2**22  # of the matrix of a convolution, where its norm is computed exactly
TRANSFORM_OPERATIONS = 2**32  # for the norm of a large one; some ten seconds


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A layer z = W x + b, with x and z flattened, and W a matrix with a weight for every entry.

    Attributes:
        label: of the layer in the model.
        module: the layer.
        weight: what it multiplies with, any parametrisation applied.
        input_shape: of what it is called with, for one example.
        output_shape: of what it puts out.
        hidden: whether it is called with something else than the input of the model.
    """

    label: str
    module: Any
    weight: Tensor
    input_shape: torch.Size
    output_shape: torch.Size
    hidden: bool = False

    def at(self, problem: Problem, batch: Batch) -> Linearized:
        """Linearise outputs in the flat input beside a shift of what the layer puts out.

        Of a hidden layer, it is a shift of what it is called with, which nothing else sees.
        """
        sizes = [self.input_shape.numel(), self.output_shape.numel()]
        like = problem.theta if self.hidden else batch.input
        leaf = like.new_zeros(len(batch), sum(sizes))
        if not self.hidden:
            leaf[:, : sizes[0]] = batch.input.flatten(1)
        leaf.requires_grad_()
        x, shift = torch.split(leaf, sizes, dim=1)

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ARG001
            return (args[0] + x.reshape(args[0].shape),), kwargs

        def after(module: nn.Module, args: Any, z: Tensor) -> Tensor:  # noqa: ARG001
            return z + shift.reshape(z.shape)

        with hooked([self.module], after, before if self.hidden else None):
            if not self.hidden:
                batch = batch.with_tensor(batch.input, x.reshape(batch.input.shape))
            found = problem.outputs(problem.theta, batch)
        return Linearized.of(leaf, chosen(problem, "logits", found, batch))

    def inputs(self, problem: Problem, batch: Batch) -> Float[Tensor, "B D"]:
        """What the layer is called with."""
        if not self.hidden:
            return batch.input.flatten(1)
        ((call,),) = noted(problem, [self.module], batch, _Call.of)
        return call.x.flatten(1)

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


def layer_at(problem: Problem, batch: Batch, name: str | None) -> LinearLayer:
    """The layer as it is called on a batch, found once for examples of a shape."""
    few, kind = few_of(batch)
    return problem.cache.value(Key(_found, (name, kind)), lambda: _found(problem, few, name))


def _found(problem: Problem, batch: Batch, name: str | None) -> LinearLayer:
    """Find a Linear or convolutional layer, or the one that is called with the model's input.

    Raises:
        ValueError: if there is none, or several, or one that is applied more than once.
    """
    modules = {
        label: module
        for label, module in problem.network.module.named_modules()
        if isinstance(module, LINEAR) or not any(module.children())
    }
    made = noted(problem, modules.values(), batch, _Call.of)
    calls = {label: own for label, own in zip(modules, made, strict=True) if own}
    name = _first(modules, calls, differentiable_input(batch)) if name is None else name
    if not isinstance(modules.get(name), LINEAR) or name not in calls:
        others = (repr(label) for label in calls if isinstance(modules[label], LINEAR))
        raise ValueError(
            f"expected the name of a layer, Linear or a convolution, that the model calls; got "
            f"{name!r}, and there are {', '.join(others) or 'none'}"
        )
    module, call = modules[name], calls[name][0]
    hidden = not call.receives(batch.input)
    single = len(call.x) == len(batch) and (hidden or call.x.numel() == batch.input.numel())
    if isinstance(module, nn.Linear):
        single &= call.x[0].numel() == module.in_features
    if len(calls[name]) > 1 or not single:
        raise ValueError(
            f"expected the layer {name!r} to be applied once to all of an example's input, but "
            "its weight is shared between positions or calls"
        )
    return LinearLayer(name, module, call.weight, call.x.shape[1:], call.z.shape[1:], hidden)


def _first(
    modules: Mapping[str, nn.Module], calls: Mapping[str, list[_Call]], given: Tensor
) -> str:
    """The name of the only layer that is called with the input of the model."""
    receiving = [label for label, made in calls.items() if made[0].receives(given)]
    found = [label for label in receiving if isinstance(modules[label], LINEAR)]
    if len(found) != 1:
        others = ", ".join(f"{type(modules[label]).__name__} ({label})" for label in receiving)
        raise ValueError(
            f"expected one layer, Linear or a convolution, to be called with the input of the "
            f"model, as it is or flattened; the input goes to "
            f"{others or 'no module without others inside'}"
        )
    return found[0]


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
