"""Networks that learn a generated task."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lossgeom.lab.models import mlp

FIRST_DAMPING = 1e-6  # relative to the mean square of the Jacobian's entries, times its rows
SPAN = 1e-12  # relative size of inputs in a direction that are rounding errors


@torch.no_grad()
def student(
    inputs: Float[Tensor, "N D"],
    targets: Float[Tensor, "N C"],
    *,
    fit: float = 1e-3,
    steps: int = 50,
    seed: int = 0,
) -> nn.Sequential:
    r"""Train a network with 32 tanh units until its largest error on the sample is small.

    Levenberg-Marquardt steps, with the residuals r and their Jacobian J in the parameters,

    .. math:: \theta \leftarrow \theta - \mathrm{argmin}_s \; \|r - J s\|^2 + \lambda \|s\|^2,

    each taken only if it lowers the sum of squares, until

    .. math:: \max_i \|f(x_i) - y_i\|_2 \le \ell

    or until there have been as many as are allowed: the caller measures what was reached. For 1,000
    points of :func:`tanh_surface` with d = 2 and three seeds, where Jd is the Jacobian of the error
    in the latent points:

    ==========  ========  ==================
    fit asked   steps     largest norm of Jd
    ==========  ========  ==================
    1e-3        4 to 7    4e-4 to 7e-4
    1e-4        6 to 10   0.4e-4 to 4.5e-4
    1e-5        12 to 50  0.2e-4 to 3.6e-4
    ==========  ========  ==================

    One of the three is still at an error of 1.3e-5 after 50 steps. 200 steps of L-BFGS stop at
    errors of 4e-4 to 1e-3, with norms of 5e-3 to 9e-3. Without steps, the network is as it was
    initialised, one that does not fit. It is in float64.

    Cost of a step: J (NC x P, with P = 32 (r + C + 1) + C for inputs that span r dimensions, out of
    which no step leads), and a least squares problem with NC + P rows and min(NC, P) columns, by
    QR. Take a part of a large sample: what fits 2,000 points fits others as well.

    Args:
        inputs: x_i.
        targets: y_i.
        fit: the error that is small enough, as a length of the vector of outputs.
        steps: at most.
        seed: of the initialisation.

    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    >>> model = student(x, x.sin(), fit=1e-3)
    >>> bool((model(x) - x.sin()).abs().max() <= 1e-3)
    True
    """
    model = mlp(inputs.shape[1], targets.shape[1], (32,), "tanh", seed).double()
    names, (first, *others) = zip(*model.named_parameters(), strict=True)
    basis = _basis(inputs)
    inputs, parts = inputs @ basis, [first @ basis, *others]

    def at(theta: Tensor, x: Tensor) -> Tensor:
        pieces = torch.split(theta, [part.numel() for part in parts])
        named = dict(zip(names, map(Tensor.view_as, pieces, parts), strict=True))
        outputs: Tensor = functional_call(model, named, (x,))
        return outputs

    theta, damping = parameters_to_vector(parts), FIRST_DAMPING
    residuals = at(theta, inputs) - targets
    for _ in range(steps):
        if torch.linalg.vector_norm(residuals, dim=1).max() <= fit:
            break
        J = vmap(partial(jacrev(at), theta))(inputs).flatten(0, 1)
        trial = theta - _damped_solution(J, residuals.flatten(), damping)
        there = at(trial, inputs) - targets
        if there.square().sum() < residuals.square().sum():
            theta, residuals, damping = trial, there, damping / 3
        else:
            damping *= 4
    vector_to_parameters(theta, parts)
    first += (parts[0] - first @ basis) @ basis.T
    return model


def _basis(inputs: Float[Tensor, "N D"]) -> Float[Tensor, "D r"]:
    """An orthonormal basis of what the inputs span: no step leaves it, in exact arithmetic."""
    _, sizes, rows = torch.linalg.svd(inputs, full_matrices=False)
    spanning: Tensor = rows[sizes > SPAN * sizes[0]].T
    return spanning


def _damped_solution(
    J: Float[Tensor, "R P"], residuals: Float[Tensor, " R"], damping: float
) -> Float[Tensor, " P"]:
    """Solve by QR: J^T J has twice as few digits, and the last ones are needed.

    With fewer rows than columns it is the shortest (s, z) with J s + size z = r.
    """
    rows, columns = J.shape
    size = (damping * rows * J.square().mean()).sqrt()
    if rows < columns:
        beside = size * torch.eye(rows, dtype=J.dtype)
        both, right = torch.cat([J, beside], 1), residuals[:, None]
    else:
        below = size * torch.eye(columns, dtype=J.dtype)
        both = torch.cat([J, below])
        right = torch.cat([residuals, residuals.new_zeros(columns)])[:, None]
    step: Tensor = torch.linalg.lstsq(both, right, driver="gels").solution[:columns, 0]
    return step
