"""Ways to compute the gradients of single examples, and a choice between them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.variables import Leaves, Variables, finite_outputs, leaves_of, rows_of
from lossgeom.batches import Batch
from lossgeom.linalg import random_numbers
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.trust.trial import Trial

Pull = Callable[[Problem, Variables, Batch, Tensor], Tensor]


def fastest_way(trial: Trial, variables: Variables) -> Pull:
    """The fastest that gives the gradients of a whole batch, tried on random ones."""
    problem, few = trial.problem, trial.batch
    u = random_cotangents(problem, few)
    whole = pulled(problem, variables, few, u[None])[0]
    expected = finite(torch.cat([gradient.flatten() for gradient in whole]))
    for pull in (together, one_by_one):
        try:
            found = pull(problem, variables, few, u[:, None])[:, 0]
        except Exception:
            if pull is one_by_one:
                raise
            continue  # of what has no batched form, such as recurrent layers
        if trial.agree(_totals(variables, found, whole), expected):
            return pull
    raise ValueError(
        "expected the outputs of one example to depend on its own inputs alone, but they depend "
        "on other examples in the batch"
    )


def finite(gradients: Tensor) -> Tensor:
    """Gradients or norms of them, if none is NaN or infinite."""
    if not gradients.isfinite().all():
        raise NonFiniteError("a gradient of an output is NaN or infinite at these parameters")
    return gradients


def random_cotangents(problem: Problem, batch: Batch) -> Float[Tensor, "B C"]:
    """A random number for each output, always the same."""
    outputs = finite_outputs(problem, batch)
    return torch.randn(outputs.shape, generator=random_numbers(0)).to(outputs)


def _totals(variables: Variables, rows: Tensor, whole: Leaves) -> Tensor:
    """The gradient of a whole batch from those of its examples."""
    sizes = [
        gradient.numel() if shared else gradient[0].numel()
        for gradient, shared in zip(whole, variables.shared, strict=True)
    ]
    parts = zip(torch.split(rows, sizes, dim=1), variables.shared, strict=True)
    return torch.cat([(part.sum(0) if shared else part).flatten() for part, shared in parts])


def together(problem: Problem, variables: Variables, batch: Batch, U: Tensor) -> Tensor:
    """Gradients (B, m, p) along m cotangents (B, m, C) for each example, all in one go."""
    unwatched = problem.inside_transforms(seeded=False)  # drawing raises there
    parts: list[Tensor] = []
    batch.each_row(lambda tensor: parts.append(tensor) or tensor)  # type: ignore[func-returns-value]

    def of_example(parts: list[Tensor], u: Tensor) -> Tensor:
        left = iter(parts)
        one = batch.each_row(lambda _: next(left)[None])

        def outputs(*leaves: Tensor) -> Tensor:
            return variables.outputs(unwatched, leaves, one).reshape(-1)

        _, pull, *_ = torch.func.vjp(outputs, *variables.at(unwatched, one))
        gradients = [g.flatten(1) for g in torch.func.vmap(pull)(u)]
        return gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)  # a copy

    result: Tensor = torch.func.vmap(of_example)(parts, U)
    return result


def one_by_one(problem: Problem, variables: Variables, batch: Batch, U: Tensor) -> Tensor:
    """The same, one backward pass after the other."""
    rows = []
    for i, u in enumerate(U):
        gradients = pulled(problem, variables, batch.examples(i, i + 1), u[:, None])
        rows.append(torch.stack([torch.cat([g.reshape(-1) for g in gs]) for gs in gradients]))
    return torch.stack(rows)


def pulled(
    problem: Problem, variables: Variables, batch: Batch, U: Float[Tensor, "m B C"]
) -> list[Leaves]:
    """The gradients of a batch along some cotangents."""
    leaves = leaves_of(variables, problem, batch)
    outputs = rows_of(variables.outputs(problem, leaves, batch), batch)
    if not outputs.requires_grad:
        return [tuple(torch.zeros_like(leaf) for leaf in leaves) for _ in U]
    return [
        torch.autograd.grad(outputs, leaves, u, retain_graph=True, materialize_grads=True)
        for u in U
    ]
