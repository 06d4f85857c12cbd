"""An upper bound on the spectral norm of a convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LARGEST_SYMBOL = 2**24  # complex numbers


def convolution_norm(module: Any, weight: Tensor, size: Sequence[int]) -> float:
    r"""At least the spectral norm of a zero-padded convolution of inputs of some size.

    It is a part of a periodic convolution on a grid of :math:`n + d (l - 1)` points, with l the
    length of the kernel and d the dilation, where nothing comes around; a part of a matrix has no
    larger norm. The Fourier transform takes the periodic one apart into one small matrix for each
    frequency; a stride s folds s frequencies into one. Exact but for the borders.

    Returns:
        The bound; infinity where the padding is not with zeros, or the transform would not fit.
    """
    lengths = weight.shape[2:]
    reach = [d * (length - 1) for d, length in zip(module.dilation, lengths, strict=True)]
    folded = [math.ceil((n + r) / s) for n, r, s in zip(size, reach, module.stride, strict=True)]
    grid = [s * m for s, m in zip(module.stride, folded, strict=True)]
    numbers = math.prod([*weight.shape[:2], *grid])
    if module.padding_mode != "zeros" or numbers > LARGEST_SYMBOL:
        return math.inf
    kernel = weight.new_zeros(*weight.shape[:2], *grid)
    inside = [slice(0, r + 1, d) for r, d in zip(reach, module.dilation, strict=True)]
    place = (slice(None), slice(None), *inside)
    kernel[place] = weight
    symbol = torch.fft.fftn(kernel, dim=tuple(range(2, kernel.ndim)))
    return _largest(symbol.reshape(module.groups, -1, *symbol.shape[1:]), module.stride, folded)


def _largest(symbol: Tensor, stride: Sequence[int], folded: Sequence[int]) -> float:
    """The largest singular value over groups and folded frequencies; symbol is (g, o, i, *grid)."""
    dims = len(folded)
    pairs = [part for pair in zip(stride, folded, strict=True) for part in pair]
    symbol = symbol.reshape(*symbol.shape[:3], *pairs)
    aliases, frequencies = list(range(3, 3 + 2 * dims, 2)), list(range(4, 4 + 2 * dims, 2))
    matrices = symbol.permute(0, *frequencies, 1, 2, *aliases).flatten(dims + 2)
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mT
    gram = matrices @ matrices.mH
    largest = torch.linalg.eigvalsh(gram).max().item()
    return math.sqrt(max(largest, 0.0) / math.prod(stride))
