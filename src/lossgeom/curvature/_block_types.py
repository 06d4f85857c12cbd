"""Which part of a transformer a parameter is of, by types and names of modules."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lossgeom.problem.network import Network

TYPES = ("embedding", "QK", "VO", "MLP", "norm", "head", "other")

# Components of a parameter's name, in lower case
PARTS = {
    "QK": {"q_proj", "k_proj", "query", "key", "q", "k", "wq", "wk", "q_lin", "k_lin", "to_q",
           "to_k", "q_proj_weight", "k_proj_weight", "bias_k"},
    "VO": {"v_proj", "o_proj", "value", "v", "o", "wv", "wo", "v_lin", "out_lin", "to_v",
           "to_out", "v_proj_weight", "bias_v"},
    "MLP": {"fc1", "fc2", "linear1", "linear2", "c_fc", "up_proj", "down_proj", "gate_proj"},
    "head": {"lm_head", "head", "heads", "embed_out", "unembed", "classifier"},
}  # fmt: skip
FUSED = {"in_proj_weight", "in_proj_bias", "qkv", "qkv_proj", "wqkv", "c_attn", "to_qkv"}
OUTPUT = {"out_proj", "c_proj", "proj", "project", "projection", "dense", "out"}  # of attention

# Parts of names of modules, and what names of their classes contain or, of attention, end in
ATTENTION = ("attention", "attn")
FEED_FORWARD = ("mlp", "ffn", "feed_forward", "feedforward", "densereludense", "intermediate")

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
NORM = re.compile(r"(norm|(^|_)ln)(_?\d+d?)?$")  # the end of a name, such as norm1, ln_2, RMSNorm


def block_types(network: Network) -> Int[Tensor, " P"]:
    """The type of every parameter's numbers, as places in TYPES.

    The weight and bias of a fused projection with three times as many rows or columns as inputs are
    cut into thirds, Q, K and V; one of another shape, as with fewer keys than queries, is of the
    type "other". Elsewhere the nearest module with a name that is known decides.
    """
    labels = []
    for place, (name, shape) in enumerate(zip(network.names, network.shapes, strict=True)):
        owners = [module for module, _, i in network.slots if i == place]
        own = torch.empty(shape, dtype=torch.long)
        fused = _fused(name)
        own.fill_(TYPES.index("other" if fused else _type(network.module, name, owners)))
        if fused and (dim := _thirds(owners[0], own.ndim)) is not None:
            for part, of in zip(own.chunk(3, dim), ("QK", "QK", "VO"), strict=True):
                part.fill_(TYPES.index(of))
        labels.append(own.flatten())
    return torch.cat(labels)


def _thirds(module: nn.Module, ndim: int) -> int | None:
    """The dimension along which Q, K and V follow each other, if they are of the same size."""
    if isinstance(module, nn.MultiheadAttention):
        return 0
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 2:
        return None
    rows, columns = weight.shape
    if rows == 3 * columns:
        return 0
    return ndim - 1 if columns == 3 * rows else None


def _fused(name: str) -> bool:
    """Whether a parameter is the weight or the bias of a fused projection."""
    *path, own = (word for word in name.lower().split(".") if word != "base_layer")
    return own in FUSED or (own in ("weight", "bias") and bool(FUSED & set(path[-1:])))


def _type(model: nn.Module, name: str, owners: Sequence[nn.Module]) -> str:
    words, path = name.lower().split("."), name.split(".")[:-1]
    if any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in owners):
        return "embedding"
    named = (*words[-2:-1], type(owners[0]).__name__.lower())
    if isinstance(owners[0], NORMS) or any(map(NORM.search, named)):
        return "norm"
    place, inside = _nearest(model, path)
    if inside == "MLP":
        return "MLP"
    for i in reversed(range(len(words))):
        for of, parts in PARTS.items():
            if words[i] in parts:
                return of
        if inside == "attention" and i == max(place, 0) and OUTPUT & set(words[i:]):
            return "VO"
    if words[-3:-1] == ["output", "dense"]:  # of BERT and its kin, after what is in the attention
        return "MLP"
    token = _says(words, ("embed", "cls_token", "class_token"))
    return "embedding" if token else "other"


def _nearest(model: nn.Module, path: Sequence[str]) -> tuple[int, str]:
    """Find the nearest attention or feed-forward part in a path, and its place, -1 for the root."""
    for i in reversed(range(-1, len(path))):
        kind = type(model.get_submodule(".".join(path[: i + 1]))).__name__.lower()
        word = path[i].lower() if i >= 0 else ""
        if i >= 0 and _says((word, kind), FEED_FORWARD):
            return i, "MLP"
        if _says([word], ATTENTION) or kind.rstrip("0123456789").endswith(ATTENTION):
            return i, "attention"
    return 0, ""


def _says(words: Sequence[str], parts: Sequence[str]) -> bool:
    return any(part in word for part in parts for word in words)
