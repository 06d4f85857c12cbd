"""What every data set is, and how its examples are chosen, scaled and labelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_number
from lossgeom.messages.wording import one_of

Examples = tuple[Tensor, Tensor]
TEST = 1000  # examples to test on, of what is drawn
CONSTANT = 1e-6  # a deviation that is rounding
NOISE = 18  # what tells the numbers for label noise from all others of a seed

TARGETS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "labels": lambda labels, classes: labels,  # noqa: ARG005
    "one_hot": lambda labels, classes: torch.nn.functional.one_hot(labels, classes).float(),
    "signs": lambda labels, classes: (1 - 2 * (labels % 2)).float()[:, None],  # noqa: ARG005
}


@dataclass(frozen=True)
class Dataset:
    """Examples to train on and examples to test on, as pairs (inputs, targets).

    Attributes:
        train: inputs (N, ...) in float32, and labels (N,), or numbers (N, C) in float32.
        test: the same, of others.
        classes: how many, or 0 where numbers are to be regressed.
        scaling: what was done to inputs and targets.
    """

    train: Examples
    test: Examples
    classes: int
    scaling: str


@dataclass(frozen=True)
class Options:
    r"""Which examples a data set gives, and what becomes of their inputs and targets.

    A function that loads a data set takes them as keyword arguments. Inputs are centred first and
    multiplied by ``input_scale`` last. Of label noise, exactly :math:`\mathrm{round}(p N)` of the
    N examples to train on get a label that is drawn uniformly from all classes, which may be their
    own; those of a small share are among those of a larger one, with the same labels. Factors and
    the number of such labels are told in the ``scaling`` of a data set.

    Attributes:
        classes: the classes to keep, which become 0, 1, ... in this order; all of them by default.
        balanced: whether there are as many examples to train on of each class.
        centred: whether the mean over the examples to train on is subtracted; images are divided
            by the deviation, too. Data sets say how.
        targets: ``"labels"`` (integers), ``"one_hot"`` (N, classes), or ``"signs"`` (N, 1), which
            are 1 for even labels and -1 for odd ones.
        input_scale: factor on all inputs.
        target_scale: factor on targets that are numbers.
        label_noise: the share p, from 0 to 1.
        verify: whether files with as many examples as the published ones must be these.

    Raises:
        ValueError: for a number out of its range, unknown targets, a class that comes twice, or
            scaled labels.

    >>> Options(classes=(3, 8), targets="signs", label_noise=0.1).classes
    (3, 8)
    """

    classes: Sequence[int] = ()
    balanced: bool = False
    centred: bool = True
    targets: str = "labels"
    input_scale: float = 1.0
    target_scale: float = 1.0
    label_noise: float = 0.0
    verify: bool = True

    def __post_init__(self) -> None:
        check_number("input_scale", self.input_scale, 0)
        check_number("target_scale", self.target_scale, 0)
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"expected label_noise from 0 to 1, got {self.label_noise}")
        if self.targets not in TARGETS:
            raise ValueError(f"expected targets to be {one_of(TARGETS)}, got {self.targets!r}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"expected different classes, got {tuple(self.classes)}")


@dataclass(frozen=True)
class Labelled:
    """All examples of a data set, as they are stored.

    Attributes:
        train: inputs (N, ...) of any type, and labels (N,).
        test: the same; ``None`` where those are for testing that are not chosen for training.
        classes: how many there are.
        what: what the inputs are, for messages.
        plain: scales inputs, before they are centred.
        scaling: what that does, in words.
        centring: what centring does, in words.
        deviation: whether centring divides by the deviation, too.
    """

    train: Examples
    test: Examples | None
    classes: int
    what: str = "images"
    plain: Callable[[Tensor], Tensor] = lambda pixels: pixels.float() / 255
    scaling: str = "pixels / 255"
    centring: str = ", then mean 0 and deviation 1 per channel over the training examples"
    deviation: bool = True

    def chosen(self, examples: int, seed: int, options: Options) -> Dataset:
        """A random choice of examples to train on, with all the options ask for."""
        kept = self._kept(options.classes)
        inputs, labels = _of_classes(self.train, kept)
        most = len(inputs) - (self.test is None)
        if not 1 <= examples <= most:
            raise ValueError(f"expected 1 to {most} {self.what} to train on, got {examples}")
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
        if options.balanced:
            order = _balanced(order, labels, examples, len(kept))
        train, rest = ((inputs[rows], labels[rows]) for rows in order.tensor_split([examples]))
        test = rest if self.test is None else _of_classes(self.test, kept)
        if not len(test[0]):
            raise ValueError(f"expected {self.what} of the classes {tuple(kept)} to test on, got 0")
        return self._scaled(train, test, seed, options)

    def _kept(self, classes: Sequence[int]) -> Sequence[int]:
        if not set(classes) <= set(range(self.classes)):
            raise ValueError(f"expected classes from 0 to {self.classes - 1}, got {tuple(classes)}")
        return classes or range(self.classes)

    def _scaled(self, train: Examples, test: Examples, seed: int, options: Options) -> Dataset:
        x, others, told = self.plain(train[0]), self.plain(test[0]), self.scaling
        if options.centred:
            over = (0, *range(2, x.ndim))
            mean = x.mean(over, keepdim=True)
            spread = x.std(over, keepdim=True) if self.deviation else torch.ones(())
            deviation = spread.where(spread > CONSTANT, 1.0)  # as that of an alpha channel
            x, others = (x - mean) / deviation, (others - mean) / deviation
            told += self.centring
        classes = len(self._kept(options.classes))
        labels, noise = _with_noise(train[1], classes, seed, options.label_noise)
        scaled = [
            (inputs.float(), TARGETS[options.targets](given, classes))
            for inputs, given in ((x, labels), (others, test[1]))
        ]
        if options.targets == "labels" and options.target_scale != 1:
            raise ValueError("expected the targets one_hot or signs for a target_scale, got labels")
        data = multiplied(Dataset(scaled[0], scaled[1], classes, told), options)
        return replace(data, scaling=data.scaling + noise)


def drawn_points(examples: Examples, classes: int) -> Labelled:
    """Points that were drawn, those that are not trained on for testing."""
    centring = "less their mean over the training examples"
    return Labelled(
        examples, None, classes, "examples", lambda x: x, "numbers as drawn", f", {centring}", False
    )


def regressed(train: Examples, test: Examples, scaling: str, options: Options) -> Dataset:
    """A data set whose targets are numbers, with factors on them and on its inputs.

    Other options for targets, and ``centred``, are of no use to it.
    """
    if options.classes or options.balanced or options.label_noise:
        raise ValueError(
            f"expected no classes, balanced or label_noise for data without labels, got {options}"
        )
    return multiplied(Dataset(train, test, 0, scaling), options)


def multiplied(data: Dataset, options: Options) -> Dataset:
    """The data set with the factors of the options."""
    a, b, told = options.input_scale, options.target_scale, data.scaling
    told += f", times {a:g}" if a != 1 else ""
    told += f"; targets times {b:g}" if b != 1 else ""
    parts = [(a * x, b * y if y.is_floating_point() else y) for x, y in (data.train, data.test)]
    return Dataset(parts[0], parts[1], data.classes, told)


def _of_classes(examples: Examples, kept: Sequence[int]) -> Examples:
    """The examples of some classes, with the places of these as labels."""
    inputs, labels = examples
    rows, places = torch.nonzero(labels[:, None] == torch.tensor(kept), as_tuple=True)
    return inputs[rows], places


def _balanced(order: Tensor, labels: Tensor, examples: int, classes: int) -> Tensor:
    """The order with as many examples of each class first, and the others after them."""
    each, odd = divmod(examples, classes)
    fewest = int(labels.bincount(minlength=classes).min())
    if odd or each > fewest:
        raise ValueError(
            f"expected as many examples of each of {classes} classes, of which there are {fewest} "
            f"or more, got {examples} examples to train on"
        )
    first = torch.zeros(len(order), dtype=torch.bool)
    for label in range(classes):
        first[(labels[order] == label).nonzero()[:each, 0]] = True
    return torch.cat([order[first], order[~first]])


def _with_noise(labels: Tensor, classes: int, seed: int, share: float) -> tuple[Tensor, str]:
    """The labels, some of which are drawn at random, and how many these are."""
    count = round(share * len(labels))
    if not count:
        return labels, ""
    generator, labels = random_numbers(seed, tag=NOISE), labels.clone()
    replaced = torch.randperm(len(labels), generator=generator)[:count]
    labels[replaced] = torch.randint(classes, (len(labels),), generator=generator)[:count]
    return labels, f"; {count} of {len(labels)} labels to train on drawn at random"
