"""Torch's normalisations and attention, as several steps each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.lipschitz.certified.activations import prelu
from lossgeom.lipschitz.certified.affine_maps import dense
from lossgeom.lipschitz.certified.building import (
    Handler,
    expanded,
    in_groups,
    line,
    matrix_product,
    moved,
    summed,
)
from lossgeom.lipschitz.certified.graph import Value
from lossgeom.lipschitz.certified.normalisation import Normalise
from lossgeom.lipschitz.certified.rearranging import UnknownArguments
from lossgeom.lipschitz.certified.softmax import Softmax

Weight = Tensor | None


def _normalised(
    x: Value, size: int, weight: Weight, bias: Weight, eps: float, centred: bool = True
) -> Value:
    y = in_groups(x, size, Normalise(centred, float(eps)))
    return line(y, 1.0 if weight is None else weight, 0.0 if bias is None else bias)


def _layer_norm(
    input: Value,  # noqa: A002
    normalized_shape: Any,
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
    centred: bool = True,
) -> Value:
    shape = tuple(normalized_shape)
    if shape != input.shape[-len(shape) :]:
        raise UnknownArguments
    return _normalised(input, math.prod(shape), weight, bias, eps, centred)


def _rms_norm(input: Value, normalized_shape: Any, weight: Weight = None, eps: Any = None) -> Value:  # noqa: A002
    eps = torch.finfo(torch.float64).eps if eps is None else eps
    return _layer_norm(input, normalized_shape, weight, None, eps, centred=False)


def _group_norm(
    input: Value,  # noqa: A002
    num_groups: int,
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
) -> Value:
    per_channel = (-1, *[1] * (len(input.shape) - 1))
    weight, bias = (w if w is None else w.reshape(per_channel) for w in (weight, bias))
    return _normalised(input, math.prod(input.shape) // num_groups, weight, bias, eps)


def _instance_norm(module: Any, input: Value) -> Value:  # noqa: A002
    if module.running_mean is not None or len(input.shape) != int(type(module).__name__[-2]) + 1:
        raise UnknownArguments
    return _group_norm(input, input.shape[0], module.weight, module.bias, module.eps)


def _softmax(
    input: Value,  # noqa: A002
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: Any = None,  # noqa: ARG001
) -> Value:
    rank = len(input.shape) + 1
    if dim is None or dim % rank == 0:
        raise UnknownArguments
    last = moved(lambda x: x.movedim(dim, -1))(input)
    weights: Value = moved(lambda x: x.movedim(-1, dim))(in_groups(last, last.shape[-1], Softmax()))
    return weights


def _matmul(input: Any, other: Any) -> Value:  # noqa: A002
    if not isinstance(input, Value):  # (A X)^T = X^T A^T
        return _transposed(_matmul(_transposed(other), input.mT))
    if not isinstance(other, Value):
        if other.ndim != 2:
            raise UnknownArguments
        return input.then(dense(other.T, None, input.shape))
    return matrix_product(*expanded(input, other, last=2))


def _transposed(value: Value) -> Value:
    result: Value = moved(lambda x: x.transpose(-2, -1))(value)
    return result


def _masked_fill(input: Value, mask: Any, value: Any) -> Value:  # noqa: A002
    if not isinstance(input, Value) or isinstance(value, Value):
        raise UnknownArguments
    kept = ~torch.as_tensor(mask, dtype=torch.bool)
    return line(input, kept.double(), torch.where(kept, 0.0, float(value)))


def _attended(
    query: Value, key: Value, value: Value, mask: Tensor | None, scale: float
) -> tuple[Value, Value]:
    """Averages of values, and their weights; a mask is added, or says what is seen."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)
    scores = _matmul(query, _transposed(key))
    weights = _softmax(line(scores, scale, 0.0 if mask is None else mask), -1)
    return _matmul(weights, value), weights


def _scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Value:
    known = not dropout_p and not isinstance(attn_mask, Value)
    if not known or not all(isinstance(x, Value) for x in (query, key, value)):
        raise UnknownArguments
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _attended(query, key, value, attn_mask, scale)[0]


def _multi_head(
    module: nn.MultiheadAttention,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # noqa: ARG001
) -> tuple[Value, Value | None]:
    added = (key_padding_mask, module.bias_k)
    known = module.batch_first and not module.add_zero_attn and added == (None, None)
    if not known or not all(isinstance(x, Value) for x in (query, key, value)):
        raise UnknownArguments
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = ~attn_mask
    q, k, v = (_heads(module, i, x) for i, x in enumerate((query, key, value)))
    results, weights = _attended(q, k, v, attn_mask, module.head_dim**-0.5)
    joined = moved(lambda x: x.transpose(1, 2).flatten(2))(results)
    output = joined.then(dense(module.out_proj.weight, module.out_proj.bias, joined.shape))
    if average_attn_weights:
        weights = summed(mean=True)(weights, 1)
    return output, weights if need_weights else None


def _heads(module: nn.MultiheadAttention, i: int, x: Value) -> Value:
    """The queries, keys or values of all heads."""
    weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    packed = module.in_proj_weight
    weight = weights[i] if packed is None else packed.chunk(3)[i]
    bias = None if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[i]
    apart: Value = moved(lambda x: x.unflatten(2, (module.num_heads, -1)).transpose(1, 2))(
        x.then(dense(weight, bias, x.shape))
    )
    return apart


FUNCTIONS: dict[str, Handler] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "softmax": _softmax,
    **dict.fromkeys(("matmul", "bmm"), _matmul),
    **dict.fromkeys(("masked_fill", "masked_fill_"), _masked_fill),
    "scaled_dot_product_attention": _scaled_dot_product_attention,
    "prelu": lambda x, weight: x.then(prelu(weight, x.shape)),
}

BLOCKS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.LayerNorm: lambda m, x: _layer_norm(x, m.normalized_shape, m.weight, m.bias, m.eps),
    nn.RMSNorm: lambda m, x: _rms_norm(x, m.normalized_shape, m.weight, m.eps),
    nn.GroupNorm: lambda m, x: _group_norm(x, m.num_groups, m.weight, m.bias, m.eps),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
    nn.Softmax: lambda m, x: _softmax(x, m.dim),
    nn.MultiheadAttention: _multi_head,
}
