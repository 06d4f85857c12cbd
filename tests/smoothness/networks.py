"""Small random networks of every kind that bounds are certified for, and brute force about them."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossgeom as lg


class Sine(nn.Module):
    """A function that torch has no module for."""

    def __init__(self, cosine: bool = False) -> None:
        super().__init__()
        self.cosine = cosine

    def forward(self, z: Tensor) -> Tensor:
        return z.cos() if self.cosine else torch.sin(z)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh_gelu": lambda: nn.GELU("tanh"),
    "hardswish": nn.Hardswish,
    "elu": lambda: nn.ELU(1.5),
    "celu": lambda: nn.CELU(0.5),
    "selu": nn.SELU,
    "sine": Sine,
    "cosine": lambda: Sine(cosine=True),
    "softplus": lambda: nn.Softplus(beta=3.0),
}


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for m, n in pairwise(widths):
        layers += [nn.Linear(m, n), activation()]
    return nn.Sequential(*layers[:-1])


def warmed_up(model: nn.Module, x: Tensor) -> nn.Module:
    """With running averages, weights and biases of its normalisations that are not the defaults."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(3):
            model(x + torch.randn_like(x))
    return model


class Residual(nn.Module):
    """Two blocks with functions in place of modules, batch normalisation, and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.short = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2), nn.BatchNorm2d(4))
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(x - self.conv2(x), inplace=True)
        y = self.short(x)
        y += torch.tanh(self.down(x))
        y = F.dropout(y, 0.5, self.training)
        return self.linear(y.mean((2, 3))) - 0.5


class Functional(nn.Module):
    """Pooling and reshaping by functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.second = nn.Conv2d(4, 4, 2, dilation=2, padding=1)
        self.linear = nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(2 * x), 2, stride=1).tanh()
        x = F.adaptive_avg_pool2d(F.silu(self.second(x)), 1)
        return self.linear(x.view(x.size(0), -1)) / 3


class Branches(nn.Module):
    """Branches that are concatenated, slices, constants and means."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.second = nn.Conv2d(6, 2, 1)
        self.register_buffer("mean", torch.tensor([0.3, -0.2]).view(2, 1, 1))
        self.register_buffer("mask", torch.linspace(-1, 2, 72).view(1, 2, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mask * (x - self.mean) / 2 + self.mask
        y = F.max_pool2d(torch.tanh(self.first(x)), 3, stride=2, ceil_mode=True)
        y = torch.cat([F.relu(y), x[:, :, ::3, 1:6:3]], 1)
        y = F.hardswish(self.second(y).transpose(1, 3))
        a, b = y.chunk(2, dim=1)
        return torch.cat([(a - 2 * b).mean((1, 3)), b.sum(-1).flatten(1)], -1)


class Signal(nn.Module):
    """A network on sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(2), nn.Conv1d(2, 3, 3), nn.SELU(), nn.MaxPool1d(3, stride=2, padding=1)
        )
        self.head = nn.Linear(3 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(-x.reshape(x.shape[0], -1))


class Transformer(nn.Module):
    """A block with normalisation first, attention of two heads, and positions that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 4)
        self.positions = nn.Parameter(0.3 * torch.randn(1, 5, 4))
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions[:, : x.shape[1]]
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


class CausalAttention(nn.Module):
    """Attention by matrix products, a masked softmax, and torch's own, gated by its input."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(2, 12)
        self.register_buffer("seen", torch.tril(torch.ones(6, 6)).view(1, 1, 6, 6))
        self.gate = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.size()
        q, k, v = self.qkv(x).split(4, dim=2)
        q, k, v = (z.view(B, T, 2, 2).transpose(1, 2) for z in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) / k.size(-1) ** 0.5
        scores = scores.masked_fill(self.seen[:, :, :T, :T] == 0, float("-inf"))
        y = F.softmax(scores, dim=-1) @ v
        y = y + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(B, T, 4)
        return (y * torch.sigmoid(self.gate(x)) + y[:, :, :1]).sum(1)


class Normalised(nn.Module):
    """Group, instance, layer and root mean square normalisation, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2)
        self.norm = nn.GroupNorm(2, 4)
        self.prelu = nn.PReLU(4)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2, groups=1)
        self.instances = nn.InstanceNorm2d(3, affine=True)
        self.layer = nn.LayerNorm((4, 4), elementwise_affine=False)
        self.root = nn.RMSNorm(4, eps=1e-4)
        self.prelu.weight.data = torch.tensor([0.3, -0.4, 1.7, 0.0])
        for module in (self.norm, self.instances, self.root):
            nn.init.uniform_(module.weight, -1.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.instances(self.up(self.prelu(self.norm(self.first(x)))))
        x = F.prelu(self.layer(x), -0.5 * torch.ones(1, dtype=x.dtype))
        return self.root(x).mean((1, 2))


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Each with inputs, made anew from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        vectors, images = torch.randn(6, 4), torch.randn(4, 2, 6, 6)
        signals, tokens = torch.randn(4, 2, 10), torch.randn(3, 4, 2)
        made: dict[str, tuple[nn.Module, Tensor]] = {
            name: (mlp(4, 7, 5, 3, activation=activation), 2 * vectors)
            for name, activation in ACTIVATIONS.items()
        }
        normalised = nn.Sequential(
            nn.BatchNorm1d(4), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.BatchNorm1d(6),
            nn.Linear(6, 3),
        )  # fmt: skip
        pooled = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.BatchNorm2d(4), nn.Conv2d(4, 3, 2, padding=1), nn.GELU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Dropout(), nn.Linear(12, 3),
        )  # fmt: skip
        overlapping = nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding="valid"), nn.MaxPool2d(2, 1), nn.Softplus(),
            nn.Flatten(), nn.Linear(3, 2),
        )  # fmt: skip
        made["batch_norm"] = (warmed_up(normalised, vectors), vectors)
        made["pooled"] = (warmed_up(pooled, images), images)
        made["overlapping"] = (overlapping, images)
        made["residual"] = (warmed_up(Residual(), images), images)
        made["branches"] = (Branches(), images)
        made["functional"] = (Functional(), images)
        made["signal"] = (warmed_up(Signal(), signals), signals)
        made["transformer"] = (Transformer(), tokens)
        made["causal"] = (CausalAttention(), tokens)
        made["normalised"] = (Normalised(), images)
    return {name: (model.double().eval(), x.double()) for name, (model, x) in made.items()}


NETWORKS = networks()


def problem(model: nn.Module, x: Tensor, **options: object) -> lg.Problem:
    with torch.no_grad():
        targets = torch.zeros_like(model(x))
    return lg.Problem(model, "squared_error", [(x, targets)], check=False, **options)


def in_ball(x: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """One point in the ball round each example, half of them on its surface."""
    step = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    lengths = radius * torch.rand(len(x), generator=generator, dtype=x.dtype).mul(2).clamp(max=1)
    unit = step / step.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    return x + unit * lengths.view(-1, *[1] * (x.ndim - 1))


def repeated(x: Tensor, times: int) -> Tensor:
    """All examples so many times, one after the other: one call takes as long as few of them."""
    return x.repeat(times, *[1] * (x.ndim - 1))


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """(B, C, D), by reverse mode, an output at a time."""
    x = x.detach().requires_grad_()
    outputs = model(x).flatten(1)
    rows = [torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for out in outputs.T]
    return torch.stack([row.flatten(1) for row in rows], dim=1)


def norms(J: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(J, ord=2)
