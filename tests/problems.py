"""Small problems in float64 that between them have what makes measuring go wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom import Problem

Data = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A model and data with the loss in torch's own words.

    ``criterion`` is applied to the outputs of all data at once, which is what the batches together
    must give.
    """

    name: str
    model: nn.Module
    loss: Any
    batches: Data
    criterion: Callable[[Tensor, Tensor], Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    splittable: bool = True

    def problem(self, batches: Data | None = None) -> Problem:
        return Problem(self.model, self.loss, batches or self.batches, **self.options)

    @property
    def inputs(self) -> Tensor:
        return torch.cat([x for x, _ in self.batches])

    @property
    def targets(self) -> Tensor:
        return torch.cat([y for _, y in self.batches])


class Tied(nn.Module):
    """A weight used twice, the second time transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class TwoPaths(nn.Module):
    """A submodule that can be reached by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.ModuleDict({"same": self.a})
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.b["same"](torch.tanh(self.a(x)))))


class Attention(nn.Module):
    """Attention by the function that has no second derivative by default."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.out = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class TokenModel(nn.Module):
    """Class scores per position, in torch's layout (B, C, positions)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).transpose(1, 2)


def mlp(*widths: int, activation: type[nn.Module] = nn.Tanh, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(fan_in, fan_out))
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(fan_out)] * norm + [activation()]
    return nn.Sequential(*layers)


def absolute_terms(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """A loss of a user's own: the smoothed absolute error of the first output."""
    error = (outputs[:, 0] - batch[1]).square() + 0.1
    return error.sqrt().sum(), len(error)


def _classes(*shape: int) -> Tensor:
    return torch.randint(3, shape)


def _split(x: Tensor, y: Tensor, *sizes: int) -> Data:
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def _frozen_first_layer() -> nn.Module:
    model = mlp(4, 5, 3)
    model[0].requires_grad_(False)
    return model


def _warmed_up(model: nn.Module, x: Tensor) -> nn.Module:
    model.train()
    model(x)
    return model


def cases() -> list[Case]:
    """All of them, made anew from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return [case_in_float64(case) for case in _cases()]


def case_in_float64(case: Case) -> Case:
    case.model.double()
    batches = [(x.double(), y.double() if y.is_floating_point() else y) for x, y in case.batches]
    return Case(
        case.name, case.model, case.loss, batches, case.criterion, case.options, case.splittable
    )


def _cases() -> list[Case]:
    x, y = torch.randn(9, 4), _classes(9)
    ragged = _split(x, y, 4, 4, 1)
    images = _split(torch.randn(5, 1, 6, 6), _classes(5), 3, 2)
    sequences = _split(torch.randn(5, 3, 4), _classes(5), 3, 2)
    masked = _classes(4, 6)
    masked[0, 1:] = -100
    masked[3] = -100
    weight = torch.tensor([1.0, 2.0, 5.0])
    values = _split(x, torch.randn(9, 3), 5, 4)
    ce = F.cross_entropy

    def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
        return ce(outputs, targets, label_smoothing=0.2)

    return [
        Case("ragged", mlp(4, 5, 3), "cross_entropy", ragged, ce),
        Case(
            "smoothing",
            mlp(4, 6, 5, 3, activation=nn.ReLU),
            "cross_entropy",
            ragged,
            smoothed,
            {"label_smoothing": 0.2},
        ),
        Case(
            "probabilities",
            mlp(4, 3),
            "cross_entropy",
            _split(x, torch.rand(9, 3).softmax(1), 4, 5),
            ce,
        ),
        Case(
            "squared_error",
            mlp(4, 5, 3),
            "squared_error",
            values,
            lambda f, t: 0.5 * (f - t).square().sum() / len(f),
        ),
        Case("mse", mlp(4, 5, 3), nn.MSELoss(), values, F.mse_loss),
        Case("sum", mlp(4, 5, 3), nn.MSELoss(reduction="sum"), values, nn.MSELoss(reduction="sum")),
        Case(
            "weighted",
            mlp(4, 5, 3),
            nn.CrossEntropyLoss(weight=weight.double(), label_smoothing=0.1),
            ragged,
            nn.CrossEntropyLoss(weight=weight.double(), label_smoothing=0.1),
        ),
        Case(
            "tokens", TokenModel(), "cross_entropy", _split(torch.randn(4, 6, 4), masked, 3, 1), ce
        ),
        Case("own_loss", mlp(4, 5, 1), absolute_terms, _split(x, torch.randn(9), 4, 5), _own),
        Case("tied", Tied(), "squared_error", _split(x, torch.randn(9, 4), 4, 5), _half_square),
        Case("two_paths", TwoPaths(), "cross_entropy", ragged, ce),
        Case("frozen", _frozen_first_layer(), "cross_entropy", ragged, ce),
        Case(
            "conv",
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3)),
            "cross_entropy",
            images,
            ce,
        ),
        Case("attention", Attention(), "cross_entropy", sequences, ce),
        Case("recurrent", Recurrent(), "cross_entropy", sequences, ce),
        Case("batchnorm_eval", _warmed_up(mlp(4, 5, 3, norm=True), x), "cross_entropy", ragged, ce),
        Case(
            "batchnorm_train",
            mlp(4, 5, 3, norm=True),
            "cross_entropy",
            [(x, y)],
            ce,
            {"mode": "train"},
            splittable=False,
        ),
    ]


def _half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum() / len(outputs)


def _own(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs[:, 0] - targets).square() + 0.1).sqrt().mean()


CASES = cases()
