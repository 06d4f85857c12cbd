"""The data and the network that studies train on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn

from lossgeom.lab.datasets import DATASETS, Dataset
from lossgeom.lab.models import lenet5, mlp, resnet14, resnet18, vgg11
from lossgeom.lab.studies._study import require
from lossgeom.problem import Problem

Examples = tuple[Tensor, Tensor]
CLASSES = 10  # of most data sets
IN_FILES = ("mnist", "fashion_mnist", "cifar10", "cifar100", "hugging_face")
POINTS = ("two_moons", "random_labels", "chebyshev", "manifold")  # and no images
FIRST_TWO = ("fashion_mnist", "cifar10", "cifar100", "hugging_face")  # classes, for signs
NOT_TEN = ("cifar100", "hugging_face", "two_moons", "chebyshev", "manifold")  # classes
CHANGES = (
    "channels", "batch_norm", "classes", "balanced", "label_noise", "input_scale", "target_scale",
    "verify", "parametrization",
)  # fmt: skip


@dataclass(frozen=True)
class NetworkSettings:
    """Data and model."""

    data: Literal[
        "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "hugging_face",
        "two_moons", "random_labels", "chebyshev", "manifold",
    ] = "digits"  # fmt: skip
    """Data set."""
    folder: str = ""
    """The folder with its files, or its name on the Hugging Face Hub; by default one in data/, such
    as data/mnist or data/cifar-10-batches-bin."""
    examples: int = 500
    """Examples to train on."""
    chunk: int = 500
    """Examples to go through at a time, in training on all of them and in measuring."""
    model: Literal["mlp", "lenet5", "vgg11", "resnet14", "resnet18"] = "mlp"
    """Model."""
    widths: tuple[int, ...] = (48, 48)
    """Widths of the hidden layers of the mlp."""
    activation: Literal["relu", "leaky_relu", "tanh", "gelu", "elu"] = "relu"
    """Activation between the layers of the mlp."""
    parametrization: Literal["standard", "ntk"] = "standard"
    """Whether the numbers of the mlp are drawn as torch does, or with deviation 1."""
    channels: float = 1.0
    """Factor on the channels of vgg11, resnet14 and resnet18."""
    batch_norm: bool = False
    """Whether batch normalisation goes before each activation, but in lenet5."""
    classes: tuple[int, ...] = ()
    """Classes to keep; all by default."""
    balanced: bool = False
    """Whether there are as many examples to train on of each class."""
    label_noise: float = 0.0
    """Share of the labels to train on that are drawn at random."""
    input_scale: float = 1.0
    """Factor on all inputs."""
    target_scale: float = 1.0
    """Factor on targets that are numbers."""
    verify: bool = True
    """Whether files with as many examples as the published ones must be these."""

    def __post_init__(self) -> None:
        few_enough = self.data != "digits" or self.examples <= 1796
        scales = "input_scale", "target_scale", "channels"
        fits = self.model == "mlp" or self.data not in POINTS
        positive = all(0 < getattr(self, name) < math.inf for name in scales)
        require(self, all(width >= 1 for width in self.widths), "widths of at least 1", "widths")
        require(self, min(self.examples, self.chunk) >= 1, "at least 1", "examples", "chunk")
        require(self, few_enough, "at most 1796 examples of digits", "examples")
        require(self, fits, "images, or the model mlp", "model", "data")
        require(self, positive, "factors > 0", *scales)
        require(self, 0 <= self.label_noise <= 1, "label_noise from 0 to 1", "label_noise")

    @property
    def ten_classes(self) -> bool:
        """Whether the data have, as some studies take for granted."""
        return len(self.classes) == CLASSES or not (self.classes or self.data in NOT_TEN)


Network = Annotated[NetworkSettings, tyro.conf.arg(name="")]  # whose flags have no prefix
MeasuredOn = Annotated[
    int,
    tyro.conf.arg(
        help="Examples that sharpness and Jacobian norms are measured on, at most: the first of "
        "those to train on; 0 for all. A sharpness costs some 50 gradients of all of them, the "
        "Jacobian norms 10. On fewer examples the sharpness is larger in the mean."
    ),
]


def idle_settings(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the settings of which no use is made, in those of any study."""
    flat = {**settings, **settings.get("network", {})}
    model, data = flat.get("model", "mlp"), flat.get("data", "mnist")
    layers, files = model != "mlp", data in IN_FILES
    default = {each.name: each.default for each in fields(NetworkSettings)}
    idle = {"folder": not files, "widths": layers, "activation": layers}
    without = {"channels": model in ("mlp", "lenet5"), "batch_norm": model == "lenet5"}
    without |= {"parametrization": layers, "verify": not files or data == "hugging_face"}
    idle |= {
        name: name in flat and (flat[name] == default[name] or without.get(name, False))
        for name in CHANGES
    }
    return tuple(name for name in idle if idle[name])


def load(
    settings: NetworkSettings,
    seed: int,
    targets: str = "labels",
    centred: bool = True,
    pixels: bool = False,
) -> Dataset:
    """Load digits, centred or not, or centred images; or either with pixels from 0 to 1."""
    options: dict[str, Any] = {
        "targets": targets,
        "centred": not pixels and (centred or settings.data in IN_FILES),
        "classes": settings.classes, "balanced": settings.balanced, "verify": settings.verify,
        "label_noise": settings.label_noise, "input_scale": settings.input_scale,
        "target_scale": settings.target_scale,
    }  # fmt: skip
    if settings.data == "digits":
        options |= {"lowest": 0.0 if pixels else -1.0}
    if settings.data in IN_FILES and settings.folder:
        options |= {"folder": settings.folder}
    return DATASETS[settings.data](settings.examples, seed, **options)


def build(settings: NetworkSettings, seed: int) -> tuple[nn.Module, Dataset]:
    """The model at its initialisation, and the data.

    Raises:
        ValueError: for data without classes.
    """
    data = load(settings, seed)
    return _network(settings, data, _classes(settings, data), seed), data


def build_with_pixels(
    settings: NetworkSettings, seed: int, batch_norm: bool = False
) -> tuple[nn.Module, Dataset]:
    """The model, with batch normalisation or not, and the data with pixels from 0 to 1.

    Inputs then have a mean that is large beside how they vary.
    """
    data = load(settings, seed, pixels=True)
    settings = replace(settings, batch_norm=batch_norm or settings.batch_norm)
    return _network(settings, data, _classes(settings, data), seed), data


def build_with_indicators(
    settings: NetworkSettings, seed: int, centred: bool = False
) -> tuple[nn.Module, Dataset]:
    """The model, and the data with one target for each class: 1 for that of the example, or 0.

    The pixels of digits are centred if asked to be. Data without classes keep their numbers as
    targets.
    """
    data = load(settings, seed, targets="one_hot", centred=centred)
    return _network(settings, data, data.train[1].shape[1], seed), data


def build_with_signs(
    settings: NetworkSettings, seed: int, centred: bool = True
) -> tuple[nn.Module, Dataset]:
    """The model with one output, and the data with targets 1 and -1 for two kinds of examples.

    Those of images are the first two classes, such as airplanes and automobiles of CIFAR-10, and
    there are no others; of other data, and of digits, those with even and with odd labels. Data
    without classes keep their numbers as targets.
    """
    if settings.data in FIRST_TWO and not settings.classes:
        settings = replace(settings, classes=(0, 1))
    data = load(settings, seed, targets="signs", centred=centred)
    data = replace(data, classes=2) if data.classes else data
    return _network(settings, data, 1, seed), data


def _classes(settings: NetworkSettings, data: Dataset) -> int:
    if not data.classes:
        raise ValueError(
            f"expected data with classes for a cross-entropy, got {settings.data}, whose targets "
            "are numbers; studies of the squared error take it"
        )
    return data.classes


def _network(settings: NetworkSettings, data: Dataset, outputs: int, seed: int) -> nn.Module:
    image = data.train[0][0]
    shape = (1, 8, 8) if settings.data == "digits" else tuple(image.shape)
    if settings.model == "lenet5":
        return lenet5(shape, outputs, seed)
    if settings.model == "mlp":
        layers = mlp(
            image.numel(), outputs, settings.widths, settings.activation, seed,
            settings.batch_norm, settings.parametrization,
        )  # fmt: skip
        return nn.Sequential(nn.Flatten(), *layers)
    if settings.model == "vgg11":
        factor = {} if settings.channels == 1 else {"width": settings.channels}
        return vgg11(outputs, seed=seed, shape=shape, batch_norm=settings.batch_norm, **factor)
    made, full = {"resnet14": (resnet14, 16), "resnet18": (resnet18, 64)}[settings.model]
    width = max(1, round(settings.channels * full))
    return made(outputs, width, seed, shape, settings.batch_norm)


def on_first(problem: Problem, most: int, examples: int) -> Problem:
    """The same problem on so many of its examples at most, which are the first; 0 for all."""
    return problem.take(most) if 0 < most < examples else problem


def in_chunks(examples: Examples, size: int) -> list[Examples]:
    """Cut inputs and targets into batches, which together are the full batch."""
    inputs, targets = (torch.split(part, size) for part in examples)
    return list(zip(inputs, targets, strict=True))
