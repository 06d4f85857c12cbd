"""The output Hessian of a random two-layer network, and its top eigenspace."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import random_numbers

TOGETHER = 200  # examples whose factors are in memory at once


@dataclass(frozen=True, eq=False)
class Network:
    r"""A network of one hidden ReLU layer without biases, on inputs of its own.

    .. math:: f(x) = W_2 \, \mathrm{relu}(W_1 x), \quad (W_1)_{ij} \sim N(0, 1/d), \quad
        (W_2)_{ij} \sim N(0, 1/n), \quad x_i \sim N(0, 1)

    Attributes:
        second: the weights W_2.
        masks: 1 where a hidden number of an example is positive, and 0 elsewhere.
        probabilities: softmaxed outputs.
    """

    second: Float[Tensor, "C n"]
    masks: Float[Tensor, "N n"]
    probabilities: Float[Tensor, "N C"]

    def output_hessian(self) -> Float[Tensor, "n n"]:
        r"""The mean Hessian of the cross-entropy in what the first layer puts out.

        .. math:: E[M] = \frac{1}{N} \sum_s D_s W_2^\top A_s W_2 D_s, \quad
            A = \mathrm{diag}(p) - p p^\top

        with the masks D; summed as products of rows :math:`R_s^\top W_2 D_s` with
        :math:`R R^\top = A`.
        """
        n, N = self.second.shape[1], len(self.masks)
        total = self.second.new_zeros(n, n)
        parts = (torch.split(each, TOGETHER) for each in (self.probabilities, self.masks))
        for p, mask in zip(*parts, strict=True):
            root = p.sqrt()
            R = torch.diag_embed(root) - p[:, :, None] * root[:, None, :]
            rows = torch.einsum("bck,cn,bn->bkn", R, self.second, mask).reshape(-1, n)
            total.addmm_(rows.T, rows, alpha=1 / N)
        return total

    def with_independent_masks(self) -> Float[Tensor, "n n"]:
        r"""What it would be, if each mask were on or off by the toss of a coin.

        .. math:: E[D B D] = B/4 + \mathrm{diag}(B)/4, \quad B = W_2^\top E[A] W_2
        """
        p = self.probabilities
        B = self.second.T @ (torch.diag(p.mean(0)) - p.T @ p / len(p)) @ self.second
        return (B + torch.diag(B.diag())) / 4


def random_network(n: int, d: int, C: int, samples: int, seed: int) -> Network:
    """Draw weights and inputs, and pass them through."""
    generator = random_numbers(seed)

    def draw(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    first, second, x = draw(n, d) / d**0.5, draw(C, n) / n**0.5, draw(samples, d)
    hidden = x @ first.T
    return Network(second, (hidden > 0).double(), (hidden.relu() @ second.T).softmax(1))


def row_space(
    second: Float[Tensor, "C n"], without: Float[Tensor, " C"]
) -> Float[Tensor, "n C_minus_1"]:
    """An orthonormal basis of what W_2^T makes of the vectors orthogonal to one of them."""
    others = torch.linalg.qr(torch.cat([without[:, None], torch.eye(len(without))], 1).double()).Q
    basis: Tensor = torch.linalg.qr(second.T @ others[:, 1:]).Q
    return basis
