r"""One output, any spectrum of Q: the moments T(k), the invariant, and gradient flow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.quadratic._bisection import bisected

LONGEST = 300.0  # of tau times the smallest eigenvalue, after which J is next to nothing


def eigencoordinates(
    Q: Float[Tensor, "P P"], J: Float[Tensor, "R P"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, "R P"]]:
    """Eigenvalues of Q, ascending, and J in the basis of its eigenvectors.

    >>> eigenvalues, J = eigencoordinates(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.ones(1, 2))
    >>> [round(value) for value in eigenvalues.tolist()], [round(x) for x in (J**2)[0].tolist()]
    ([-1, 1], [0, 2])
    """
    eigenvalues, vectors = torch.linalg.eigh(Q)
    return eigenvalues, J @ vectors


def moments(
    eigenvalues: Float[Tensor, " P"], J: Float[Tensor, "R P"], orders: range
) -> Float[Tensor, "R K"]:
    r"""The hierarchy :math:`T(k) = J^\top Q^k J = \sum_i \omega_i^k J_i^2`.

    T(0) is the eigenvalue of the tangent kernel, and T(1) drives it. Negative orders need
    eigenvalues that are not zero.

    Args:
        eigenvalues: :math:`\omega_i` of Q.
        J: in the eigenvectors' coordinates, see :func:`eigencoordinates`.
        orders: k, such as ``range(4)``.

    Source: derived; the planar case is that of Agarwala et al., arXiv:2210.04860.

    >>> omega = torch.tensor([1.0, -0.1]).double()
    >>> T = moments(omega, torch.tensor([[1.2, 0.4]]).double(), range(4))
    >>> [round(value, 5) for value in T[0].tolist()]
    [1.6, 1.424, 1.4416, 1.43984]
    """
    powers = torch.stack([eigenvalues**k for k in orders])
    return J.square() @ powers.T


def moment_step(
    z: Float[Tensor, " R"], T: Float[Tensor, "R K"]
) -> tuple[Float[Tensor, " R"], Float[Tensor, "R K-2"]]:
    r"""One step of gradient descent in rescaled units, of z and of the moments T(0..K-1).

    .. math:: z' = z - z T(0) + \tfrac12 z^2 T(1), \qquad
        T'(k) = T(k) - 2 z T(k + 1) + z^2 T(k + 2)

    Two moments are lost in each step; :func:`next_moments` gives them back where Q has few
    different eigenvalues.

    Raises:
        ValueError: if there are fewer than three moments.

    Source: derived from :math:`J_i' = (1 - \omega_i z) J_i`.

    >>> T = torch.tensor([[1.6, 1.424, 1.4416, 1.43984]]).double()
    >>> z, T = moment_step(torch.tensor([0.3]).double(), T)
    >>> round(z.item(), 5), [round(value, 7) for value in T[0].tolist()]
    (-0.11592, [0.875344, 0.6886256])
    """
    if T.shape[1] < 3:
        raise ValueError(f"expected at least the moments T(0), T(1), T(2); got {T.shape[1]}")
    s = z[:, None]
    later = T[:, :-2] - 2 * s * T[:, 1:-1] + s.square() * T[:, 2:]
    return z - z * T[:, 0] + z.square() * T[:, 1] / 2, later


def next_moments(
    eigenvalues: Float[Tensor, " M"], T: Float[Tensor, "R K"], more: int = 2
) -> Float[Tensor, "R L"]:
    r"""The moments that follow from those of the M different eigenvalues of Q.

    By the characteristic polynomial, :math:`T(k + M) = -\sum_{j<M} c_j T(k + j)` with
    :math:`\prod_i (x - \omega_i) = x^M + \sum_j c_j x^j`. The polynomial is badly conditioned for
    many eigenvalues; a handful is what it is for.

    Args:
        eigenvalues: each once.
        T: at least M moments of consecutive orders.
        more: how many to add.

    Raises:
        ValueError: if there are fewer than M moments.

    Source: derived (Cayley and Hamilton).

    >>> T = next_moments(torch.tensor([1.0, -0.1]).double(), torch.tensor([[1.6, 1.424]]).double())
    >>> [round(value, 5) for value in T[0].tolist()]
    [1.6, 1.424, 1.4416, 1.43984]
    """
    M = len(eigenvalues)
    if T.shape[1] < M:
        raise ValueError(f"expected a moment for each of {M} eigenvalues, got {T.shape[1]}")
    coefficients = torch.ones(1, dtype=T.dtype, device=T.device)
    for root in eigenvalues:
        shifted = torch.nn.functional.pad(coefficients, (1, 0))
        coefficients = shifted - root * torch.nn.functional.pad(coefficients, (0, 1))
    for _ in range(more):
        T = torch.cat([T, -(T[:, -M:] @ coefficients[:-1])[:, None]], 1)
    return T


def invariant(
    eigenvalues: Float[Tensor, " P"], z: Float[Tensor, " R"], J: Float[Tensor, "R P"]
) -> Float[Tensor, " R"]:
    r"""What neither gradient descent nor gradient flow changes, for one output.

    .. math:: E = J^\top Q^{-1} J - 2 z = T(-1) - 2 z

    It is a property of the model, whatever theta: z is a quadratic function with the Hessian Q,
    and E is -2 times its value where its gradient vanishes.

    Raises:
        ValueError: if Q has an eigenvalue of 0, where there is no such point.

    Source: derived; exact.

    >>> omega = torch.tensor([1.0, -0.1]).double()
    >>> z, J = torch.tensor([0.3]).double(), torch.tensor([[1.2, 0.4]]).double()
    >>> round(invariant(omega, z, J).item(), 6)
    -0.76
    """
    if not bool((eigenvalues != 0).all()):
        raise ValueError("expected an invertible Q, got an eigenvalue of 0: E does not exist")
    return moments(eigenvalues, J, range(-1, 0))[:, 0] - 2 * z


def flow_limit(
    eigenvalues: Float[Tensor, " P"], z: Float[Tensor, " R"], J: Float[Tensor, "R P"]
) -> Float[Tensor, " R"]:
    r"""T(0) where gradient flow ends, for one output.

    With :math:`d\tau = z\,dt` the flow is :math:`J_i = J_i(0) e^{-\omega_i \tau}`, and it ends at
    the root of the monotone function

    .. math:: 2 z(\tau) = \sum_i J_i(0)^2 e^{-2 \omega_i \tau} / \omega_i - E,
        \qquad T(0) = \sum_i J_i(0)^2 e^{-2 \omega_i \tau}.

    Where Q has eigenvalues of one sign z may have no root; then J vanishes, and so does T(0). Above
    2 (rescaled) gradient descent cannot follow and meets the edge of stability.

    Cost: a bisection.

    Source: derived; exact.

    >>> omega = torch.tensor([1.0, -0.01]).double()
    >>> J = torch.tensor([[1.0099503, 0.0]]).double()  # T(0) = 1.02
    >>> z = torch.tensor([0.0]).double()
    >>> round(flow_limit(omega, z, J).item(), 4)
    1.02
    """
    E = invariant(eigenvalues, z, J)
    end = (LONGEST / eigenvalues.abs().min()).expand_as(z)

    def flown(tau: Float[Tensor, " R"], order: int) -> Float[Tensor, " R"]:
        """T(k) on the flow; with logarithms of J, so that 0 stays 0 where others overflow."""
        J_later = (J.abs().log() - eigenvalues * tau[:, None]).exp()
        return moments(eigenvalues, J_later, range(order, order + 1))[:, 0]

    low, high = torch.where(z > 0, 0, -end), torch.where(z > 0, end, 0)
    return flown(bisected(low, high, lambda tau: ~(flown(tau, -1) > E)), 0)
