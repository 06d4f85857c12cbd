"""This library as a competitor."""

from __future__ import annotations

from torch import Tensor

import lossgeom as lg
from benchmarks.cases import Case
from benchmarks.input_output import InputOutput
from benchmarks.peers._peer import Pairs, Peer, Product, Quadrature
from lossgeom.lab.models.gpt import GPT


def problem(case: Case) -> lg.Problem:
    """What a user writes, derivatives checked."""
    return lg.Problem(case.model, case.loss, case.batches, mode=case.mode)


def hessian(case: Case) -> Product:
    """Hessian products with what the default memory budget keeps."""
    return lg.Hessian(problem(case)).__matmul__


def gauss_newton(case: Case) -> Product:
    """Gauss-Newton products with what the default memory budget keeps."""
    return lg.GaussNewton(problem(case)).__matmul__


def hessian_without_memory(case: Case) -> Product:
    """Nothing is kept between products."""
    return lg.Hessian(problem(case), memory_budget=0).__matmul__


def gauss_newton_without_memory(case: Case) -> Product:
    """Nothing is kept between products."""
    return lg.GaussNewton(problem(case), memory_budget=0).__matmul__


def top(case: Case, k: int, setting: None) -> Pairs:  # noqa: ARG001
    """Eigenpairs to the tolerance that all have to meet."""
    found = lg.top_eigenpairs(lg.Hessian(problem(case)), k, tol=1e-3)
    return Pairs(found.values, found.vectors, found.matvecs)


def density(case: Case, probes: int, steps: int, spectrum: tuple[float, float]) -> Quadrature:  # noqa: ARG001
    """A density beside the outliers, which it finds itself, as it does the range."""
    found = lg.spectral_density(lg.Hessian(problem(case)), probes=probes, steps=steps)
    above = int((found.nodes[0, : found.outliers] > 0).sum())
    return Quadrature(found.nodes, found.weights, above, found.matvecs)


def jacobian(function: InputOutput, setting: None) -> Tensor:  # noqa: ARG001
    """Norms of Jacobians by the method that it chooses, to its default tolerance of 1e-3."""
    return lg.jacobian_norms(
        problem(function.case),
        (lambda outputs, _: outputs[:, -1]) if function.last else "logits",
        embedding="tokens" if isinstance(function.case.model, GPT) else None,
    ).values


PEER = Peer(
    "lossgeom",
    "lossgeom",
    "lossgeom",
    hessian=hessian,
    gauss_newton=gauss_newton,
    block=hessian,
    top=top,
    jacobian=jacobian,
    density=density if hasattr(lg, "spectral_density") else None,
)
WITHOUT_MEMORY = Peer(
    "lossgeom, memory_budget=0",
    "lossgeom",
    "lossgeom",
    hessian=hessian_without_memory,
    gauss_newton=gauss_newton_without_memory,
    block=hessian_without_memory,
)
