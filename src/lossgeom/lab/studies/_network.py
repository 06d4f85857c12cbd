"""The data and the network that studies train on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn

from lossgeom.lab.datasets import Dataset, cifar10, digits, mnist
from lossgeom.lab.models import lenet5, mlp, vgg11
from lossgeom.lab.studies._study import require

Examples = tuple[Tensor, Tensor]
CLASSES = 10  # of every data set


@dataclass(frozen=True)
class NetworkSettings:
    """Data and model."""

    data: Literal["digits", "mnist", "cifar10"] = "digits"
    """Data set."""
    folder: str = "data/cifar-10-batches-bin"
    """The folder with the files of CIFAR-10 or MNIST."""
    examples: int = 500
    """Examples to train on."""
    chunk: int = 500
    """Examples to go through at a time, in training on all of them and in measuring."""
    model: Literal["mlp", "lenet5", "vgg11"] = "mlp"
    """Model."""
    widths: tuple[int, ...] = (48, 48)
    """Widths of the hidden layers of the mlp."""
    activation: Literal["relu", "leaky_relu", "tanh", "gelu", "elu"] = "relu"
    """Activation between the layers of the mlp."""

    def __post_init__(self) -> None:
        few_enough = self.data != "digits" or self.examples <= 1796
        fits = self.model != "vgg11" or self.data == "cifar10"
        require(self, all(width >= 1 for width in self.widths), "widths of at least 1", "widths")
        require(self, min(self.examples, self.chunk) >= 1, "at least 1", "examples", "chunk")
        require(self, few_enough, "at most 1796 examples of digits", "examples")
        require(self, fits, "vgg11 with the images of cifar10", "model", "data")


Network = Annotated[NetworkSettings, tyro.conf.arg(name="")]  # whose flags have no prefix


def idle_settings(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the settings that the chosen data and model do not use, in those of any study."""
    flat = {**settings, **settings.get("network", {})}
    layers = flat.get("model", "mlp") != "mlp"
    idle = {"folder": flat.get("data") == "digits", "widths": layers, "activation": layers}
    return tuple(name for name in idle if idle[name])


def build(settings: NetworkSettings, seed: int) -> tuple[nn.Module, Dataset]:
    """The model at its initialisation, and the data."""
    data = _load(settings, seed)
    return _network(settings, data, data.classes, seed), data


def build_with_pixels(
    settings: NetworkSettings, seed: int, batch_norm: bool = False
) -> tuple[nn.Module, Dataset]:
    """The model, with batch normalisation or not, and the data with pixels from 0 to 1.

    Inputs then have a mean that is large beside how they vary.
    """
    data = _load(settings, seed, pixels=True)
    return _network(settings, data, data.classes, seed, batch_norm), data


def build_with_indicators(settings: NetworkSettings, seed: int) -> tuple[nn.Module, Dataset]:
    """The model, and the data with one target for each class: 1 for that of the example, or 0.

    The pixels of digits are not centred.
    """
    data = _load(settings, seed, centred=False)
    data = replace(data, train=_indicators(data.train), test=_indicators(data.test))
    return _network(settings, data, data.classes, seed), data


def build_with_signs(
    settings: NetworkSettings, seed: int, centred: bool = True
) -> tuple[nn.Module, Dataset]:
    """The model with one output, and the data with targets 1 and -1 for two kinds of examples.

    Of digits, these are the even and the odd ones; of CIFAR-10, airplanes and automobiles, and
    there are no others.
    """
    data = _load(settings, seed, classes=(0, 1), centred=centred)
    data = replace(data, train=_signs(data.train), test=_signs(data.test), classes=2)
    return _network(settings, data, 1, seed), data


def _load(
    settings: NetworkSettings,
    seed: int,
    classes: Sequence[int] = range(10),
    centred: bool = True,
    pixels: bool = False,
) -> Dataset:
    """Load digits, centred or not, or centred images; or either with pixels from 0 to 1."""
    if settings.data == "digits":
        return digits(settings.examples, seed, centred and not pixels, 0.0 if pixels else -1.0)
    if settings.data == "mnist":
        return mnist(settings.examples, seed, settings.folder, centred=not pixels)
    return cifar10(settings.examples, seed, settings.folder, classes, centred=not pixels)


def _indicators(examples: Examples) -> Examples:
    inputs, labels = examples
    return inputs, nn.functional.one_hot(labels, CLASSES).to(inputs)


def _signs(examples: Examples) -> Examples:
    inputs, labels = examples
    return inputs, (1 - 2 * (labels % 2)).to(inputs).unsqueeze(1)


def _network(
    settings: NetworkSettings, data: Dataset, outputs: int, seed: int, batch_norm: bool = False
) -> nn.Module:
    if settings.model == "vgg11":
        return vgg11(outputs, seed=seed)
    image = data.train[0][0]
    if settings.model == "lenet5":
        return lenet5((1, 8, 8) if settings.data == "digits" else image.shape, outputs, seed)
    layers = mlp(image.numel(), outputs, settings.widths, settings.activation, seed, batch_norm)
    return nn.Sequential(nn.Flatten(), *layers)


def in_chunks(examples: Examples, size: int) -> list[Examples]:
    """Cut inputs and targets into batches, which together are the full batch."""
    inputs, targets = (torch.split(part, size) for part in examples)
    return list(zip(inputs, targets, strict=True))
