"""hessian-eigenthings 1.x: Lanczos iteration, exact or with differences of gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.cases import Case
from benchmarks.peers._peer import Pairs, Peer, Product, Quadrature, Steps


def operator(case: Case, method: str = "autograd") -> Any:
    """An operator that averages the means of batches, and so wants them of equal size."""
    from hessian_eigenthings import HessianOperator, supervised_loss

    return HessianOperator(case.model, case.batches, supervised_loss(case.criterion), method=method)


def hessian(case: Case, method: str = "autograd") -> Product:
    """Hessian products by two backward passes, or two gradients."""
    product: Product = operator(case, method).matvec
    return product


def gauss_newton(case: Case) -> Product:
    """Gauss-Newton products by forward and reverse mode."""
    from hessian_eigenthings import GGNOperator, supervised_forward, supervised_loss_of_output

    loss = supervised_loss_of_output(case.criterion)
    product: Product = GGNOperator(case.model, case.batches, supervised_forward, loss).matvec
    return product


def top(case: Case, k: int, steps: int, method: str = "autograd") -> Pairs:
    """Eigenpairs by Lanczos iteration of so many steps."""
    from hessian_eigenthings import lanczos

    found = lanczos(
        operator(case, method), k=k, max_iter=steps, which="LA", reorthogonalize=True, seed=0
    )
    return Pairs(found.eigenvalues, found.eigenvectors.T, steps)


def density(case: Case, probes: int, steps: int, spectrum: tuple[float, float]) -> Quadrature:  # noqa: ARG001
    """A density on a grid of its default size."""
    from hessian_eigenthings import spectral_density

    found = spectral_density(operator(case), num_runs=probes, lanczos_steps=steps, seed=0)
    return Quadrature(found.raw_eigenvalues, found.raw_weights)


LANCZOS_STEPS = Steps(first=lambda k: 4 + 2 * k, products=lambda k, steps: steps)  # noqa: ARG005
INSTALL = "pip install --pre hessian-eigenthings==1.0.0a5"

PEER = Peer(
    "hessian-eigenthings",
    "hessian-eigenthings",
    "hessian_eigenthings",
    install=INSTALL,
    hessian=hessian,
    gauss_newton=gauss_newton,
    top=top,
    setting=LANCZOS_STEPS,
    density=density,
)
DIFFERENCES = Peer(
    "hessian-eigenthings, differences",
    "hessian-eigenthings",
    "hessian_eigenthings",
    install=INSTALL,
    hessian=partial(hessian, method="finite_difference"),
    top=partial(top, method="finite_difference"),
    setting=LANCZOS_STEPS,
)
