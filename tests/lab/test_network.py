"""The data and the network of studies."""

import pytest
import torch

from lossgeom.lab.studies._checkpoint import arrays_of, restore
from lossgeom.lab.studies._network import (
    NetworkSettings,
    build,
    build_with_indicators,
    build_with_pixels,
    build_with_signs,
    idle_settings,
)
from tests.lab.test_lab import write_cifar10, write_mnist


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (0,)}, r"expected widths of at least 1; got widths = \(0,\)$"),
        ({"examples": 1797}, "at most 1796 examples of digits; got examples = 1797"),
        ({"chunk": 0}, "at least 1; got examples = 500, chunk = 0"),
        ({"model": "vgg11"}, "vgg11 with the images of cifar10; got model = vgg11, data = digits"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**settings)


def test_settings_that_are_of_no_use():
    images = {"data": "cifar10", "model": "vgg11"}
    assert idle_settings({"lr": 1.0, "network": images}) == ("widths", "activation")
    assert idle_settings({"lr": 1.0, "network": {"data": "digits", "model": "mlp"}}) == ("folder",)
    assert idle_settings({"data": "digits"}) == ("folder",)
    assert idle_settings({"eps": 0.1}) == ()


def test_targets_of_the_squared_error():
    settings = NetworkSettings(examples=30, widths=(4,))
    labels = build(settings, 1)[1].train[1]
    model, data = build_with_indicators(settings, 1)
    inputs, targets = data.train
    assert model(inputs).shape == targets.shape == (30, 10)
    assert torch.equal(targets.argmax(1), labels)
    assert torch.equal(targets.sum(1), torch.ones(30))
    assert inputs.min() == -1
    signed = build_with_signs(settings, 1, centred=False)[1].train
    assert torch.equal(signed[0], inputs)
    assert torch.equal(signed[1][:, 0], 1.0 - 2 * (labels % 2))


@pytest.mark.parametrize(
    ("data", "write"), [("digits", None), ("mnist", write_mnist), ("cifar10", write_cifar10)]
)
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_pixels_from_0_to_1(tmp_path, data, write, model):
    if write is not None:
        write(tmp_path / "data", images=8)
    settings = NetworkSettings(
        data=data, folder=str(tmp_path / "data"), examples=8, widths=(4,), model=model
    )
    made, found = build_with_pixels(settings, 1)
    inputs, targets = found.train
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert made(inputs).shape == (8, 10)
    assert targets.dtype == torch.int64


def test_batch_normalisation_before_activations():
    made, data = build_with_pixels(NetworkSettings(examples=20, widths=(4, 3)), 1, batch_norm=True)
    names = [type(layer).__name__ for layer in made]
    assert names == ["Flatten", *2 * ["Linear", "BatchNorm1d", "ReLU"], "Linear"]
    assert made(data.train[0]).shape == (20, 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.1, 0.9),
        lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.5, centered=True),
        lambda p: torch.optim.NAdam(p, 0.1),
    ],
)
def test_a_checkpoint_holds_what_optimizers_go_on_with(make):
    def trained(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()

    first, again = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimizers = (
        [make([first.weight]), make([first.bias])],
        [make([again.weight]), make([again.bias])],
    )
    for optimizer in optimizers[0]:
        trained(first, optimizer, 3)
    held = {name: tensor.clone() for name, tensor in arrays_of(first, optimizers[0]).items()}
    restore(again, optimizers[1], held)
    for model, made in ((first, optimizers[0]), (again, optimizers[1])):
        for optimizer in made:
            trained(model, optimizer, 2)
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
