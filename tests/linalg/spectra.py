"""Symmetric matrices whose eigenvalues are known, and operators of other libraries."""

import torch
from curvlinops.examples import TensorLinearOperator
from scipy.sparse.linalg import aslinearoperator
from scipy.stats import t as student

from lossgeom.linalg import Dense


def rotated(values, seed=0, dtype=torch.float64):
    """A dense matrix with these eigenvalues."""
    values = torch.as_tensor(values, dtype=torch.float64)
    noise = torch.randn(len(values), len(values), dtype=torch.float64,
                        generator=torch.Generator().manual_seed(seed))  # fmt: skip
    Q = torch.linalg.qr(noise)[0]
    A = Q @ torch.diag(values) @ Q.T
    return ((A + A.T) / 2).to(dtype)


def wishart(n=60, degrees=120, seed=0):
    """Eigenvalues of X X^T / degrees with X an n x degrees matrix of normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, degrees, generator=generator, dtype=torch.float64)
    return torch.linalg.eigvalsh(X @ X.T / degrees)


SPECTRA = {
    "distinct": torch.linspace(-3, 5, 40),
    "outliers": torch.cat([torch.linspace(-0.1, 0.1, 60), torch.tensor([4.0, 9.0, 11.0])]),
    "triple": torch.cat([torch.linspace(0, 1, 50), torch.tensor([3.0, 3.0, 3.0, 2.0])]),
    "identity": torch.ones(30),
    "plus_minus": torch.cat([torch.linspace(-1, 1, 30), torch.tensor([7.0, -7.0])]),
    "rank_two": torch.cat([torch.zeros(40), torch.tensor([5.0, 1.0])]),
    "negative": -(torch.linspace(1, 9, 30) ** 2),
    "graded": torch.logspace(-12, 0, 25, dtype=torch.float64),
    "tiny_gap": torch.cat([torch.linspace(0, 0.5, 20), torch.tensor([1.0, 1.0 - 1e-9])]),
    "wishart": wishart(),
    "rank_deficient": wishart(50, 20),
    "indefinite": torch.linspace(-1, 1, 50) ** 3,
    "clustered": torch.cat([torch.linspace(c, c + 1e-6, 15) for c in (-2.0, 0.0, 1.0, 4.0)]),
    "hessian": torch.cat([torch.linspace(-0.2, 0.3, 80), torch.logspace(0, 1.3, 10)]),
    "two": torch.tensor([2.0, -1.0]),
}


def wanted(values, which):
    values = values.double()
    key = {"largest": values, "smallest": -values, "magnitude": values.abs()}[which]
    return values[key.argsort(descending=True)]


FORMS = {
    "tensor": lambda A: A,
    "operator": Dense,
    "scipy": lambda A: aslinearoperator(A.numpy()),
    "curvlinops": TensorLinearOperator,
}


def covered(estimates, truth, freedom, level, factor=1.0, rounding=0.0):
    """The share of the t intervals that hold the truth, with all standard errors times a factor."""
    quantile = factor * student.ppf((1 + level) / 2, freedom)
    rounding += 1e-12 * abs(truth)
    inside = [abs(e.value - truth) <= quantile * e.stderr + rounding for e in estimates]
    return sum(inside) / len(inside)
