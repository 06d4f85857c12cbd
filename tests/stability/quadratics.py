"""Quadratic losses with a Hessian and a gradient that are known."""

import torch
from torch import Tensor, nn

import lossgeom as lg

EIGENVALUES = (3.0, 1.0, 0.3, 0.05)


def hessian(eigenvalues=EIGENVALUES, seed=0) -> Tensor:
    """A rotated matrix of these eigenvalues, in float64."""
    generator = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    return Q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ Q.T


class Quadratic(nn.Module):
    """Puts out the parameters themselves, so that a loss of the outputs is one of these."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(len(x), -1)


def quadratic(H: Tensor, theta: Tensor, batches: int = 1) -> lg.Problem:
    """The loss theta.H theta / 2, as a mean over some batches of three examples each."""

    def terms(outputs: Tensor, batch: object) -> tuple[Tensor, float]:
        return ((outputs @ H.to(outputs)) * outputs).sum() / 2, len(outputs)

    data = [(torch.zeros(3, 1).to(theta), torch.zeros(3, 1)) for _ in range(batches)]
    return lg.Problem(Quadratic(theta), terms, data)


def start(seed=1, n=4, dtype=torch.float64) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=dtype)
