"""Small problems in float64 that between them have what makes measuring go wrong."""

import warnings
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lossgeom import Problem

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Data = list[tuple[Inputs, Tensor]]


def call(model: nn.Module, inputs: Inputs) -> Tensor:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def as_pair(inputs: Inputs, targets: Tensor) -> Any:
    return inputs, targets


@dataclass(frozen=True, eq=False)  # one is itself alone, so that what is made of it can be kept
class Case:
    """A model and data with the loss in torch's own words.

    ``terms`` gives the loss of every observation from the outputs of all data at once, and the
    empirical loss is their sum over ``divisor``. ``form`` writes a batch as its owner would.
    """

    name: str
    model: nn.Module
    loss: Any
    data: Data
    terms: Callable[[Tensor, Tensor], Tensor]
    divisor: Callable[[Tensor, Tensor], float]
    options: dict[str, Any] = field(default_factory=dict)
    splittable: bool = True
    form: Callable[[Inputs, Tensor], Any] = as_pair

    def problem(self, data: Data | None = None, **options: Any) -> Problem:
        batches = [self.form(*batch) for batch in data or self.data]
        options = {"check": False, **self.options, **options}
        return Problem(self.model, self.loss, batches, **options)

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.terms(outputs, targets).sum() / self.divisor(outputs, targets)

    @property
    def inputs(self) -> Inputs:
        return joined([inputs for inputs, _ in self.data])

    @property
    def targets(self) -> Tensor:
        return torch.cat([targets for _, targets in self.data])

    def __repr__(self) -> str:
        return f"Case({self.name})"


def joined(parts: list[Inputs]) -> Inputs:
    first = parts[0]
    if isinstance(first, dict):
        return {key: torch.cat([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
    return torch.cat(parts)


def rows(inputs: Inputs, index: Tensor) -> Inputs:
    if isinstance(inputs, dict):
        return {key: tensor[index] for key, tensor in inputs.items()}
    return tuple(t[index] for t in inputs) if isinstance(inputs, tuple) else inputs[index]


# Models


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


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(2, 1, 3, dropout=0.0, batch_first=True)
        self.out = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body = kind(4, 3, batch_first=True)
        self.out = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x)[0][:, -1])


class TokenModel(nn.Module):
    """Class scores per position, in torch's layout (B, C, positions)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).transpose(1, 2)


class LanguageModel(nn.Module):
    """Integer tokens in, scores of the next token out, with the head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.norm = nn.LayerNorm(3)
        self.mix = nn.GRU(3, 3, batch_first=True)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.mix(self.embedding(tokens))[0]))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.left(x) * torch.sigmoid(self.right(gate))


class Logits(dict):
    """A mapping with the outputs at "logits", as Hugging Face's models return."""


class Encoded(TwoInputs):
    def forward(self, x: Tensor, gate: Tensor) -> Logits:
        return Logits(logits=super().forward(x, gate), hidden=None)


class Adapted(nn.Module):
    """A frozen layer with a trainable correction of low rank that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 5).requires_grad_(False)
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 5, bias=False)
        nn.init.zeros_(self.up.weight)
        self.out = nn.Linear(5, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.base(x) + self.up(self.down(x))))


class Odd(nn.Module):
    """A scalar parameter, one without numbers, and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.unused = nn.Parameter(torch.ones(2))
        self.body = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.scale * self.body(x)) + self.none.sum(0)


class InPlace(nn.Module):
    """Works in place on its input and on what its layers put out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return self.second(self.first(x).tanh_())


class CubeOnce(torch.autograd.Function):
    """Cubes, and cannot be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


def mlp(*widths: int, activation: type[nn.Module] = nn.Tanh, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(fan_in, fan_out))
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(fan_out)] * norm + [activation()]
    return nn.Sequential(*layers)


def _convolutional(*first: nn.Module) -> nn.Module:
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(18, 3))


def _frozen_first_layer() -> nn.Module:
    model = mlp(4, 5, 3)
    model[0].requires_grad_(False)
    return model


def _warmed_up(model: nn.Module, x: Tensor) -> nn.Module:
    model.train()
    model(x)
    return model


def _old_weight_norm() -> nn.Module:
    model = mlp(4, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still in users' models
        nn.utils.weight_norm(model[0])
    return model


def _parametrized(of: Callable[[nn.Module], nn.Module]) -> nn.Module:
    model = mlp(4, 3, 3)
    of(model[0])
    return model


# Losses


def cross_entropy(**settings: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def terms(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none", **settings).reshape(-1)

    return terms


def classes_last(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy()(outputs.flatten(0, -2), targets.flatten())


def next_token(outputs: Tensor, targets: Tensor) -> Tensor:
    return classes_last(outputs[:, :-1], targets[:, 1:])


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().flatten(1).sum(1)


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    return 2 * half_square(outputs, targets)


def with_logits(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1)


def absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs[:, 0] - targets).square() + 0.1).sqrt()


def absolute_terms(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """A loss of a user's own: the smoothed absolute error of the first output."""
    return absolute(outputs, batch[1]).sum(), len(outputs)


def weighted_terms(outputs: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A loss of a user's own on batches of a form of its own."""
    return (batch["weights"] * half_square(outputs, batch["y"])).sum(), batch["weights"].sum()


def examples(outputs: Tensor, targets: Tensor) -> float:
    return len(outputs)


def valid(outputs: Tensor, targets: Tensor) -> float:
    return int((targets != -100).sum())


def elements(outputs: Tensor, targets: Tensor) -> float:
    return outputs.numel()


# Cases


def _split(x: Inputs, y: Tensor, *sizes: int) -> Data:
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [(rows(x, torch.arange(a, b)), y[a:b]) for a, b in pairwise(starts)]


def cases() -> list[Case]:
    """All of them, made anew from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return [in_float64(case) for case in _cases()]


def in_float64(case: Case) -> Case:
    def doubled(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: doubled(value) for key, value in part.items()}
        if isinstance(part, tuple):
            return tuple(doubled(value) for value in part)
        return part.double() if part.is_floating_point() else part

    case.model.double()
    return replace(case, data=[doubled(batch) for batch in case.data])


def _cases() -> list[Case]:
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    ragged = _split(x, y, 4, 4, 1)
    images = _split(torch.randn(5, 1, 6, 6), torch.randint(3, (5,)), 3, 2)
    sequences = _split(torch.randn(5, 3, 4), torch.randint(3, (5,)), 3, 2)
    masked = torch.randint(3, (4, 6))
    masked[0, 1:] = -100
    masked[3] = -100
    tokens, labels = torch.randint(5, (4, 5)), torch.randint(5, (4, 5))
    labels[0, 2:] = -100
    labels[2, :4] = -100
    weight = torch.tensor([1.0, 2.0, 5.0]).double()
    values = _split(x, torch.randn(9, 3), 5, 4)
    gate, own_weights = torch.randn(9, 2), torch.rand(9)

    def labelled(name: str, model: nn.Module, data: Data = ragged, **options: Any) -> Case:
        return Case(name, model, "cross_entropy", data, cross_entropy(), valid, options)

    def regression(name: str, model: nn.Module, data: Data = values) -> Case:
        return Case(name, model, "squared_error", data, half_square, examples)

    def class_weights(outputs: Tensor, targets: Tensor) -> float:
        return weight[targets].sum()

    def own_divisor(outputs: Tensor, targets: Tensor) -> float:
        return own_weights.double().sum()

    return [
        labelled("ragged", mlp(4, 5, 3)),
        replace(
            labelled("smoothing", mlp(4, 6, 5, 3, activation=nn.ReLU), label_smoothing=0.2),
            terms=cross_entropy(label_smoothing=0.2),
        ),
        replace(
            labelled("probabilities", mlp(4, 3), _split(x, torch.rand(9, 3).softmax(1), 4, 5)),
            divisor=examples,
        ),
        regression("squared_error", mlp(4, 5, 3)),
        Case("mse", mlp(4, 5, 3), nn.MSELoss(), values, square, elements),
        Case(
            "sum", mlp(4, 5, 3), nn.MSELoss(reduction="sum"), values, square, lambda f, t: 1
        ),
        Case(
            "coins",
            mlp(4, 5, 3),
            nn.BCEWithLogitsLoss(),
            _split(x, torch.randint(2, (9, 3)).float(), 5, 4),
            with_logits,
            elements,
        ),
        Case(
            "weighted",
            mlp(4, 5, 3),
            nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1),
            ragged,
            cross_entropy(weight=weight, label_smoothing=0.1),
            class_weights,
        ),
        labelled("tokens", TokenModel(), _split(torch.randn(4, 6, 4), masked, 3, 1)),
        Case(
            "classes_last",
            mlp(4, 5, 3),
            "token_cross_entropy",
            _split(torch.randn(4, 6, 4), masked, 1, 3),
            classes_last,
            valid,
        ),
        Case(
            "language_model",
            LanguageModel(),
            "next_token_cross_entropy",
            _split(tokens, labels, 1, 3),
            next_token,
            lambda f, t: int((t[:, 1:] != -100).sum()),
        ),
        Case(
            "own_loss",
            mlp(4, 5, 1),
            absolute_terms,
            _split(x, torch.randn(9), 4, 5),
            absolute,
            examples,
        ),
        regression("tied", Tied(), _split(x, torch.randn(9, 4), 4, 5)),
        labelled("two_paths", TwoPaths()),
        labelled("frozen", _frozen_first_layer()),
        labelled("subset", mlp(4, 5, 4, 3), parameters=["2.*", "4.bias"]),
        labelled("adapter", Adapted()),
        labelled("odd_parameters", Odd()),
        labelled("in_place", InPlace()),
        labelled("two_inputs", TwoInputs(), _split((x, gate), y, 5, 4)),
        replace(
            labelled("flat_tuple", TwoInputs(), _split((x, gate), y, 5, 4), target=-1),
            form=lambda inputs, targets: [*inputs, targets],
        ),
        replace(
            labelled("mapping", TwoInputs(), _split({"x": x, "gate": gate}, y, 5, 4)),
            form=lambda inputs, targets: {**inputs, "labels": targets},
        ),
        replace(
            labelled("encoding", Encoded(), _split({"x": x, "gate": gate}, y, 5, 4), target="y"),
            form=lambda inputs, targets: UserDict(**inputs, y=targets),
        ),
        labelled("keywords", TwoInputs(), _split({"gate": gate, "x": x}, y, 5, 4)),
        Case(
            "own_form",
            mlp(4, 5, 3),
            weighted_terms,
            _split((x, own_weights), torch.randn(9, 3), 5, 4),
            lambda f, t: own_weights.double() * half_square(f, t),
            own_divisor,
            {"forward": lambda model, batch: model(batch["x"])},
            splittable=False,  # the weights above are in the order of the data
            form=lambda inputs, targets: {"x": inputs[0], "weights": inputs[1], "y": targets},
        ),
        labelled("conv", _convolutional(nn.Conv2d(1, 2, 3), nn.Tanh()), images),
        labelled("transposed_conv", _convolutional(nn.ConvTranspose2d(1, 2, 2), nn.GELU()), images),
        labelled("attention", Attention(), sequences),
        labelled("encoder", Encoder(), _split(torch.randn(5, 3, 2), torch.randint(3, (5,)), 3, 2)),
        labelled("lstm", Recurrent(nn.LSTM), sequences),
        labelled("gru", Recurrent(nn.GRU), sequences),
        labelled("layer_norm", nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))),
        labelled("group_norm", nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.Linear(4, 3))),
        labelled("weight_norm", _parametrized(parametrizations.weight_norm)),
        labelled("old_weight_norm", _old_weight_norm()),
        labelled("spectral_norm", _parametrized(parametrizations.spectral_norm)),
        labelled("batchnorm_eval", _warmed_up(mlp(4, 5, 3, norm=True), x)),
        replace(
            labelled("batchnorm_train", mlp(4, 5, 3, norm=True), [(x, y)], mode="train"),
            splittable=False,
        ),
        replace(
            labelled(
                "dropout",
                nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3)),
                [(x, y)],
                mode="train",
                seed=3,
            ),
            splittable=False,
        ),
    ]  # fmt: skip


CASES = cases()
