"""Torch's normalisations and attention, as several steps each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.linalg.operator_norms import EPSILON
from lossgeom.lipschitz.certified.activations import prelu
from lossgeom.lipschitz.certified.affine_maps import dense
from lossgeom.lipschitz.certified.building import (
    Handler,
    expanded,
    in_groups,
    line,
    matrix_product,
    moved,
    reshaped,
    summed,
)
from lossgeom.lipschitz.certified.graph import Value
from lossgeom.lipschitz.certified.normalisation import Normalise
from lossgeom.lipschitz.certified.rearranging import UnknownArguments
from lossgeom.lipschitz.certified.softmax import Softmax

Weight = Tensor | None


def _layer_norm(
    x: Value,
    normalized_shape: Any,
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
    centred: bool = True,
) -> Value:
    shape = tuple(normalized_shape)
    if shape != x.shape[-len(shape) :]:
        raise UnknownArguments
    y = in_groups(x, math.prod(shape), Normalise(centred, eps))
    return line(y, 1.0 if weight is None else weight, 0.0 if bias is None else bias)


def _rms_norm(x: Value, normalized_shape: Any, weight: Weight = None, eps: Any = None) -> Value:
    eps = EPSILON if eps is None else eps  # torch's, in float64
    return _layer_norm(x, normalized_shape, weight, None, eps, centred=False)


def _group_norm(
    x: Value, num_groups: int, weight: Weight = None, bias: Weight = None, eps: float = 1e-5
) -> Value:
    groups = reshaped(x, num_groups, -1)
    y = reshaped(_layer_norm(groups, groups.shape[1:], eps=eps), x.shape[0], -1)
    scale, shift = (w if w is None else w[:, None] for w in (weight, bias))
    return reshaped(
        line(y, 1.0 if scale is None else scale, 0.0 if shift is None else shift), *x.shape
    )


def _instance_norm(module: Any, x: Value) -> Value:
    if module.running_mean is not None or len(x.shape) != int(type(module).__name__[-2]) + 1:
        raise UnknownArguments
    return _group_norm(x, x.shape[0], module.weight, module.bias, module.eps)


def _softmax(x: Value, dim: int | None = None, **_: Any) -> Value:
    if dim is None or dim % (len(x.shape) + 1) == 0:
        raise UnknownArguments
    last: Value = moved(Tensor.movedim)(x, dim, -1)
    weights: Value = moved(Tensor.movedim)(in_groups(last, last.shape[-1], Softmax()), -1, dim)
    return weights


def _transposed(x: Any) -> Value:
    result: Value = moved(Tensor.transpose)(x, -2, -1)
    return result


def _matmul(x: Any, y: Any) -> Value:
    if not isinstance(x, Value):  # (A Y)^T = Y^T A^T
        return _transposed(_matmul(_transposed(y), x.mT))
    if isinstance(y, Value):
        return matrix_product(*expanded(x, y, last=2))
    if y.ndim != 2:
        raise UnknownArguments
    return x.then(dense(y.T, None, x.shape))


def _masked_fill(x: Any, mask: Any, value: Any) -> Value:
    if not isinstance(x, Value) or isinstance(value, Value):
        raise UnknownArguments
    kept = ~torch.as_tensor(mask, dtype=torch.bool)
    return line(x, kept.double(), torch.where(kept, 0.0, float(value)))


def _attended(q: Value, k: Value, v: Value, mask: Any, scale: float) -> tuple[Value, Value]:
    """Averages of values, and their weights; a mask is added, or says what is seen."""
    if not all(isinstance(x, Value) for x in (q, k, v)) or isinstance(mask, Value):
        raise UnknownArguments
    if mask is None:
        mask = 0.0
    elif mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)
    if isinstance(mask, Tensor) and (mask == -math.inf).all(-1).any():
        raise UnknownArguments  # what sees nothing is 0 in some functions of torch's, NaN in others
    weights = _softmax(line(_matmul(q, _transposed(k)), scale, mask), -1)
    return _matmul(weights, v), weights


def _scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Value:
    if dropout_p:
        raise UnknownArguments
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _attended(query, key, value, attn_mask, scale)[0]


def _multi_head(
    module: nn.MultiheadAttention,
    query: Value,
    key: Value,
    value: Value,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # noqa: ARG001
) -> tuple[Value, Value | None]:
    unknown = key_padding_mask is not None or module.bias_k is not None or module.add_zero_attn
    if unknown or not module.batch_first:
        raise UnknownArguments
    if isinstance(attn_mask, Tensor) and attn_mask.dtype == torch.bool:
        attn_mask = ~attn_mask
    q, k, v = (_heads(module, i, x) for i, x in enumerate((query, key, value)))
    results, weights = _attended(q, k, v, attn_mask, module.head_dim**-0.5)
    joined = moved(lambda x: x.transpose(1, 2).flatten(2))(results)
    output = joined.then(dense(module.out_proj.weight, module.out_proj.bias, joined.shape))
    if average_attn_weights:
        weights = summed(mean=True)(weights, 1)
    return output, weights if need_weights else None


def _heads(module: nn.MultiheadAttention, i: int, x: Any) -> Value:
    """The queries, keys or values of all heads."""
    if not isinstance(x, Value):
        raise UnknownArguments
    apart = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    together, bias = module.in_proj_weight, module.in_proj_bias
    weight = apart[i] if together is None else together.chunk(3)[i]
    projected = x.then(dense(weight, None if bias is None else bias.chunk(3)[i], x.shape))
    heads: Value = moved(lambda x: x.unflatten(2, (module.num_heads, -1)).transpose(1, 2))(
        projected
    )
    return heads


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
