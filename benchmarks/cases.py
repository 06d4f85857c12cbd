"""The trained models and data that everything is measured on, always the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.lab.datasets import digits
from lossgeom.lab.models import gpt, mlp, resnet18, vgg11

Batches = list[tuple[Tensor, Tensor]]

CLASSES = 10
VOCABULARY, LENGTH = 1_000, 64
INITIAL = 100  # seed of the models: a start vector from the same seed would resemble the weights
NOISE = 1.0  # of an image around the mean of its class, whose pixels have variance 1


class MeanCrossEntropy(nn.Module):
    """Cross-entropy with the classes last, averaged over all targets."""

    reduction = "mean"  # curvlinops asks for it

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Average the loss of outputs (..., C) and targets (...)."""
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


@dataclass(frozen=True, eq=False)
class Case:
    """A loss at one point.

    Attributes:
        name: what the command line calls it.
        title: what it is, for the table.
        model: in the mode that it is measured in.
        batches: pairs of inputs and targets.
        loss: as lossgeom calls it.
        products: how many Hessian products are really taken, where 30 are accounted for.
        patience: products that a search for a setting may spend on one try.
        few: examples whose Jacobians with 1,000 outputs are taken.
    """

    name: str
    title: str
    model: nn.Module
    batches: Batches
    loss: str = "cross_entropy"
    products: int = 6
    patience: int = 100
    few: int = 16

    criterion = MeanCrossEntropy()

    @property
    def mode(self) -> Literal["eval", "train"]:
        """The mode of the model, as lossgeom calls it."""
        return "train" if self.model.training else "eval"

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters in the order of the flat vector."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.parameters[0].dtype

    @property
    def P(self) -> int:  # noqa: N802
        """The number of parameters."""
        return sum(p.numel() for p in self.parameters)

    @property
    def N(self) -> int:  # noqa: N802
        """The number of examples."""
        return sum(len(x) for x, _ in self.batches)

    def weighted(self) -> Iterable[tuple[Tensor, Tensor, float]]:
        """Batches with their shares of all terms of the loss."""
        total = sum(y.numel() for _, y in self.batches)
        return ((x, y, y.numel() / total) for x, y in self.batches)

    def copy(self, dtype: torch.dtype | None = None) -> Case:
        """Copy the model, so that nothing that a competitor leaves behind is shared."""
        model, batches = copy.deepcopy(self.model).to(dtype or self.dtype), self.batches
        if dtype is not None:
            batches = [(x.to(dtype) if x.is_floating_point() else x, y) for x, y in batches]
        return replace(self, model=model, batches=batches)


def draw(seed: int, *shape: int) -> Tensor:
    """Draw normal numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(examples: int, batches: int) -> Batches:
    """Random images of 3 x 32 x 32, each the mean of its class and noise."""
    y = torch.arange(examples) % CLASSES
    x = draw(0, CLASSES, 3, 32, 32)[y] + NOISE * draw(1, examples, 3, 32, 32)
    return list(zip(x.chunk(batches), y.chunk(batches), strict=True))


def text(examples: int) -> Batches:
    """Tokens of a walk that takes one of four steps, and the token after each."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(1, 5, (examples, LENGTH + 1), generator=generator)
    tokens = (37 * steps.cumsum(1)) % VOCABULARY
    return [(tokens[:, :-1], tokens[:, 1:])]


def trained(case: Case, steps: int, rate: float = 1e-3) -> Case:
    """Train a case by some steps of Adam, and leave its mode as it was."""
    training = case.model.training
    case.model.train()
    optimizer = torch.optim.Adam(case.model.parameters(), rate)
    for step in range(steps):
        x, y = case.batches[step % len(case.batches)]
        optimizer.zero_grad()
        case.criterion(case.model(x), y).backward()
        optimizer.step()
    case.model.zero_grad()
    case.model.train(training)
    return case


def mlp_case(quick: bool) -> Case:
    """A perceptron on all digits in one batch."""
    data = digits(examples=1796)
    x, y = (torch.cat(pair)[: 400 if quick else None] for pair in zip(data.train, data.test))  # noqa: B905
    case = Case(
        "mlp",
        f"MLP 64-256-256-10, tanh, {len(x):,} digits",
        mlp(64, CLASSES, [256, 256], "tanh", INITIAL).eval(),
        [(x, y)],
        products=30,
        patience=1_000,
        few=256,
    )
    return trained(case, steps=30)


def vgg_case(quick: bool) -> Case:
    """A VGG on batches of equal size, because not every competitor weighs them."""
    n, batches = (8, 2) if quick else (128, 4)
    title = f"VGG11 of width 1/4, {batches} batches of {n // batches} images"
    case = Case("vgg", title, vgg11(width=0.25, seed=INITIAL).eval(), images(n, batches))
    return trained(case, steps=60)


def resnet_eval_case(quick: bool) -> Case:
    """A ResNet whose BatchNorm has its running averages."""
    n, batches = (8, 2) if quick else (64, 2)
    title = f"ResNet18 of width 16, eval mode, {batches} batches of {n // batches} images"
    case = Case("resnet_eval", title, resnet18(width=16, seed=INITIAL).eval(), images(n, batches))
    return trained(case, steps=30)


def resnet_train_case(quick: bool) -> Case:
    """A ResNet whose BatchNorm has the statistics of the batch."""
    n = 8 if quick else 32
    title = f"ResNet18 of width 16, train mode, one batch of {n} images"
    case = Case("resnet_train", title, resnet18(width=16, seed=INITIAL).train(), images(n, 1))
    return trained(case, steps=30)


def gpt_case(quick: bool) -> Case:
    """A small GPT on next tokens, all in one batch."""
    n = 2 if quick else 16
    title = f"GPT of 4 layers, width 128, {n} x {LENGTH} tokens of {VOCABULARY:,}"
    model = gpt(VOCABULARY, LENGTH, layers=4, width=128, heads=4, seed=INITIAL).eval()
    case = Case("gpt", title, model, text(n), loss="token_cross_entropy", few=4)
    return trained(case, steps=30)


CASES: dict[str, Callable[[bool], Case]] = {
    "mlp": mlp_case,
    "vgg": vgg_case,
    "resnet_eval": resnet_eval_case,
    "resnet_train": resnet_train_case,
    "gpt": gpt_case,
}
