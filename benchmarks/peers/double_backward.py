"""The code of papers: plain double backward, and SciPy's eigsh on it."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch

from benchmarks.cases import Case
from benchmarks.peers._peer import Choices, Pairs, Peer, Product, column_by_column
from benchmarks.plain import gauss_newton_product, hessian_product, unit_vectors


def hessian(case: Case) -> Product:
    """Nothing to set up."""
    return partial(hessian_product, case)


def gauss_newton(case: Case) -> Product:
    """Nothing to set up."""
    return partial(gauss_newton_product, case)


def eigsh(case: Case, product: Product, k: int, threads: int | None) -> Pairs:
    """SciPy's solver in float32, where BLAS may be kept from competing with torch for cores."""
    from scipy.sparse.linalg import LinearOperator
    from scipy.sparse.linalg import eigsh as solve
    from threadpoolctl import threadpool_limits

    taken = 0

    def multiply(v: object) -> object:
        nonlocal taken
        taken += 1
        return product(torch.as_tensor(v).reshape(-1).to(device)).cpu().numpy()

    device = case.parameters[0].device
    A = LinearOperator((case.P,) * 2, matvec=multiply, dtype="float32")
    start = unit_vectors(case, 1)[0].cpu().numpy()
    with nullcontext() if threads is None else threadpool_limits(threads, user_api="blas"):
        values, vectors = solve(A, k, which="LA", tol=1e-3, v0=start)
    return Pairs(torch.tensor(values), torch.tensor(vectors), taken)


THREADS = Choices((None, 1), lambda n: "all threads" if n is None else f"{n} BLAS thread")


def top(case: Case, k: int, threads: int | None) -> Pairs:
    """Eigenpairs, with two backward passes for every product."""
    return eigsh(case, hessian(case), k, threads)


def block(case: Case) -> Product:
    """Multiply one column after the other."""
    return column_by_column(hessian(case))


PEER = Peer(
    "double backward + eigsh",
    module="scipy",
    install="pip install scipy threadpoolctl",
    hessian=hessian,
    gauss_newton=gauss_newton,
    block=block,
    top=top,
    setting=THREADS,
)
