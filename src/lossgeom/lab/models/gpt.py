"""Small transformers that predict the next token."""

import torch
from torch import Tensor, nn

from lossgeom.messages.checks import check_whole


class Block(nn.Module):
    """Causal attention and an MLP, each after a layer norm and beside what it adds to.

    Attention is written out: fused kernels have no second derivative that all could use.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to the same shape."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, 2)
        )
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        attended = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        y: Tensor = self.mlp(self.norm2(x))
        return x + y


class GPT(nn.Module):
    """Blocks of causal attention, and a head tied to the embedding of the tokens."""

    def __init__(self, vocabulary: int, length: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = (
            nn.Embedding(vocabulary, width),
            nn.Embedding(length, width),
        )
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T) to logits (B, T, vocabulary)."""
        return self.embedded(self.tokens(tokens))

    def embedded(self, x: Tensor) -> Tensor:
        """Map embeddings (B, T, width) to logits."""
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def gpt(
    vocabulary: int = 64,
    length: int = 32,
    layers: int = 2,
    width: int = 32,
    heads: int = 2,
    seed: int = 0,
) -> GPT:
    """A small GPT: causal attention, layer norms before it, and a head tied to the embedding.

    It maps tokens (B, T), for T up to ``length``, to logits (B, T, vocabulary), of which those at t
    are of the token at t + 1 and depend on tokens up to t alone: its loss is
    ``"next_token_cross_entropy"`` with the tokens as labels. Embeddings of tokens are normal with
    deviation 0.02, the rest is initialised as torch does.

    Args:
        vocabulary: tokens that there are.
        length: the most tokens of an example.
        layers: blocks of attention and an MLP.
        width: numbers for each token.
        heads: of attention; a divisor of the width.
        seed: of the initialisation; the global generator is left as it is.

    Raises:
        ValueError: for numbers below 1, or a width that is no multiple of the heads.

    Source: Radford et al., Language models are unsupervised multitask learners (2019).

    >>> gpt()(torch.zeros(3, 8, dtype=torch.int64)).shape
    torch.Size([3, 8, 64])
    """
    check_whole(1, vocabulary=vocabulary, length=length, layers=layers, width=width, heads=heads)
    if width % heads:
        raise ValueError(f"expected a width that is a multiple of {heads} heads, got {width}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(vocabulary, length, layers, width, heads)
