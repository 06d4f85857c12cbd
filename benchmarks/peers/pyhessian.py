"""PyHessian: power iteration and densities, for parameters in lists."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers._peer import Pairs, Peer, Product, Quadrature, Steps
from benchmarks.plain import flat, pieces


@contextmanager
def seeded() -> Iterator[None]:
    """Seed the global generator it draws from, and ignore warnings of the graph it keeps."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def computer(case: Case) -> Any:
    """Its solver: one batch keeps its graph; several are differentiated anew for every product."""
    from pyhessian import hessian as Computer

    with seeded():
        on_gpu = case.parameters[0].is_cuda
        if len(case.batches) == 1:
            return Computer(case.model, case.criterion, data=case.batches[0], cuda=on_gpu)
        return Computer(case.model, case.criterion, dataloader=case.batches, cuda=on_gpu)


def hessian(case: Case) -> Product:
    """The Hessian product that its solvers call."""
    from pyhessian.utils import hessian_vector_product

    one = computer(case)

    def product(v: Tensor) -> Tensor:
        with seeded():
            if one.full_dataset:
                return flat(one.dataloader_hv_product(pieces(case, v))[1])
            return flat(hessian_vector_product(one.gradsH, one.params, pieces(case, v)))

    return product


def top(case: Case, k: int, steps: int) -> Pairs:
    """Eigenpairs without its own criterion to stop, which stops too early."""
    with seeded():
        values, vectors = computer(case).eigenvalues(maxIter=steps, tol=0.0, top_n=k)
    return Pairs(torch.tensor(values), torch.stack([flat(v) for v in vectors], 1), k * steps)


def density(case: Case, probes: int, steps: int, spectrum: tuple[float, float]) -> Quadrature:  # noqa: ARG001
    """A density, with torch.eig put back, which torch has no longer."""
    with seeded(), eig_put_back():
        nodes, weights = computer(case).density(iter=steps, n_v=probes)
    return Quadrature(torch.tensor(nodes), torch.tensor(weights))


@contextmanager
def eig_put_back() -> Iterator[None]:
    """The one function that PyHessian 0.1 needs of an older torch; today's only raises."""
    before = torch.eig
    torch.eig = _eig  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.eig = before


def _eig(T: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    values, vectors = torch.linalg.eigh(T)
    return torch.stack([values, torch.zeros_like(values)], 1), vectors


PEER = Peer(
    "PyHessian",
    "pyhessian",
    "pyhessian",
    install="pip install --no-deps pyhessian==0.1",
    hessian=hessian,
    top=top,
    setting=Steps(first=lambda k: 8, products=lambda k, steps: k * steps),  # noqa: ARG005
    density=density,
    notes="puts the model into eval mode; for densities with torch.eig put back, else it raises",
)
