"""Gradients of every output at every example, reduced a block at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch, map_tensors, tensors_of
from lossgeom.linalg import random_numbers
from lossgeom.problem import NonFiniteError, Problem

MEMORY_BUDGET = 2**26  # on a CPU, more of it is slower
FEW_EXAMPLES = 4  # that the ways of computing are compared on
AGREEMENT = 1e-3  # relative; kinks are where rounding moves a gradient most
ROUNDED_AGREEMENT = 5e-2  # under autocast
NEARBY = 0.01  # relative distance of the point where they are compared
CACHE_NUMBERS = 2**17  # powers are taken of as many numbers at a time, in float64

T = TypeVar("T")
Leaves = tuple[Tensor, ...]
Pull = Callable[[Problem, "Variables", Batch, Tensor], Tensor]


@runtime_checkable
class Variables(Protocol):
    """What outputs are differentiated in."""

    @property
    def name(self) -> Hashable:
        """Tells them from others of the same model."""
        ...

    @property
    def shared(self) -> tuple[bool, ...]:
        """Which of them all examples share."""
        ...

    def at(self, problem: Problem, batch: Batch) -> Leaves:
        """Where the derivative is taken; a row for each example in those that are not shared."""
        ...

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        """The outputs for a batch as a function of them."""
        ...


@dataclass(frozen=True)
class Parameters:
    """The parameters of the problem."""

    names: tuple[str, ...]
    shared = (True,)

    @property
    def name(self) -> Hashable:
        return "parameters", self.names

    def at(self, problem: Problem, batch: Batch) -> Leaves:  # noqa: ARG002
        return (problem.theta,)

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        return problem.outputs(leaves[0], batch)


@dataclass(frozen=True)
class Input:
    """The one input of the model."""

    name = "input"
    shared = (False,)

    def at(self, problem: Problem, batch: Batch) -> Leaves:  # noqa: ARG002
        return (differentiable_input(batch),)

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        return problem.outputs(problem.theta, batch.with_tensor(batch.input, leaves[0]))


def differentiable_input(batch: Batch) -> Tensor:
    """The input, if there can be a gradient in it."""
    if not batch.input.is_floating_point():
        raise ValueError(
            f"expected floating-point inputs to differentiate in, got {batch.input.dtype}"
        )
    return batch.input


def reduced_gradients(
    problem: Problem,
    variables: Variables,
    reduce: Callable[[Float[Tensor, "M p"]], Float[Tensor, "M r"]],
    memory_budget: int,
) -> list[Float[Tensor, "B C r"]]:
    """What a function makes of the gradients of all outputs, batch by batch.

    Each example is run alone, several at a time where torch can do so, so that the gradients of
    different examples stay apart. That they are those of the whole batch is tried on a few.

    Args:
        problem: in the mode to measure in.
        variables: to differentiate in, p numbers for an example.
        reduce: from gradients to r numbers for each, in float64.
        memory_budget: bytes of the gradients that are held at a time, after the first few.

    Raises:
        ValueError: if the outputs are not one row per example, or those of one example depend on
            another.
        NonFiniteError: where an output or a gradient is NaN or infinite.
    """
    if memory_budget < 1:
        raise ValueError(f"expected memory_budget to be at least 1 byte, got {memory_budget}")

    def of_batch(batch: Batch) -> Tensor:
        with torch.no_grad():
            outputs = _outputs(problem, batch)
        few = batch.examples(0, FEW_EXAMPLES)
        key = ("gradients of examples", variables.name)
        pull = problem.once(key, lambda: nearby(problem, lambda near: _way(near, variables, few)))
        size = sum(leaf.numel() for leaf in variables.at(problem, batch.examples(0, 1)))
        rows = max(1, memory_budget // ((size + outputs.shape[1]) * outputs.element_size()))
        found = torch.cat(
            [
                torch.cat([reduced(pull(problem, variables, piece, U)) for U in cotangents], 1)
                for piece, cotangents in _blocks(batch, outputs, rows)
            ]
        )
        return finite(found)

    def reduced(G: Tensor) -> Tensor:
        return reduce(G.flatten(0, 1)).reshape(*G.shape[:2], -1)

    return problem.over_batches(of_batch)


def finite(gradients: Tensor) -> Tensor:
    """Gradients or norms of them, if none is NaN or infinite."""
    if not gradients.isfinite().all():
        raise NonFiniteError("a gradient of an output is NaN or infinite at these parameters")
    return gradients


def _blocks(batch: Batch, outputs: Tensor, rows: int) -> Iterator[tuple[Batch, Iterator[Tensor]]]:
    """Pieces of a batch, each with unit vectors for its outputs, of so many rows altogether."""
    B, C = outputs.shape
    width, height = min(C, rows), max(1, rows // C)

    def units(examples: int) -> Iterator[Tensor]:
        for first in range(0, C, width):
            unit = outputs.new_zeros(min(width, C - first), C)
            unit.diagonal(first).fill_(1)
            yield unit.expand(examples, *unit.shape)

    for start in range(0, B, height):
        piece = batch.examples(start, start + height)
        yield piece, units(len(piece))


def _outputs(problem: Problem, batch: Batch) -> Float[Tensor, "B C"]:
    outputs = problem.outputs(problem.theta, batch)
    if outputs.ndim == 0 or len(outputs) != len(batch):
        raise ValueError(
            f"expected one row of outputs per example, got outputs of shape "
            f"{tuple(outputs.shape)} for {len(batch)} examples"
        )
    if not torch.isfinite(outputs).all():
        raise NonFiniteError("the output of the model is NaN or infinite at these parameters")
    return outputs.reshape(len(outputs), -1)


def nearby(problem: Problem, look: Callable[[Problem], T]) -> T:
    """What is seen at a random point near theta, where no accident hides it, such as zero weights.

    At theta itself, where that point is outside of the domain of the model.
    """
    theta, generator = problem.theta, random_numbers(0)
    noise = torch.randn(len(theta), generator=generator).to(theta)
    try:
        return look(problem.at(theta + NEARBY * (theta.square().mean().sqrt() + NEARBY) * noise))
    except NonFiniteError:
        return look(problem)


def _way(problem: Problem, variables: Variables, few: Batch) -> Pull:
    """The fastest way that gives the gradients of a whole batch, tried on random ones."""
    u = random_cotangents(problem, few)
    whole = pulled(problem, variables, few, u[None])[0]
    expected = finite(torch.cat([gradient.flatten() for gradient in whole]))
    for pull in (_together, _one_by_one):
        try:
            found = pull(problem, variables, few, u[:, None])[:, 0]
        except Exception:
            if pull is _one_by_one:
                raise
            continue  # of what has no batched form, such as recurrent layers
        if agree(problem, _totals(variables, found, whole), expected):
            return pull
    raise ValueError(
        "expected the outputs of one example to depend on its own inputs alone, but they depend "
        "on other examples in the batch"
    )


def agree(problem: Problem, found: Tensor, expected: Tensor) -> bool:
    """Whether a gradient is another one, up to rounding."""
    tolerance = AGREEMENT if problem.autocast is None else ROUNDED_AGREEMENT
    return bool((found - expected).norm() <= tolerance * expected.norm())


@torch.no_grad()
def random_cotangents(problem: Problem, batch: Batch) -> Float[Tensor, "B C"]:
    """A random number for each output, always the same."""
    outputs = _outputs(problem, batch)
    return torch.randn(outputs.shape, generator=random_numbers(0)).to(outputs)


def _totals(variables: Variables, rows: Tensor, whole: Leaves) -> Tensor:
    """The gradient of a whole batch from those of its examples."""
    sizes = [
        gradient.numel() if shared else gradient[0].numel()
        for gradient, shared in zip(whole, variables.shared, strict=True)
    ]
    parts = zip(torch.split(rows, sizes, dim=1), variables.shared, strict=True)
    return torch.cat([(part.sum(0) if shared else part).flatten() for part, shared in parts])


def _together(problem: Problem, variables: Variables, batch: Batch, U: Tensor) -> Tensor:
    """Gradients (B, m, p) along m cotangents (B, m, C) for each example, all in one go."""
    network = copy.copy(problem.network)
    network.watched = False  # the state of a generator cannot be read inside these transforms
    unwatched = problem.on(batch, network).at(problem.theta)
    unwatched.seed = None  # nor set; drawing random numbers raises there
    parts = list(tensors_of(batch.raw))

    def of_example(parts: list[Tensor], u: Tensor) -> Tensor:
        left = iter(parts)

        def given(old: Tensor) -> Tensor:
            part = next(left)
            return part[None] if old.ndim else part

        one = Batch.of(map_tensors(given, batch.raw), batch.index)

        def outputs(*leaves: Tensor) -> Tensor:
            return variables.outputs(unwatched, leaves, one).reshape(-1)

        _, pull, *_ = torch.func.vjp(outputs, *variables.at(unwatched, one))
        gradients = [g.flatten(1) for g in torch.func.vmap(pull)(u)]
        return gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)  # a copy

    in_dims = ([0 if part.ndim else None for part in parts], 0)
    result: Tensor = torch.func.vmap(of_example, in_dims)(parts, U)
    return result


def _one_by_one(problem: Problem, variables: Variables, batch: Batch, U: Tensor) -> Tensor:
    """The same, one backward pass after the other."""
    rows = []
    for i, u in enumerate(U):
        gradients = pulled(problem, variables, batch.examples(i, i + 1), u)
        rows.append(torch.stack([torch.cat([g.reshape(-1) for g in gs]) for gs in gradients]))
    return torch.stack(rows)


def pulled(problem: Problem, variables: Variables, batch: Batch, U: Tensor) -> list[Leaves]:
    """The gradients of a batch along some cotangents."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in variables.at(problem, batch))
    outputs = variables.outputs(problem, leaves, batch)
    if not outputs.requires_grad:
        return [tuple(torch.zeros_like(leaf) for leaf in leaves) for _ in U]
    return [
        torch.autograd.grad(
            outputs, leaves, u.reshape(outputs.shape), retain_graph=True, materialize_grads=True
        )
        for u in U
    ]


def power_norms(rows: Float[Tensor, "M p"], orders: Sequence[int]) -> Float[Tensor, "M r"]:
    """The l_2k norm of each row for each order k, in float64, where no power overflows."""
    pieces = torch.split(rows, max(1, CACHE_NUMBERS // rows.shape[1]))
    return torch.cat([_power_norms(piece, orders) for piece in pieces])


def _power_norms(rows: Tensor, orders: Sequence[int]) -> Tensor:
    x = rows.double()
    scale = x.abs().amax(1)
    square = (x / torch.where(scale > 0, scale, 1)[:, None]).square_()
    power, sums = square, {1: square.sum(1)}
    for k in range(2, max(orders) + 1):
        power = power * square
        sums[k] = power.sum(1)
    return torch.stack([scale * sums[k] ** (0.5 / k) for k in orders], 1)
