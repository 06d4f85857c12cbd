"""Plain autograd: the unit of time, the recipe that papers use, and what is right.

In float32 these products are a competitor. In a float64 copy they are the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.cases import Case, draw
from benchmarks.input_output import InputOutput


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Flatten tensors into one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def pieces(case: Case, v: Tensor) -> list[Tensor]:
    """A flat vector in the shapes of the parameters."""
    split = torch.split(v, [p.numel() for p in case.parameters])
    return [piece.view_as(p) for piece, p in zip(split, case.parameters, strict=True)]


def gradient(case: Case) -> None:
    """One gradient of the loss, as training takes it; its time is the unit."""
    case.model.zero_grad()
    for x, y, share in case.weighted():
        (share * case.criterion(case.model(x), y)).backward()


def hessian_product(case: Case, v: Tensor) -> Tensor:
    """Compute H v by two backward passes for each batch."""
    total, parameters = torch.zeros_like(v), case.parameters
    for x, y, share in case.weighted():
        loss = case.criterion(case.model(x), y)
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        second = torch.autograd.grad(first, parameters, pieces(case, v))
        total += share * flat(second)
    return total


def gauss_newton_product(case: Case, v: Tensor) -> Tensor:
    """Compute G v, with J v as the transpose of the transposed product."""
    total, parameters = torch.zeros_like(v), case.parameters
    for x, y, share in case.weighted():
        outputs = case.model(x)
        at = outputs.detach().requires_grad_()
        (residual,) = torch.autograd.grad(case.criterion(at, y), at, create_graph=True)
        u = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, parameters, u, create_graph=True)
        (Jv,) = torch.autograd.grad(pulled, u, pieces(case, v), retain_graph=True)
        (curved,) = torch.autograd.grad(residual, at, Jv)
        total += share * flat(torch.autograd.grad(outputs, parameters, curved))
    return total


def unit_vectors(case: Case, k: int) -> list[Tensor]:
    """Random directions, the same for all."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(k, case.P, generator=generator, dtype=torch.float64)
    return list((drawn / drawn.norm(dim=1, keepdim=True)).to(case.parameters[0]))


TRACE_PROBES = 12


@dataclass(frozen=True, eq=False)
class Reference:
    """What is right for a case, computed apart and in float64."""

    case: Case

    @cached_property
    def exact(self) -> Case:
        """The case in float64."""
        return self.case.copy(torch.float64)

    @cached_property
    def values(self) -> Tensor:
        """The ten largest eigenvalues, by SciPy from products in float64."""
        from scipy.sparse.linalg import LinearOperator, eigsh

        def product(v: object) -> object:
            return hessian_product(self.exact, torch.as_tensor(v).reshape(-1)).numpy()

        A = LinearOperator((self.case.P,) * 2, matvec=product, dtype="float64")
        start = unit_vectors(self.exact, 1)[0].numpy()
        found = eigsh(A, 10, which="LA", tol=1e-5, ncv=40, v0=start, return_eigenvectors=False)
        return torch.tensor(sorted(found, reverse=True))

    @cached_property
    def quadratic_forms(self) -> Tensor:
        """z^T H z for probes of random signs: their mean is the trace."""
        generator = torch.Generator().manual_seed(2)
        signs = torch.randint(2, (TRACE_PROBES, self.case.P), generator=generator) * 2.0 - 1
        return torch.stack([z @ hessian_product(self.exact, z) for z in signs.double()])


def jacobian_norms(function: InputOutput) -> Tensor:
    """Spectral norms of Jacobians, of one example after the other, in float64."""
    exact = function.plain(torch.float64)
    ones = [one for x in exact.inputs() for one in torch.split(x.double(), 1)]
    return torch.tensor([_jacobian_norm(exact, one) for one in ones], dtype=torch.float64)


def _jacobian_norm(function: InputOutput, x: Tensor) -> float:
    """The norm by SciPy's solver, from products in forward and in reverse mode."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    outputs, pull, *_ = torch.func.vjp(function.outputs, x)

    def product(u: object) -> object:
        (v,) = pull(torch.as_tensor(u).reshape(outputs.shape))
        return torch.func.jvp(function.outputs, (x,), (v,))[1].flatten().numpy()

    A = LinearOperator((outputs.numel(),) * 2, matvec=product, dtype="float64")
    start = draw(1, outputs.numel()).double().numpy()
    (largest,) = eigsh(A, 1, which="LA", tol=1e-8, v0=start, return_eigenvectors=False)
    return math.sqrt(largest)
