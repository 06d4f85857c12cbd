"""Upper bounds of spectral norms that hold in spite of rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

EPSILON = torch.finfo(torch.float64).eps


def dense_norm(M: Float[Tensor, "... m n"] | Complex[Tensor, "... m n"]) -> Float[Tensor, " ..."]:
    r"""Upper bounds of the largest singular values of float64 matrices; infinite for NaN.

    The largest eigenvalue of the smaller Gram matrix, plus what rounding can hide. With the errors
    of a product and of a backward stable eigenvalue solver,

    .. math:: \|M\|_2^2 \le \hat\lambda_{\max} + 8 (m + n) \epsilon \|M\|_F^2.

    Source: Higham, Accuracy and stability of numerical algorithms (2002), section 3.5.
    """
    m, n = M.shape[-2:]
    if not m * n:
        return torch.zeros(M.shape[:-2], dtype=torch.float64, device=M.device)
    scale = M.abs().amax((-2, -1), keepdim=True)
    finite = scale.isfinite()
    scaled = torch.where(finite, M / torch.where(scale > 0, scale, 1), 0)
    gram = scaled @ scaled.mH if m <= n else scaled.mH @ scaled
    return torch.where(finite, gram_norm(gram, max(m, n))[..., None, None] * scale, math.inf)[
        ..., 0, 0
    ]


def gram_norm(
    gram: Float[Tensor, "... n n"] | Complex[Tensor, "... n n"], terms: int
) -> Float[Tensor, " ..."]:
    """Upper bounds of the norms of matrices as in :func:`dense_norm`, from their Gram matrices.

    Those are sums of so many terms, of numbers whose squares neither vanish nor overflow, or
    infinite or NaN; then so is the bound infinite.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1).real
    finite = gram.isfinite().all(-1).all(-1)
    rounding = 8 * (terms + gram.shape[-1]) * EPSILON * diagonal.sum(-1)
    values = torch.linalg.eigvalsh(torch.where(finite[..., None, None], gram, 0))
    largest = values[..., -1].clamp(min=0) + rounding
    return torch.where(finite, largest.sqrt(), math.inf)


def convolution_norm(
    weight: Float[Tensor, "O I ..."],
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    operations: float = math.inf,
) -> float:
    r"""An upper bound of the spectral norm of a convolution with zero padding.

    Infinite where it would take more than some operations, up to a small factor.

    With stride s, the inputs that are s apart make one channel each, and in those channels the
    stride is 1 (polyphase components). On a torus of N points, where N is the extent of the inputs
    plus that of the kernel, nothing wraps around: the zero-padded convolution is a submatrix of
    the circular one. That one is block-diagonal in the Fourier basis, hence

    .. math:: \|A\|_2 \le \max_\omega \|\hat K(\omega)\|_2,

    a C_out x C_in s^d matrix for each frequency; those of opposite sign have the same norm.

    Source: Sedghi et al., The singular values of convolutional layers (2019), for the circle.
    """
    kernel, scale = weight.shape[2:], float(weight.abs().amax())
    if not 0 < scale < math.inf:
        return 0.0 if scale == 0 else math.inf
    K = torch.unflatten(weight / scale, 0, (groups, -1)).to(torch.complex128)
    waves = [
        _waves(*settings).to(K.device)
        for settings in zip(kernel, size, stride, padding, dilation, strict=True)
    ]
    phases, frequencies = math.prod(w.shape[1] for w in waves), math.prod(map(len, waves))
    m, n = K.shape[1], K.shape[2] * phases
    if groups * (frequencies / 2 + 1) * m * n * min(m, n) > operations:
        return math.inf
    rounding = 8 * (math.prod(kernel) + 8) * EPSILON * float(K.abs().flatten(3).sum(3).norm())
    largest = 0.0
    for frequency in range(len(waves[0]) // 2 + 1):
        transformed = K
        for wave in (waves[0][frequency : frequency + 1], *waves[1:]):
            transformed = torch.tensordot(transformed, wave, dims=([3], [2]))
        largest = max(largest, _largest_norm(transformed))
    return (largest + rounding) * scale


def _waves(taps: int, size: int, stride: int, padding: int, dilation: int) -> Tensor:
    """(N, s, taps): the wave of each frequency at each tap, in the channel of its phase."""
    offsets = torch.arange(taps) * dilation - padding
    places = offsets.div(stride, rounding_mode="floor")
    phases = offsets - places * stride
    span = int(places.max() - places.min())
    N = -(-size // stride) + span if span else 1  # without overlap all frequencies are the same
    turns = (torch.arange(N)[:, None] * places % N).double() / N
    wave = torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
    return wave[:, None, :] * (phases == torch.arange(stride)[:, None])


def _largest_norm(K: Complex[Tensor, "G O I ..."]) -> float:
    """The largest norm over groups and frequencies of blocks (G, O, I, N1, s1, N2, s2, ...)."""
    frequencies = list(range(3, K.ndim, 2))
    phases = list(range(4, K.ndim, 2))
    blocks = K.permute(0, *frequencies, 1, 2, *phases)
    blocks = blocks.flatten(0, len(frequencies)).flatten(2)
    return float(dense_norm(blocks).max())
