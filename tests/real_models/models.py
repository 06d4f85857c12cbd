"""Models of sequences as people write them, and data for them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

TOKENS, LENGTH, CLASSES = 13, 7, 3
WIDTH, HEADS = 8, 2
EXAMPLES = 6
CATEGORIES = torch.tensor([0, 2, 1, 1, 0, 2])


def written_out(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
    """What F.scaled_dot_product_attention is defined as."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later & is_causal, -torch.inf).softmax(-1) @ v


class Block(nn.Module):
    written_out = False  # for a reference, which then has nothing to switch

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        parts = self.qkv(self.norm1(x)).split(WIDTH, dim=2)
        q, k, v = (part.view(B, T, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts)
        attend = written_out if self.written_out else F.scaled_dot_product_attention
        y = attend(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).reshape(B, T, WIDTH))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Two blocks of causal attention, and a head tied to the embedding of the tokens."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Classifier(nn.Module):
    """An embedding, a recurrent layer, and a linear one on its last state."""

    def __init__(self, kind: type[nn.RNNBase], layers: int = 1) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, 5)
        self.recurrent = kind(5, 4, layers, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = self.tokens(tokens)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.recurrent(x)
        hidden = state[0] if isinstance(state, tuple) else state
        return self.head(hidden[-1])


def built(kind, *args, **options):
    """A model in float64, always the same, and the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*args, **options).double()


def text() -> tuple[Tensor, Tensor]:
    """Tokens without the 0 of padding, and labels, many of them ignored, unevenly.

    In the last example all of them are.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, TOKENS, (EXAMPLES, LENGTH), generator=generator)
    labels = tokens.clone()
    for i, kept in enumerate(torch.randint(2, LENGTH, (EXAMPLES,), generator=generator).tolist()):
        labels[i, kept:] = -100
    labels[1, :3] = -100
    labels[-1] = -100
    return tokens, labels


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over all labels that are not ignored."""
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def split(sizes: list[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Batches of these sizes."""
    return list(zip(*(tensor.split(sizes) for tensor in tensors), strict=True))
