"""curvlinops-for-pytorch, with its own products and densities, and SciPy's eigsh on them."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.cases import Case
from benchmarks.peers._peer import Pairs, Peer, Product, Quadrature
from benchmarks.peers.double_backward import THREADS, eigsh


def operator(case: Case, kind: str = "HessianLinearOperator") -> Any:
    """An operator without its check of determinism, and told how much data there is."""
    import curvlinops

    return getattr(curvlinops, kind)(
        case.model,
        case.criterion,
        case.parameters,
        case.batches,
        check_deterministic=False,
        num_data=case.N,
    )


def hessian(case: Case) -> Product:
    """Hessian products by forward over reverse mode."""
    product: Product = operator(case).__matmul__
    return product


def gauss_newton(case: Case) -> Product:
    """The generalised Gauss-Newton matrix."""
    product: Product = operator(case, "GGNLinearOperator").__matmul__
    return product


def top(case: Case, k: int, threads: int | None) -> Pairs:
    """Eigenpairs as its documentation finds them, but in float32."""
    return eigsh(case, operator(case).__matmul__, k, threads)


def density(case: Case, probes: int, steps: int, spectrum: tuple[float, float]) -> Quadrature:
    """Papyan's approximation; given the range of the spectrum, which it would spend products on."""
    from curvlinops import LanczosApproximateSpectrumCached

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cached = LanczosApproximateSpectrumCached(operator(case), steps, boundaries=spectrum)
        cached.approximate_spectrum(num_repeats=probes)
    nodes, vectors = zip(*cached._lanczos_iters, strict=True)
    return Quadrature(torch.stack(nodes), torch.stack([v[0] ** 2 for v in vectors]))


PEER = Peer(
    "curvlinops",
    "curvlinops-for-pytorch",
    "curvlinops",
    install="pip install curvlinops-for-pytorch==3.0.1",
    hessian=hessian,
    gauss_newton=gauss_newton,
    block=hessian,
    top=top,
    setting=THREADS,
    density=density,
    notes="without its check that everything is deterministic; for densities given the range. "
    "Its Hessian products are wrong through nn.LayerNorm, whose forward mode over a vmapped "
    "backward pass torch gets wrong",
)
