"""Where sharpness-aware minimisation looks at the gradient: uphill from the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Ascent = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


def sam(rho: float = 0.05) -> Ascent:
    r"""Sharpness-aware minimisation: the steepest way up a ball.

    .. math:: \epsilon = \rho \, g / \|g\|_2

    with the gradient g of all parameters together. The optimiser then gets the gradient at
    :math:`\theta + \epsilon`; see :func:`optimize`. Cost: one more gradient a step.

    Args:
        rho: the radius.

    Raises:
        ValueError: unless rho is positive.

    Source: Foret et al., Sharpness-aware minimization (2021), equation 2 (arXiv:2010.01412).

    >>> sam(0.1)([torch.ones(2)], [torch.tensor([3.0, 4.0])])
    [tensor([0.0600, 0.0800])]
    """
    return _uphill(rho, torch.ones_like)


def asam(rho: float = 0.5, eta: float = 0.01) -> Ascent:
    r"""Adaptive sharpness-aware minimisation: the steepest way up an ellipsoid.

    .. math:: \epsilon = \rho \, T^2 g / \|T g\|_2, \qquad T = \mathrm{diag}(|\theta| + \eta)

    for all parameters, biases as well. With eta = 0 the loss that it is led by is the same for all
    networks that are one up to the scales of their layers. Cost: one more gradient a step.

    Args:
        rho: the radius, relative to the parameters.
        eta: added to their sizes, so that those that are 0 move, too.

    Raises:
        ValueError: unless rho is positive.

    Source: Kwon et al., ASAM (2021), equation 7 (arXiv:2102.11600).

    >>> asam(1.0, eta=0.0)([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 2.0])])
    [tensor([0.6000, 1.6000])]
    """
    return _uphill(rho, lambda parameter: parameter.abs() + eta)


def _uphill(rho: float, scale: Callable[[Tensor], Tensor]) -> Ascent:
    if not rho > 0:
        raise ValueError(f"expected a radius rho > 0, got {rho}")

    @torch.no_grad()
    def ascent(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        scales = [scale(parameter) for parameter in parameters]
        scaled = [s * gradient for s, gradient in zip(scales, gradients, strict=True)]
        norms = torch.stack([torch.linalg.vector_norm(part) for part in scaled])
        length = torch.linalg.vector_norm(norms).clamp(min=torch.finfo(norms.dtype).tiny)
        return [rho * s * part / length for s, part in zip(scales, scaled, strict=True)]

    return ascent


ASCENTS = {"sam": sam, "asam": asam}
