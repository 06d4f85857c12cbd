"""Which part of a transformer a parameter is of, by types and names of modules."""

from __future__ import annotations

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

# Parts of names of modules and of their classes
ATTENTION = ("attention", "attn")
FEED_FORWARD = ("mlp", "ffn", "feed_forward", "feedforward", "densereludense", "intermediate")


def block_types(network: Network) -> Int[Tensor, " P"]:
    """The type of every parameter's numbers, as places in TYPES.

    A fused projection with three times as many rows or columns as inputs is cut into thirds, Q, K
    and V; one of another shape, as with fewer keys than queries, is of the type "other".
    """
    labels = []
    for place, (name, shape) in enumerate(zip(network.names, network.shapes, strict=True)):
        owners = [module for module, _, i in network.slots if i == place]
        own = torch.empty(shape, dtype=torch.long)
        fused = bool(FUSED & set(name.lower().split(".")))
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
    weights = [p for p in module._parameters.values() if p is not None and p.ndim == 2]
    if len(weights) != 1:
        return None
    rows, columns = weights[0].shape
    if rows == 3 * columns:
        return 0
    return ndim - 1 if columns == 3 * rows else None


def _type(model: nn.Module, name: str, owners: Sequence[nn.Module]) -> str:
    words, path = name.lower().split("."), name.split(".")[:-1]
    inside = [model.get_submodule(".".join(path[: i + 1])) for i in range(len(path))]
    said = [*words, *(type(module).__name__.lower() for module in inside)]
    if any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in owners):
        return "embedding"
    if "norm" in type(owners[0]).__name__.lower():
        return "norm"
    if _says(said, FEED_FORWARD):
        return "MLP"
    for of, parts in PARTS.items():
        if parts & set(words):
            return of
    if OUTPUT & set(words) and _says(said, ATTENTION):
        return "VO"
    if words[-3:-1] == ["output", "dense"]:  # of BERT and its kin, after what is in the attention
        return "MLP"
    token = _says(words, ("embed", "cls_token", "class_token"))
    return "embedding" if token else "other"


def _says(words: Sequence[str], parts: Sequence[str]) -> bool:
    return any(part in word for part in parts for word in words)
