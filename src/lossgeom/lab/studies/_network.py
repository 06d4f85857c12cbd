"""The settings of data and model that studies share, and what they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lossgeom.lab.datasets import Dataset, cifar10, digits
from lossgeom.lab.models import mlp, vgg11

Rule = tuple[bool, str, tuple[str, ...]]


@runtime_checkable
class NetworkSettings(Protocol):
    """Which data and which model, in a study's ``Config`` and in its runs."""

    @property
    def data(self) -> str:
        """``"digits"`` or ``"cifar10"``."""
        ...

    @property
    def folder(self) -> str:
        """Where the files of CIFAR-10 are."""
        ...

    @property
    def examples(self) -> int:
        """Examples to train on."""
        ...

    @property
    def chunk(self) -> int:
        """Examples to go through at a time."""
        ...

    @property
    def model(self) -> str:
        """``"mlp"`` or ``"vgg11"``."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden layers of the mlp."""
        ...

    @property
    def activation(self) -> str:
        """Between the layers of the mlp."""
        ...


NETWORK_SETTINGS = ("data", "folder", "examples", "chunk", "model", "widths", "activation")


def network_rules(config: NetworkSettings) -> list[Rule]:
    """What has to hold of them: whether it does, in words, and the settings that it is about."""
    few_enough = config.data != "digits" or config.examples <= 1796
    fits = config.model != "vgg11" or config.data == "cifar10"
    return [
        (all(width >= 1 for width in config.widths), "widths of at least 1", ("widths",)),
        (config.examples >= 1 and config.chunk >= 1, "at least 1", ("examples", "chunk")),
        (few_enough, "at most 1796 examples of digits", ("examples",)),
        (fits, "vgg11 with the images of cifar10", ("model", "data")),
    ]


def idle_settings(config: Any) -> list[str]:
    """Names of those that this data and model do not use, in any study's ``Config``."""
    folder = ["folder"] if getattr(config, "data", "cifar10") != "cifar10" else []
    layers = ["widths", "activation"] if getattr(config, "model", "mlp") == "vgg11" else []
    return folder + layers


def check_settings(config: Any, rules: Iterable[Rule]) -> None:
    """Raise a ValueError for the first rule that is broken, with what was expected and given."""
    for ok, expected, names in rules:
        if not ok:
            got = ", ".join(f"{name} = {getattr(config, name)}" for name in names)
            raise ValueError(f"expected {expected}; got {got}")


def build(config: NetworkSettings, seed: int) -> tuple[nn.Module, Dataset]:
    """The model at its initialisation, and the data."""
    data = _load(config, seed)
    return _network(config, data, data.classes, seed), data


def build_with_signs(config: NetworkSettings, seed: int) -> tuple[nn.Module, Dataset]:
    """The same with one output, and targets 1 and -1 for two kinds of examples.

    Of the digits, these are the even and the odd ones; of CIFAR-10, airplanes and automobiles, and
    there are no others.
    """
    data = _load(config, seed, classes=(0, 1))
    data = replace(data, train=_signs(data.train), test=_signs(data.test), classes=2)
    return _network(config, data, 1, seed), data


def _load(config: NetworkSettings, seed: int, classes: Sequence[int] = range(10)) -> Dataset:
    """All digits, or images of some classes."""
    if config.data == "digits":
        return digits(config.examples, seed)
    return cifar10(config.examples, seed, config.folder, classes)


def _signs(examples: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs, labels = examples
    return inputs, (1 - 2 * (labels % 2)).to(inputs).unsqueeze(1)


def _network(config: NetworkSettings, data: Dataset, outputs: int, seed: int) -> nn.Module:
    if config.model == "vgg11":
        return vgg11(outputs, seed=seed)
    inputs = data.train[0][0].numel()
    layers = mlp(inputs, outputs, config.widths, config.activation, seed)
    return nn.Sequential(nn.Flatten(), *layers)


def in_chunks(examples: tuple[Tensor, Tensor], size: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets, some at a time; all together are the full batch."""
    inputs, targets = (torch.split(part, size) for part in examples)
    return list(zip(inputs, targets, strict=True))
