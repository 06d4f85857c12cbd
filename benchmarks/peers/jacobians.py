"""Spectral norms of Jacobians, as people write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import jacrev, jvp, vjp, vmap

from benchmarks.input_output import InputOutput
from benchmarks.peers._peer import Choices, Peer, Steps

ALLOWED = 2**30  # bytes of an example's Jacobian: from there on there are many others as large
Norms = Callable[[Tensor], Tensor]


def by_values(J: Tensor) -> Tensor:
    """Norms of Jacobians (B, C, D) by their singular values."""
    norms: Tensor = torch.linalg.matrix_norm(J, ord=2)
    return norms


def by_gram(J: Tensor) -> Tensor:
    """Norms of Jacobians (B, C, D) by the largest eigenvalue of the smaller of J J^T and J^T J."""
    rows = J if J.shape[1] <= J.shape[2] else J.mT
    norms: Tensor = torch.linalg.eigvalsh(rows @ rows.mT)[:, -1].sqrt()
    return norms


def check_size(function: InputOutput, x: Tensor) -> None:
    """Refuse what would run for hours, or out of memory."""
    C = function.outputs(x[:1]).numel()
    size = C * x[0].numel() * x.element_size()
    if size > ALLOWED:
        raise MemoryError(
            f"refused: {C:,} backward passes, and a Jacobian of {size / 1e9:.1f} GB per example"
        )


def all_at_once(function: InputOutput, chunk: int | None, norms: Norms) -> Tensor:
    """Compute all rows of all examples by ``torch.func``, for so many examples at a time."""
    function, found = function.plain(), []
    for x in function.inputs():
        check_size(function, x)
        J = vmap(jacrev(function.one), chunk_size=chunk)(x)
        found.append(norms(J.flatten(2)))
    return torch.cat(found)


def row_by_row(function: InputOutput, _: None) -> Tensor:
    """Take a backward pass of the batch for each output."""
    function, found = function.plain(), []
    for x in function.inputs():
        check_size(function, x)
        outputs = function.outputs(x.requires_grad_())
        rows = [
            torch.autograd.grad(outputs[:, c].sum(), x, retain_graph=True)[0].flatten(1)
            for c in range(outputs.shape[1])
        ]
        found.append(by_gram(torch.stack(rows, 1)))
    return torch.cat(found)


def power_iteration(function: InputOutput, steps: int) -> Tensor:
    """Take so many products with J^T J, for all examples of a batch at once."""
    function = function.plain()

    def norm(x: Tensor, v: Tensor) -> Tensor:
        Jv, pull, *_ = vjp(function.one, x)
        for _ in range(steps):
            Jv = jvp(function.one, (x,), (v / v.norm(),))[1]
            (v,) = pull(Jv)
        value: Tensor = Jv.norm()
        return value

    generator = torch.Generator().manual_seed(0)
    return torch.cat(
        [vmap(norm)(x, torch.randn(x.shape, generator=generator)) for x in function.inputs()]
    )


CHUNKS = Choices(
    (None, 8, 1), lambda chunk: "all of a batch at once" if chunk is None else f"chunks of {chunk}"
)

VALUES = Peer(
    "vmap(jacrev), matrix_norm", jacobian=partial(all_at_once, norms=by_values), setting=CHUNKS
)
GRAM = Peer(
    "vmap(jacrev), Gram matrix", jacobian=partial(all_at_once, norms=by_gram), setting=CHUNKS
)
ROWS = Peer("a backward pass for each output, Gram matrix", jacobian=row_by_row)
POWER = Peer(
    "vmap(jvp and vjp), power iteration",
    jacobian=power_iteration,
    setting=Steps(first=lambda k: 4, products=lambda k, steps: steps),  # noqa: ARG005
)
