"""Models with random residuals, Jacobians and second derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.messages.reprs import short
from lossgeom.quadratic.model import Ensemble, QuadraticModel
from lossgeom.quadratic.second_derivative import Dense, Rows

TAG = 0x71756164  # so that no other part of a programme draws the same numbers from the same seed


@dataclass(frozen=True, eq=False)
class RandomModels(Ensemble):
    r"""R models with a random z, J and Q each, drawn a chunk at a time.

    The entries of z and J are normal with variances :math:`\sigma_z^2` and :math:`\sigma_J^2`, in
    rescaled units; each :math:`Q_a` is a symmetric matrix of normal numbers with variance 1 off the
    diagonal and 2 on it, whose law no rotation changes. Model
    ``number`` of a ``seed`` is the same in any selection, order or chunk; drawn on the CPU in
    float64. Memory for a chunk: 8 D P^2 bytes for each run in it.

    Natural coordinates are :math:`a = \sigma_z \sqrt{2 D P}`, the square root of the predicted
    relative acceleration of the largest eigenvalue, and its typical initial value
    :math:`\lambda_0 = \sigma_J^2 (\sqrt D + \sqrt P)^2`: see :func:`random_models`.

    Attributes:
        outputs: D.
        parameters: P.
        sigma_z: (R,)
        sigma_J: (R,)
        seed: of all.
        numbers: (R,) which models of this seed.

    Source: ensemble and coordinates derived here, after the abstract of Agarwala, Pedregosa and
    Pennington, arXiv:2210.04860.
    """

    outputs: int
    parameters: int
    sigma_z: Float[Tensor, " R"]
    sigma_J: Float[Tensor, " R"]  # noqa: N815
    seed: int
    numbers: Int[Tensor, " R"]

    __repr__ = short

    @property
    def runs(self) -> int:
        return len(self.numbers)

    @property
    def bytes_per_run(self) -> int:
        D, P = self.outputs, self.parameters
        return 8 * (D * P * (P + 1) + D + P)

    def rows(self, index: Rows) -> QuadraticModel:
        """Draw some of the models."""
        D, P, numbers = self.outputs, self.parameters, self.numbers[index]
        scales = zip(self.sigma_z[index].tolist(), self.sigma_J[index].tolist(), strict=True)
        z, J = torch.empty(len(numbers), D).double(), torch.empty(len(numbers), D, P).double()
        Q = torch.empty(len(numbers), P, D, P).double()  # the order that products want
        upper, on_diagonal = _upper_entries(D, P)
        entries = torch.empty(D, P * (P + 1) // 2).double()
        for run, (number, scale) in enumerate(zip(numbers.tolist(), scales, strict=True)):
            generator = random_numbers(self.seed, number, tag=TAG)
            z[run].normal_(std=scale[0], generator=generator)
            J[run].normal_(std=scale[1], generator=generator)
            entries.normal_(generator=generator)[:, on_diagonal] *= 2**0.5
            torch.index_select(entries.view(-1), 0, upper, out=Q[run].view(-1))
        return QuadraticModel(z, J, Dense(Q.transpose(1, 2), check=False))


def _upper_entries(D: int, P: int) -> tuple[Int[Tensor, " PDP"], Int[Tensor, " P"]]:
    """Places of all entries of symmetric matrices among those on and above their diagonals."""
    rows, columns = torch.triu_indices(P, P)
    place = torch.empty(P, P, dtype=torch.long)
    place[rows, columns] = place[columns, rows] = torch.arange(len(rows))
    matrices = len(rows) * torch.arange(D)[:, None]
    return (place[:, None] + matrices).flatten(), place.diagonal()


def random_models(
    runs: int,
    outputs: int,
    parameters: int,
    *,
    a: float,
    initial_curvature: float,
    seed: int = 0,
) -> RandomModels:
    r"""Random models at a point of the phase diagram, in rescaled units.

    .. math:: \sigma_z = a / \sqrt{2 D P}, \qquad
        \sigma_J = \sqrt{\lambda_0} / (\sqrt D + \sqrt P)

    Args:
        runs: R.
        outputs: D.
        parameters: P.
        a: how fast curvature is expected to accelerate; 0 for no residuals.
        initial_curvature: :math:`\lambda_0`, about the largest eigenvalue of J J^T of large models.
        seed: of all numbers.

    Raises:
        ValueError: if a size is not positive, or a or the curvature is negative.

    >>> models = random_models(10_000, 20, 40, a=0.4, initial_curvature=1.2)
    >>> model = models.rows(slice(0, 2))  # the other 2.5 GB do not exist
    >>> tuple(model.y.shape), tuple(model.G.shape)
    ((2, 20), (2, 20, 40))
    """
    check_at_least(1, runs=runs, outputs=outputs, parameters=parameters)
    check_at_least(0, seed=seed)
    check_number("a", a, 0, at_low=True)
    check_number("initial_curvature", initial_curvature, 0, at_low=True)
    sigma_z = a / (2 * outputs * parameters) ** 0.5
    sigma_J = initial_curvature**0.5 / (outputs**0.5 + parameters**0.5)
    every = torch.ones(runs, dtype=torch.float64)
    return RandomModels(
        outputs, parameters, sigma_z * every, sigma_J * every, seed, torch.arange(runs)
    )
